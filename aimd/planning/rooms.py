"""What is free where: the room on each partition, and on those that an idle GPU would have in another mode.

Two resources are counted per partition: memory (reservations never exceed its real size less unattributed use) and
dispatch slots (the sum of guarantees).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from aimd.domain.claim import Assignment, ClaimSpec
from aimd.domain.gpu import BusyRule, Gpu, GpuState, Observed, Partition
from aimd.domain.left_behind import LeftBehind
from aimd.domain.memory import free_units, nominal_units
from aimd.domain.modes import ComputeMode, PartitionMode
from aimd.domain.silicon import partition_count
from aimd.planning.planner import offered


class Repartition(str, Enum):
    """Whether a claim may switch a GPU's compute mode: never, or when nobody is assigned to the GPU."""

    NEVER = "never"
    WHEN_IDLE = "when-idle"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What placement has to know beside the observation; GPUs are named by PCI address.

    Attributes:
        assignments: of all claims.
        left_behind: of processes without their claim.
        draining: GPUs that take nobody until an operator ends it.
        switching: GPUs that the mode change under way, `change`, has not done with.
        unswitchable: GPUs that are left in their mode: a switch of theirs has failed a moment ago.
        unattributed: bytes per (GPU, index) that are used by processes of no claim.
        wishes: modes that operators wish: among equal GPUs one is switched whose wish this does not set aside.
    """

    assignments: tuple[Assignment, ...] = ()
    left_behind: tuple[LeftBehind, ...] = ()
    draining: frozenset[str] = frozenset()
    switching: frozenset[str] = frozenset()
    change: str | None = None
    unswitchable: frozenset[str] = frozenset()
    unattributed: Mapping[tuple[str, int], int] = field(default_factory=dict)
    wishes: Mapping[str, PartitionMode] = field(default_factory=dict)
    slots_per_partition: int = 16
    repartition: Repartition = Repartition.WHEN_IDLE

    @property
    def closed(self) -> frozenset[str]:
        """GPUs that take nobody now."""
        return self.draining | self.switching

    @property
    def reserved(self) -> tuple[Assignment, ...]:
        """What counts as taken: for claims, and for processes that outlive theirs."""
        return (*self.assignments, *(left.kept for left in self.left_behind))


@dataclass(frozen=True, slots=True)
class Room:
    """What is left on one partition, in units of 1/1024 GB and dispatch slots; `units` is its whole size."""

    gpu: str
    index: int
    mode: PartitionMode
    units: int
    free_units: int
    free_slots: int

    def suits(self, spec: ClaimSpec) -> bool:
        """Whether the claim may be here, room or not: its modes and the place it is pinned to."""
        wanted = spec.partition
        pinned_elsewhere = wanted is not None and (wanted.index != self.index or wanted.gpu not in (None, self.gpu))
        return self.in_mode(spec) and not pinned_elsewhere

    def in_mode(self, spec: ClaimSpec) -> bool:
        wish = spec.mode
        return wish.compute in (None, self.mode.compute) and wish.memory in (None, self.mode.memory)

    def preferred(self, spec: ClaimSpec) -> bool:
        wish = spec.preferred
        return wish is not None and wish.index == self.index and wish.gpu in (None, self.gpu)

    def holds(self, spec: ClaimSpec) -> int:
        """How many replicas of the claim still fit here."""
        if not self.suits(spec):
            return 0
        by_memory = self.free_units // spec.memory_units
        return min(by_memory, self.free_slots // spec.guarantee) if spec.guarantee else by_memory

    def less(self, spec: ClaimSpec) -> Room:
        return replace(
            self, free_units=self.free_units - spec.memory_units, free_slots=self.free_slots - spec.guarantee
        )


def rooms(observed: Observed, occupancy: Occupancy) -> list[Room]:
    """The room on each partition whose size is known, of the GPUs that take somebody, in the order of the node."""
    found = []
    reserved = occupancy.reserved
    for gpu in observed.gpus:
        if gpu.state is not GpuState.READY or gpu.pci_address in occupancy.closed:
            continue
        for partition in gpu.partitions:
            if partition.memory_bytes is None:
                continue
            place = (gpu.pci_address, partition.index)
            here = [a for a in reserved if a.place == place]
            units = sum(a.memory_units for a in here)
            free = free_units(partition.memory_bytes, units, occupancy.unattributed.get(place, 0))
            slots = occupancy.slots_per_partition - sum(a.guarantee for a in here)
            found.append(Room(*place, gpu.mode, nominal_units(partition.memory_bytes), free, max(0, slots)))
    return found


def idle_gpus(observed: Observed, occupancy: Occupancy) -> list[Gpu]:
    """GPUs whose mode a claim may change: nobody is assigned and no process holds them (EBUSY), and policy allows."""
    if occupancy.repartition is not Repartition.WHEN_IDLE:
        return []
    if observed.busy_rule is BusyRule.NODE_WIDE and observed.holders:
        return []
    used = {assignment.gpu for assignment in occupancy.reserved} | occupancy.closed | occupancy.unswitchable
    used |= {gpu for holder in observed.holders for gpu in holder.gpus}
    return [gpu for gpu in observed.gpus if gpu.pci_address not in used and gpu.state is GpuState.READY]


def other_modes(gpu: Gpu) -> list[ComputeMode]:
    """Compute modes that the GPU offers beside its present one; none if that is unknown: there would be no way back."""
    if gpu.compute_mode is None:
        return []
    return [mode for mode in ComputeMode if mode is not gpu.compute_mode and offered(gpu, mode, gpu.memory_mode)]


def imagined(gpu: Gpu, mode: ComputeMode) -> Gpu | None:
    """The GPU as it will be in a mode: with even shares of its memory; None for an unknown model."""
    count = partition_count(mode, gpu.model.xcc_count) if gpu.model is not None else None
    sizes = [partition.memory_bytes for partition in gpu.partitions]
    total = gpu.memory_bytes or sum(size for size in sizes if size is not None)
    if gpu.model is None or count is None or not total:
        return None
    xccs = gpu.model.xcc_count // count
    partitions = tuple(Partition(index, None, xccs, total // count) for index in range(count))
    return replace(gpu, partitions=partitions, reported_compute=mode)


def imagined_rooms(gpu: Gpu, mode: ComputeMode, occupancy: Occupancy) -> tuple[Room, ...]:
    """The partitions that the GPU will have in a mode, empty; none of an unknown model."""
    after = imagined(gpu, mode)
    if after is None:
        return ()
    alone = Occupancy(slots_per_partition=occupancy.slots_per_partition)
    return tuple(rooms(Observed((after,)), alone))
