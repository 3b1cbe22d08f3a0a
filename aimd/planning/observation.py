"""What an observation says together with the one before it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from aimd.domain.gpu import BusyRule, Gpu, GpuState, Observed
from aimd.domain.switch import ModeChange


def driver_was_loaded(observed: Observed, before: Observed) -> bool:
    """Whether the driver was loaded again in between: it counts generations anew, and memory modes change only then.

    What cannot be read (a memory mode of a GPU in reset, the generation) says nothing.
    """
    generation = observed.topology_generation
    if generation is not None and generation < (before.topology_generation or 0):
        return True
    modes = {gpu.pci_address: gpu.memory_mode for gpu in before.gpus}
    return any(
        None not in (gpu.memory_mode, old := modes.get(gpu.pci_address)) and gpu.memory_mode is not old
        for gpu in observed.gpus
    )


def loaded_since(observed: Observed, changes: Iterable[ModeChange]) -> bool:
    """Whether the driver was loaded since a memory mode was requested, as far as generations tell.

    They are counted anew at each load: one that is lower than at the request is of another load. One that is not
    lower says nothing.
    """
    asked = [change.switches[change.current].generation for change in changes if change.current is not None]
    generation = observed.topology_generation
    return generation is not None and any(before is not None and generation < before for before in asked)


def carried_over(observed: Observed, before: Observed | None, shown: Iterable[Gpu]) -> Observed:
    """The observation with what is known besides it.

    GPUs that were shown and have vanished stay, without partitions. What was learned of the driver's rule is kept. A
    GPU in reset keeps its memory mode: the driver does not let it be read, and a reset does not change it.
    """
    modes = {gpu.pci_address: gpu.memory_mode for gpu in before.gpus} if before is not None else {}
    present = [
        replace(gpu, memory_mode=gpu.memory_mode or modes.get(gpu.pci_address)) if gpu.in_reset else gpu
        for gpu in observed.gpus
    ]
    gone = [
        replace(gpu, partitions=(), absence=GpuState.GONE) for gpu in shown if observed.gpu(gpu.pci_address) is None
    ]
    gpus = tuple(sorted((*present, *gone), key=lambda gpu: gpu.pci_address))
    unknown = observed.busy_rule is BusyRule.UNKNOWN and before is not None
    return replace(observed, gpus=gpus, busy_rule=before.busy_rule if unknown and before else observed.busy_rule)
