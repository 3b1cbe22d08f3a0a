"""Data of the simulated hardware: models, driver profiles, partition sizes, gpu_ids. Pure functions and tables.

Sources: Linux 7.2 and 6.12 (amdgpu), the public topology captures of an MI300X and an MI308X node, AMD's data sheets.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.domain.silicon import GFX_942, GFX_950, partition_count

GIB = 1 << 30
LAST_RANGE_LOSS = 16 << 20  # the last memory range is 16 MiB short (reserved by firmware)
PAGE = 4096
CU_SLOTS_PER_XCC = 40  # array_count * cu_per_simd_array, harvested ones included: the step of simd_id_base
XCP_PER_GPU = 8  # MAX_XCP: DRM devices are registered for all of them, whatever the mode


@dataclass(frozen=True, slots=True)
class SimModel:
    """One product as the driver sees it.

    Attributes:
        memory_modes: what the capability register offers.
        sdma_engines: of the whole GPU.
        constants: KFD property values that do not depend on the mode.
    """

    name: str
    device_id: int
    xcc_count: int
    compute_units: int
    gfx_target: int
    memory_gib: int
    memory_modes: tuple[MemoryMode, ...]
    caches_per_xcc: int
    apu: bool = False
    sdma_engines: int = 16
    max_clock: int = 2100
    fw_version: int = 177
    capability: int = 2893521536
    sdma_fw_version: int = 24

    @property
    def memory_bytes(self) -> int:
        """Memory of the whole GPU, as mem_info_vram_total shows it (an APU's is the system's)."""
        return self.memory_gib * GIB - (0 if self.apu else LAST_RANGE_LOSS)


_N1, _N2, _N4 = MemoryMode.NPS1, MemoryMode.NPS2, MemoryMode.NPS4

MODELS: dict[str, SimModel] = {
    "mi300a": SimModel("mi300a", 0x74A0, 6, 38, GFX_942, 128, (_N1,), 80, apu=True, sdma_engines=12),
    "mi300x": SimModel("mi300x", 0x74A1, 8, 38, GFX_942, 192, (_N1, _N2, _N4), 80),
    "mi308x": SimModel(
        "mi308x",
        0x74A2,
        4,
        20,
        GFX_942,
        192,
        (_N1, _N4),
        46,
        sdma_engines=8,
        max_clock=1420,
        fw_version=149,
        capability=746037888,
        sdma_fw_version=19,
    ),
    "mi325x": SimModel("mi325x", 0x74A5, 8, 38, GFX_942, 256, (_N1, _N2, _N4), 80),
    "mi350x": SimModel("mi350x", 0x75A0, 8, 32, GFX_950, 288, (_N1, _N2), 68, max_clock=2200),
    "mi355x": SimModel("mi355x", 0x75A3, 8, 32, GFX_950, 288, (_N1, _N2), 68, max_clock=2400),
}

# PCI buses of the captured eight-GPU machine; each has its own root port.
BUSES = (0x05, 0x27, 0x47, 0x65, 0x85, 0xA7, 0xC7, 0xE5)


@dataclass(frozen=True, slots=True)
class Profile:
    """What differs between driver generations (hardware notes, table 0).

    Attributes:
        node_wide_busy: EBUSY for any KFD process of the node, not only of this GPU.
        reset_eperm: access to mode files answers EPERM during a reset.
        modes_by_memory: available_compute_partition lists only modes that the present memory mode allows.
        memory_writable: current_memory_partition is 0644 and available_memory_partition exists.
        compute_config: compute_partition_config/ exists.
        alloc_mode: compute_partition_mem_alloc_mode and cwsr_size, ctl_stack_size, capability2 exist.
        unique_id_per_xcd: KFD's unique_id differs between partitions.
        wedged_event: a successful recovery is told by a uevent.
        xcp_metrics: each partition's DRM device has xcp/xcp_metrics.
        gpu_metrics: version of that table.
        xcp_separator: between `amdgpu_xcp` and its number.
    """

    name: str
    node_wide_busy: bool
    reset_eperm: bool
    modes_by_memory: bool
    memory_writable: bool
    compute_config: bool
    alloc_mode: bool
    unique_id_per_xcd: bool
    wedged_event: bool
    xcp_metrics: bool
    gpu_metrics: str
    xcp_separator: str = "_"


_OLD = (True, False, False, False, False, False, False, False, False, "1.5")
_NEW = (False, True, True, True, True, True, True, True, True, "1.9")
PROFILES: dict[str, Profile] = {
    "6.8": Profile("6.8", *_OLD, xcp_separator="."),
    "6.12": Profile("6.12", *_OLD),
    "7.2": Profile("7.2", *_NEW),
}


def partition_sizes(model: SimModel, compute: ComputeMode, memory: MemoryMode, xcc_count: int) -> tuple[int, ...]:
    """Bytes of each partition (amdgpu_amdkfd_xcp_memory_size): its memory range shared evenly, page aligned."""
    count = partition_count(compute, xcc_count) or 1
    ranges = min(memory.ranges, count)
    whole = model.memory_gib * GIB // ranges
    sizes = [whole] * ranges
    if not model.apu:
        sizes[-1] -= LAST_RANGE_LOSS
    per_range = count // ranges
    return tuple(sizes[index // per_range] // per_range // PAGE * PAGE for index in range(count))


def crc16(data: bytes) -> int:
    """CRC-16 with polynomial 0xA001 (reflected 0x8005) and initial value 0, as the kernel's lib/crc16."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc


def gpu_id(*, bus: int, device_id: int, memory_bytes: int, first_xcc: int, xcc_count: int) -> int:
    """KFD's gpu_id before collision handling (`kfd_generate_gpu_id`); domain and devfn are 0 on these machines."""
    subsystem = 0x1002 | device_id << 16
    low, high = memory_bytes & 0xFFFFFFFF, memory_bytes >> 32
    return crc16(struct.pack("<8I", 0, subsystem, 0, device_id, bus, low, high, first_xcc | xcc_count << 16))
