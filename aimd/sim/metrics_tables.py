"""The tables behind `gpu_metrics` and `xcp_metrics`, in every format that drivers for these GPUs have written.

Layouts: Linux 6.12 and 7.2, kgd_pp_interface.h and smu_v13_0_6_ppt.h. What is not simulated keeps the driver's sign for "not
filled", all bits set.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

XCC_SLOTS = XCP_SLOTS = 8
U8, U16, U32, U64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64
Fields = list[tuple[str, Any]]  # names and types of ctypes: its alignment is the compiler's

_HEAD: Fields = [
    ("structure_size", U16), ("format_revision", U8), ("content_revision", U8), ("temperature_hotspot", U16),
    ("temperature_mem", U16), ("temperature_vrsoc", U16), ("curr_socket_power", U16), ("average_gfx_activity", U16),
    ("average_umc_activity", U16),
]  # fmt: skip
_ENERGY: Fields = [("energy_accumulator", U64), ("system_clock_counter", U64)]
_THROTTLE: Fields = [("throttle_status", U32), ("gfxclk_lock_status", U32)]
_RESIDENCY: Fields = [
    ("accumulation_counter", U32), ("prochot_residency_acc", U32), ("ppt_residency_acc", U32),
    ("socket_thm_residency_acc", U32), ("vr_thm_residency_acc", U32), ("hbm_thm_residency_acc", U32),
]  # fmt: skip
_LOCK: Fields = [("gfxclk_lock_status", U32)]
_LINKS: Fields = [
    ("pcie_link_width", U16), ("pcie_link_speed", U16), ("xgmi_link_width", U16), ("xgmi_link_speed", U16),
    ("gfx_activity_acc", U32), ("mem_activity_acc", U32), ("pcie_bandwidth_acc", U64), ("pcie_bandwidth_inst", U64),
    ("pcie_l0_to_recov_count_acc", U64), ("pcie_replay_count_acc", U64), ("pcie_replay_rover_count_acc", U64),
    ("pcie_nak_sent_count_acc", U32), ("pcie_nak_rcvd_count_acc", U32), ("xgmi_read_data_acc", U64 * 8),
    ("xgmi_write_data_acc", U64 * 8),
]  # fmt: skip
_LINK_STATUS: Fields = [("xgmi_link_status", U16 * 8), ("padding", U16)]
_CLOCKS: Fields = [
    ("firmware_timestamp", U64), ("current_gfxclk", U16 * 8), ("current_socclk", U16 * 4), ("current_vclk0", U16 * 4),
    ("current_dclk0", U16 * 4), ("current_uclk", U16), ("num_partition", U16),
]  # fmt: skip
_MEDIA: Fields = [("vcn_activity", U16 * 4), ("jpeg_activity", U16 * 32)]
_BANDWIDTH: Fields = [("mem_max_bandwidth", U64)]


def _structure(fields: Fields) -> Any:
    return type("Structure", (ctypes.LittleEndianStructure,), {"_fields_": fields})


def _stats(jpegs: int, accumulators: int) -> Fields:
    """What a table has per partition: amdgpu_xcp_metrics and its successors."""
    stats = _structure(
        [
            ("gfx_busy_inst", U32 * XCC_SLOTS),
            ("jpeg_busy", U16 * jpegs),
            ("vcn_busy", U16 * 4),
            ("gfx_busy_acc", U64 * XCC_SLOTS),
            ("accumulators", U64 * XCC_SLOTS * accumulators),
        ]
    )
    return [("xcp_stats", stats * XCP_SLOTS), ("pcie_lc_perf_other_end_recovery", U32)]


_FIXED: dict[str, Fields] = {
    "1.5": [*_HEAD, *_MEDIA, *_ENERGY, *_THROTTLE, *_LINKS, *_CLOCKS],
    "1.6": [*_HEAD, *_ENERGY, *_RESIDENCY, *_LOCK, *_LINKS, *_CLOCKS, *_stats(32, 0)],
    "1.7": [*_HEAD, *_BANDWIDTH, *_ENERGY, *_RESIDENCY, *_LOCK, *_LINKS, *_LINK_STATUS, *_CLOCKS, *_stats(32, 1)],
    "1.8": [*_HEAD, *_BANDWIDTH, *_ENERGY, *_RESIDENCY, *_LOCK, *_LINKS, *_LINK_STATUS, *_CLOCKS, *_stats(40, 4)],
}
# Attributes as (unit, type, id, how many); the numbers are those of kgd_pp_interface.h's enumerations.
_NONE, _CLOCK, _TEMP, _POWER, _TIME1, _TIME2, _SPEED1, _SPEED2, _BW, _DATA, _PERCENT = range(11)
_T16, _T32, _T64 = 2, 4, 6
Attribute = tuple[int, int, int, int]
_WHOLE_ID, _BUSY_ID = 4, 40
_BUSY: tuple[Attribute, ...] = (
    (_PERCENT, _T32, _BUSY_ID, XCC_SLOTS), (_PERCENT, _T16, 41, 40), (_PERCENT, _T16, 42, 4), (_PERCENT, _T64, 43, 8),
    *((_NONE, _T64, number, XCC_SLOTS) for number in range(44, 48)),
)  # fmt: skip
_CLOCK_ATTRIBUTES: tuple[Attribute, ...] = (
    (_CLOCK, _T16, 33, 8), (_CLOCK, _T16, 34, 4), (_CLOCK, _T16, 35, 4), (_CLOCK, _T16, 36, 4), (_CLOCK, _T16, 37, 1),
)  # fmt: skip
_OF_GPU: tuple[Attribute, ...] = (
    *((_TEMP, _T16, number, 1) for number in range(3)), (_POWER, _T16, 3, 1), (_PERCENT, _T16, _WHOLE_ID, 1),
    (_PERCENT, _T16, 5, 1), (_BW, _T64, 6, 1), (_NONE, _T64, 7, 1), (_TIME1, _T64, 8, 1),
    *((_NONE, _T32, number, 1) for number in range(9, 16)),
    (_NONE, _T16, 16, 1), (_SPEED2, _T16, 17, 1), (_NONE, _T16, 18, 1), (_SPEED1, _T16, 19, 1),
    (_PERCENT, _T32, 20, 1), (_PERCENT, _T32, 21, 1), (_PERCENT, _T64, 22, 1), (_BW, _T64, 23, 1),
    *((_NONE, _T64, number, 1) for number in range(24, 27)), (_NONE, _T32, 27, 1), (_NONE, _T32, 28, 1),
    (_DATA, _T64, 29, 8), (_DATA, _T64, 30, 8), (_NONE, _T16, 31, 8), (_TIME2, _T64, 32, 1), *_CLOCK_ATTRIBUTES,
    (_NONE, _T32, 39, 1), *_BUSY,
)  # fmt: skip
_OF_PARTITION: tuple[Attribute, ...] = (*_CLOCK_ATTRIBUTES, *_BUSY)
_CODES = {_T16: "H", _T32: "I", _T64: "Q"}

FORMATS = (*_FIXED, "1.9")


def gpu_metrics(version: str, xccs: Sequence[float], partitions: int) -> bytes:
    """A GPU's table; `xccs` are busy shares by number, divided evenly among so many partitions."""
    whole = _percent(sum(xccs) / len(xccs))
    if version == "1.9":
        return _attributes((1, 9), _OF_GPU, {_WHOLE_ID: [whole], _BUSY_ID: [_percent(share) for share in xccs]})
    kind = _structure(_FIXED[version])
    table = kind.from_buffer(bytearray(b"\xff" * ctypes.sizeof(kind)))
    table.structure_size = ctypes.sizeof(kind)
    table.format_revision, table.content_revision = (int(part) for part in version.split("."))
    table.average_gfx_activity = whole
    if hasattr(table, "xcp_stats"):
        table.num_partition = partitions
        each = len(xccs) // partitions
        for number, share in enumerate(xccs):
            table.xcp_stats[number // each].gfx_busy_inst[number % each] = _percent(share)
    return bytes(table)


def partition_metrics(xccs: Sequence[float]) -> bytes:
    """The table of a partition with these XCCs, version 1.1."""
    return _attributes((1, 1), _OF_PARTITION, {_BUSY_ID: [_percent(share) for share in xccs]})


def _attributes(version: tuple[int, int], attributes: Sequence[Attribute], filled: dict[int, list[int]]) -> bytes:
    parts = [struct.pack("<i", len(attributes))]
    for unit, kind, number, count in attributes:
        parts.append(struct.pack("<Q", unit << 24 | kind << 20 | number << 10 | count))
        unfilled = (1 << 8 * struct.calcsize(_CODES[kind])) - 1
        values = filled.get(number, [])
        parts.append(struct.pack(f"<{count}{_CODES[kind]}", *values, *[unfilled] * (count - len(values))))
    body = b"".join(parts)
    return struct.pack("<HBB", 4 + len(body), *version) + body


def _percent(share: float) -> int:
    return round(share * 100)
