"""Which modes of a GPU are published, and how large its partitions are in each.

What was once published stays so whatever becomes of the GPU: the scheduler forgets what a device consumes that is not there
any more, and would give it to another pod. A GPU without partitions is published as its silicon is.
"""

from __future__ import annotations

from collections.abc import Mapping

from aimd.domain.gpu import Gpu, GpuState
from aimd.domain.memory import GIB
from aimd.domain.modes import ComputeMode
from aimd.domain.silicon import pair_allowed, partition_count
from aimd.planning.planner import offered

Division = Mapping[ComputeMode, tuple["int | None", ...]]  # bytes of each partition by index, None if unknown


def present_mode(gpu: Gpu) -> ComputeMode | None:
    """The mode that it is in; a GPU that cannot be divided is in SPX, though its driver has no word for it."""
    undivided = gpu.model is not None and not gpu.model.partitionable
    return gpu.compute_mode or (ComputeMode.SPX if undivided or len(gpu.partitions) == 1 else None)


def division(gpu: Gpu) -> Division:
    """Every mode that its memory mode allows, in the order of the driver, each with all of its partitions."""
    present = present_mode(gpu)
    found = {}
    for mode in ComputeMode:
        count = _count(gpu, mode)
        if count and (mode is present or _possible(gpu, mode)):
            found[mode] = _sizes(gpu, count, present=mode is present)
    return found


def _possible(gpu: Gpu, mode: ComputeMode) -> bool:
    if gpu.state is GpuState.READY or gpu.compute_modes is not None:
        # without knowing its mode there is no way back from another one
        return (gpu.compute_mode is not None or gpu.state is not GpuState.READY) and offered(gpu, mode, gpu.memory_mode)
    model, memory = gpu.model, gpu.memory_mode
    return model is not None and (memory is None or pair_allowed(model.gfx_target, mode, memory))


def _count(gpu: Gpu, mode: ComputeMode) -> int:
    """Partitions in a mode: by the silicon, of a GPU of unknown kind those that are there."""
    if gpu.model is not None and (count := partition_count(mode, gpu.model.xcc_count)) is not None:
        return count
    last = max((partition.index for partition in gpu.partitions), default=-1)
    return last + 1 if mode is present_mode(gpu) else 0


def _sizes(gpu: Gpu, count: int, *, present: bool) -> tuple[int | None, ...]:
    total = _total_bytes(gpu)
    even = total // count if total is not None else None
    known = {partition.index: partition.memory_bytes for partition in gpu.partitions} if present else {}
    return tuple(known.get(index) or even for index in range(count))


def _total_bytes(gpu: Gpu) -> int | None:
    said = gpu.total_memory_bytes
    if said is not None:
        return said
    if gpu.partitions:
        return sum(partition.memory_bytes or 0 for partition in gpu.partitions) or None
    sold = gpu.model.memory_gib if gpu.model is not None else None
    return sold * GIB if sold is not None else None
