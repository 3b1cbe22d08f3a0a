"""What people see: the snapshot of the node, and where it is not as it should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aimd.domain.gpu import Gpu, GpuState
from aimd.domain.ledger import GpuRecord
from aimd.domain.modes import MemoryMode, PartitionMode
from aimd.domain.node import GpuStatus
from aimd.domain.plan import StepKind
from aimd.domain.switch import ModeChange, SwitchState
from aimd.planning.verify import missing_partitions

ABSENT = {
    GpuState.LOST: "the driver has the GPU, but KFD shows no partition of it",
    GpuState.HIDDEN: "the device cgroup hides the GPU's partitions from aimd",
    GpuState.GONE: "the GPU has left the bus, or the driver does not have it",
}


def drift(gpu: Gpu, wish: PartitionMode | None) -> tuple[str, ...]:
    """A sentence per difference between wish, mode file and partitions; nothing when all agree or is unknown."""
    found = []
    if gpu.state in ABSENT:
        found.append(ABSENT[gpu.state])
    if not gpu.consistent:
        found.append(f"the mode file says {gpu.reported_compute}, the partitions are those of {gpu.compute_mode}")
    missing = missing_partitions(gpu)
    if missing > 0:
        found.append(f"{missing} of {missing + len(gpu.partitions)} partitions are missing")
    if wish is not None and not satisfied(gpu, wish):
        found.append(f"wished {wish.compute or gpu.compute_mode}/{wish.memory or gpu.memory_mode}, is {gpu.mode}")
    return tuple(found)


def satisfied(gpu: Gpu, wish: PartitionMode) -> bool:
    """Whether the GPU is as wished; None in a wish is satisfied by anything."""
    return wish.compute in (None, gpu.compute_mode) and wish.memory in (None, gpu.memory_mode)


def pending_memory(changes: Iterable[ModeChange]) -> dict[str, MemoryMode]:
    """Memory modes that are requested and not yet seen in effect, by PCI address."""
    pending: dict[str, MemoryMode] = {}
    for change in changes:
        for switch in change.switches:
            asked = switch.step.kind is StepKind.MEMORY and not switch.final and switch.state is not SwitchState.PLANNED
            if asked and switch.step.after.memory is not None:
                pending.update(dict.fromkeys(switch.step.gpus, switch.step.after.memory))
    return pending


def wished_by_layout(layout: Mapping[str, PartitionMode], gpus: Iterable[Gpu]) -> dict[str, PartitionMode]:
    """Wishes by PCI address of a layout whose keys are `default`, `gpu<n>` or addresses; the most exact key wins.

    A GPU that is named twice with different modes has no wish.
    """
    wishes, present = {}, tuple(gpus)
    contradicted = {address for _, address in contradictions(layout, present)}
    for index, gpu in enumerate(present):
        if gpu.pci_address in contradicted:
            continue
        wish = layout.get(gpu.pci_address) or layout.get(f"gpu{index}") or layout.get("default")
        if wish is not None:
            wishes[gpu.pci_address] = wish
    return wishes


def contradictions(layout: Mapping[str, PartitionMode], gpus: Iterable[Gpu]) -> list[tuple[str, str]]:
    """GPUs that a layout names by number and by address with different modes, by both names."""
    names = [(f"gpu{index}", gpu.pci_address) for index, gpu in enumerate(gpus)]
    return [(n, a) for n, a in names if n in layout and a in layout and layout[n] != layout[a]]


def gpu_statuses(
    gpus: Iterable[Gpu],
    records: Mapping[str, GpuRecord],
    pending: Mapping[str, MemoryMode],
    active: ModeChange | None = None,
    taken: frozenset[str] = frozenset(),
) -> tuple[GpuStatus, ...]:
    """The GPUs as shown, in PCI order. On a taken GPU a claim may have set the wish aside: that is no drift."""
    busy = {address for switch in active.switches for address in switch.step.gpus} if active is not None else set()
    statuses = []
    for index, gpu in enumerate(gpus):
        record = records.get(gpu.pci_address, GpuRecord(gpu.pci_address))
        statuses.append(
            GpuStatus(
                index=index,
                gpu=gpu,
                mode_epoch=record.mode_epoch,
                wish=record.wish,
                drift=drift(gpu, record.wish if gpu.pci_address not in taken else None),
                pending_memory=pending.get(gpu.pci_address),
                change=active.name if active is not None and gpu.pci_address in busy else None,
                draining=record.draining,
            )
        )
    return tuple(statuses)
