"""The GPU models aimd knows, and which modes their silicon can be divided into.

What a GPU offers is read from sysfs wherever the driver says it; this table names a model, tells how many XCCs a whole
GPU has, and pre-checks mode pairs where an older driver lists modes without regard to the memory mode.

Sources: PCI ids of amdgpu_drv.c and AMD's product pages; rule of pairs from `amdgpu_xcp_update_supported_modes` and
`__aqua_vanjaram_get_px_mode_info` (Linux 7.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from aimd.domain.modes import ComputeMode, MemoryMode

GFX_908 = 90008  # CDNA 1, as KFD's gfx_target_version; has no partition modes, like the next
GFX_90A = 90010  # CDNA 2
GFX_942 = 90402  # GC 9.4.3 and 9.4.4 (MI300 series), as KFD's gfx_target_version
GFX_950 = 90500  # GC 9.5.0 (MI350 series)

_N1, _N2, _N4 = MemoryMode.NPS1, MemoryMode.NPS2, MemoryMode.NPS4

MEMORY_MODES: dict[int, dict[ComputeMode, frozenset[MemoryMode]]] = {
    GFX_942: {
        ComputeMode.SPX: frozenset({_N1}),
        ComputeMode.DPX: frozenset({_N1, _N2}),
        ComputeMode.TPX: frozenset({_N1, _N4}),
        ComputeMode.QPX: frozenset({_N1, _N4}),
        ComputeMode.CPX: frozenset({_N1, _N4}),
    },
    GFX_950: {
        ComputeMode.SPX: frozenset({_N1}),
        ComputeMode.DPX: frozenset({_N1, _N2}),
        ComputeMode.TPX: frozenset({_N1, _N4}),
        ComputeMode.QPX: frozenset({_N1, _N2, _N4}),
        ComputeMode.CPX: frozenset({_N1, _N2, _N4}),
    },
}


@dataclass(frozen=True, slots=True)
class GpuModel:
    """A product.

    Attributes:
        name: without the maker's.
        xcc_count: of a whole GPU as the driver has it, a PCI device; each die of an MI250 is one.
        gfx_target: KFD's gfx_target_version.
        memory_gib: what it is sold with; None where that is the machine's (an APU).
    """

    name: str
    xcc_count: int
    gfx_target: int
    memory_gib: int | None = None

    @property
    def partitionable(self) -> bool:
        """Whether it has partition modes at all: one XCC cannot be divided."""
        return self.xcc_count > 1


_MI300X = GpuModel("MI300X", 8, GFX_942, 192)
_MI308X = GpuModel("MI308X", 4, GFX_942, 192)
_MI325X = GpuModel("MI325X", 8, GFX_942, 256)

MODELS: dict[int, GpuModel] = {
    0x738C: GpuModel("MI100", 1, GFX_908, 32),
    0x7408: GpuModel("MI250X", 1, GFX_90A, 64),
    0x740C: GpuModel("MI250", 1, GFX_90A, 64),
    0x740F: GpuModel("MI210", 1, GFX_90A, 64),
    0x74A0: GpuModel("MI300A", 6, GFX_942),
    0x74A1: _MI300X,
    0x74A9: _MI300X,
    0x74B5: _MI300X,
    0x74A2: _MI308X,
    0x74A8: _MI308X,
    0x74B6: _MI308X,
    0x74A5: _MI325X,
    0x74B9: _MI325X,
    0x75A0: GpuModel("MI350X", 8, GFX_950, 288),
    0x75A3: GpuModel("MI355X", 8, GFX_950, 288),
}


def partition_count(compute: ComputeMode, xcc_count: int) -> int | None:
    """Partitions of a GPU with `xcc_count` XCCs in this mode, or None where the silicon cannot be divided so."""
    if xcc_count % 2 and xcc_count != 1:
        return None
    counts = {
        ComputeMode.SPX: 1,
        ComputeMode.DPX: 2 if xcc_count % 4 == 0 else None,
        ComputeMode.TPX: 3 if xcc_count == 6 else None,
        ComputeMode.QPX: 4 if xcc_count == 8 else None,
        ComputeMode.CPX: xcc_count if xcc_count > 1 else None,
    }
    return counts[compute]


def compute_mode_of(partition_xcc_count: int, xcc_count: int) -> ComputeMode | None:
    """The mode whose partitions have `partition_xcc_count` XCCs on a GPU with `xcc_count`, or None."""
    for mode in ComputeMode:
        count = partition_count(mode, xcc_count)
        if count is not None and count * partition_xcc_count == xcc_count:
            return mode
    return None


def automatic_mode(memory: MemoryMode, xcc_count: int) -> ComputeMode:
    """Compute mode that the driver chooses when it is loaded (`__aqua_vanjaram_get_auto_mode`)."""
    if memory is MemoryMode.NPS1 or xcc_count % 2:
        return ComputeMode.SPX
    if memory is MemoryMode.NPS2:
        return ComputeMode.DPX
    return ComputeMode.TPX if xcc_count == 6 else ComputeMode.CPX


def pair_allowed(gfx_target: int, compute: ComputeMode, memory: MemoryMode) -> bool:
    """Whether the kernel accepts the pair on this family; families that the table lacks are left to the driver."""
    rule = MEMORY_MODES.get(gfx_target)
    return rule is None or memory in rule[compute]
