"""The driver's `gpu_metrics` and `xcp_metrics`: bytes to busy shares. Pure; whatever is not understood is unknown.

Layouts: struct gpu_metrics_v1_5 to v1_9, amdgpu_xcp_metrics, amdgpu_partition_metrics_v1_1 (kgd_pp_interface.h). They are
no continuations of each other: a table is read by the layout of exactly its version and size, or not at all. A driver
sets every byte that it does not fill to 0xFF.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

Share = float | None  # 0 to 1
Shares = tuple[Share, ...]

_HEADER = struct.Struct("<HBB")  # structure_size, format_revision, content_revision
_U16 = struct.Struct("<H")
_WHOLE_AT = 12  # average_gfx_activity, in all fixed layouts
_XCC_SLOTS = 8  # MAX_XCC
_XCP_SLOTS = 8  # NUM_XCP

# An attribute table: an int that counts attributes, then for each an encoding and as many values as this says.
_COUNT = struct.Struct("<i")
_ENCODING = struct.Struct("<Q")
_TABLE_AT = _HEADER.size + _COUNT.size
_TYPES = "BbHhIiQq"  # enum amdgpu_metrics_attr_type
AVERAGE_GFX_ACTIVITY = 4
GFX_BUSY_INST = 40


@dataclass(frozen=True, slots=True)
class GpuActivity:
    """How busy a GPU is.

    Attributes:
        whole: all XCCs together.
        partitions: by partition index its XCCs (1.6 to 1.8). A table has eight slots for either; those unused are None.
        xccs: by number in the GPU, whatever partition they are in (1.9).
    """

    whole: Share = None
    partitions: tuple[Shares, ...] = ()
    xccs: Shares = ()

    def of(self, index: int, first_xcc: int, count: int) -> Share:
        """The mean of a partition's XCCs; None unless each of them is known. `first_xcc` is its first one's number."""
        if index < len(self.partitions):
            return mean(self.partitions[index], count)
        return mean(self.xccs[first_xcc:], count)


def mean(shares: Shares, count: int) -> Share:
    """Of the first `count` of them; None unless each is known."""
    known = [share for share in shares[:count] if share is not None]
    return sum(known) / count if 0 < count == len(known) else None


@dataclass(frozen=True, slots=True)
class _PerPartition:
    """Where a fixed layout has what it tells of partitions: its number of them, the first one and their distance."""

    number_at: int
    first_at: int
    each: int


def decode_gpu_metrics(data: bytes) -> GpuActivity | None:
    """What a GPU's `gpu_metrics` tells; None for a version that is not known, or not of the size it says and should have."""
    version = _version(data)
    decode = _DECODERS.get(version) if version is not None else None
    return decode(data) if decode is not None else None


def decode_partition_metrics(data: bytes) -> Shares | None:
    """The XCCs of a partition by its `xcp_metrics`, eight slots; None as for `decode_gpu_metrics`."""
    if _version(data) != (1, 1):
        return None
    attributes = read_attributes(data)
    return None if attributes is None else _shares(attributes.get(GFX_BUSY_INST, ()))


def read_attributes(data: bytes) -> Mapping[int, tuple[int, ...]] | None:
    """The values of an attribute table by id (enum amdgpu_metrics_attr_id); None if it is no whole one."""
    if len(data) < _TABLE_AT:
        return None
    (count,) = _COUNT.unpack_from(data, _HEADER.size)
    found: dict[int, tuple[int, ...]] = {}
    at = _TABLE_AT
    for _ in range(count):
        if at + _ENCODING.size > len(data):
            return None
        (encoding,) = _ENCODING.unpack_from(data, at)
        kind, identity, number = encoding >> 20 & 0xF, encoding >> 10 & 0x3FF, encoding & 0x3FF
        if kind >= len(_TYPES):
            return None  # nobody knows how long it is
        values = struct.Struct(f"<{number}{_TYPES[kind]}")
        at += _ENCODING.size
        if at + values.size > len(data):
            return None
        found[identity] = values.unpack_from(data, at)
        at += values.size
    return found if count >= 0 else None


def _version(data: bytes) -> tuple[int, int] | None:
    if len(data) < _HEADER.size:
        return None
    size, major, minor = _HEADER.unpack_from(data)
    return (major, minor) if size == len(data) else None


def _fixed(layouts: Mapping[int, _PerPartition | None], data: bytes) -> GpuActivity | None:
    """By one of the layouts of a version, which their sizes tell apart."""
    if len(data) not in layouts:
        return None
    whole = _share(_U16.unpack_from(data, _WHOLE_AT)[0])
    told = layouts[len(data)]
    if told is None:
        return GpuActivity(whole)
    (number,) = _U16.unpack_from(data, told.number_at)
    busy = struct.Struct(f"<{_XCC_SLOTS}I")
    slots = range(min(number, _XCP_SLOTS))
    return GpuActivity(
        whole, tuple(_shares(busy.unpack_from(data, told.first_at + told.each * slot)) for slot in slots)
    )


def _table(data: bytes) -> GpuActivity | None:
    attributes = read_attributes(data)
    if attributes is None:
        return None
    (whole,) = _shares(attributes.get(AVERAGE_GFX_ACTIVITY, ()))[:1] or (None,)
    return GpuActivity(whole, xccs=_shares(attributes.get(GFX_BUSY_INST, ())))


def _shares(percents: tuple[int, ...]) -> Shares:
    return tuple(_share(percent) for percent in percents)


def _share(percent: int) -> Share:
    """None for more than 100 %: all bits set says "not filled", and nothing else of the kind is a measurement."""
    return percent / 100 if 0 <= percent <= 100 else None


_DECODERS: Mapping[tuple[int, int], Callable[[bytes], GpuActivity | None]] = {
    (1, 5): partial(_fixed, {360: None}),
    # Linux up to 6.12 had a 1.6 without partitions; from 6.13 on, and in AMD's own builds, it has them.
    (1, 6): partial(_fixed, {384: None, 1664: _PerPartition(306, 312, 168)}),
    (1, 7): partial(_fixed, {2208: _PerPartition(338, 344, 232)}),
    (1, 8): partial(_fixed, {3872: _PerPartition(338, 344, 440)}),
    (1, 9): _table,
}
