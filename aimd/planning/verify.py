"""Whether a switch had its effect, judged by the partitions and not by the mode file alone."""

from __future__ import annotations

from aimd.domain.gpu import Gpu, Observed
from aimd.domain.modes import ComputeMode
from aimd.domain.plan import Step, StepKind
from aimd.domain.silicon import partition_count
from aimd.planning.switching import SwitchEvent

SIZE_TOLERANCE = 0.01  # ranges differ by 16 MiB of at least 16 GiB; a wrong mode differs by a factor


def verify(step: Step, observed: Observed) -> SwitchEvent:
    """VERIFIED, UNCHANGED (still the old mode, file and partitions), MISMATCH or BROKEN (the GPU has gone).

    Of a memory step UNSTABLE instead of BROKEN: a driver load brings the GPUs of a hive one after the other.
    """
    return _verify_memory(step, observed) if step.kind is StepKind.MEMORY else _verify_compute(step, observed)


def in_mode(gpu: Gpu, mode: ComputeMode | None) -> bool:
    """Whether the partitions are those of the mode: XCCs, indexes, number and sizes of them.

    Fewer partitions than the mode has are accepted if those present are right: a node that ran out of DRM minors
    lacks the last ones for good. Of a model that aimd does not know, the mode file is all there is.
    """
    if mode is None or not gpu.partitions:
        return False
    if gpu.model is None:
        return gpu.reported_compute is mode
    count = partition_count(mode, gpu.model.xcc_count)
    if count is None or len(gpu.partitions) > count:
        return False
    each = gpu.model.xcc_count // count
    right = all(partition.xcc_count in (None, each) and 0 <= partition.index < count for partition in gpu.partitions)
    return right and gpu.compute_mode is mode and _sizes_plausible(gpu, count)


def missing_partitions(gpu: Gpu) -> int:
    """How many partitions the GPU lacks in its present mode."""
    if gpu.model is None or gpu.compute_mode is None or not gpu.partitions:
        return 0
    return (partition_count(gpu.compute_mode, gpu.model.xcc_count) or 0) - len(gpu.partitions)


def absent_members(step: Step, observed: Observed) -> list[str]:
    """The GPUs of the step that a driver load has yet to bring: without partitions, or with an unknown memory mode."""
    present = {gpu.pci_address for gpu in observed.gpus if gpu.partitions and gpu.memory_mode is not None}
    return [address for address in step.gpus if address not in present]


def _sizes_plausible(gpu: Gpu, count: int) -> bool:
    sizes = [partition.memory_bytes for partition in gpu.partitions if partition.memory_bytes is not None]
    if not sizes:
        return True
    if max(sizes) - min(sizes) > SIZE_TOLERANCE * max(sizes):
        return False
    return gpu.memory_bytes is None or max(sizes) * count <= gpu.memory_bytes * (1 + SIZE_TOLERANCE)


def _verify_compute(step: Step, observed: Observed) -> SwitchEvent:
    gpu = observed.gpu(step.gpu)
    if gpu is None or not gpu.partitions:
        return SwitchEvent.BROKEN
    if in_mode(gpu, step.after.compute) and gpu.consistent:
        return SwitchEvent.VERIFIED
    if in_mode(gpu, step.before.compute) and gpu.consistent:
        return SwitchEvent.UNCHANGED
    return SwitchEvent.MISMATCH


def _verify_memory(step: Step, observed: Observed) -> SwitchEvent:
    if absent_members(step, observed):
        return SwitchEvent.UNSTABLE
    modes = [gpu.memory_mode for address in step.gpus if (gpu := observed.gpu(address)) is not None]
    if all(mode is step.after.memory for mode in modes):
        return SwitchEvent.VERIFIED
    return SwitchEvent.UNCHANGED if all(mode is step.before.memory for mode in modes) else SwitchEvent.MISMATCH
