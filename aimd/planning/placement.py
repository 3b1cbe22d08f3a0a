"""Where a claim goes: best fit by free memory among the partitions that satisfy it, with the fewest mode switches.

Two resources are counted per partition: memory (reservations never exceed its real size less unattributed use) and
dispatch slots (the sum of guarantees). GPUs with assignments are never switched. The same input gives the same place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from aimd.domain.claim import Assignment, ClaimSpec
from aimd.domain.gpu import BusyRule, Gpu, GpuState, Observed
from aimd.domain.memory import free_units, gb_text, nominal_units
from aimd.domain.models import partition_count
from aimd.domain.modes import ComputeMode, PartitionMode
from aimd.domain.plan import Reason, Refusal
from aimd.planning.planner import offered


class Repartition(str, Enum):
    """Whether a claim may switch a GPU's compute mode: never, or when nobody is assigned to the GPU."""

    NEVER = "never"
    WHEN_IDLE = "when-idle"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What placement has to know beside the observation.

    Attributes:
        assignments: of all claims.
        closed: PCI addresses of GPUs that take nobody now: draining, or in the middle of a switch.
        unattributed: bytes per (PCI address, index) that are used by processes of no claim.
    """

    assignments: tuple[Assignment, ...] = ()
    closed: frozenset[str] = frozenset()
    unattributed: Mapping[tuple[str, int], int] = field(default_factory=dict)
    slots_per_partition: int = 16
    repartition: Repartition = Repartition.WHEN_IDLE


@dataclass(frozen=True, slots=True)
class Room:
    """What is left on one partition, in units of 1/1024 GB and dispatch slots."""

    gpu: str
    index: int
    mode: PartitionMode
    units: int
    free_units: int
    free_slots: int

    def holds(self, spec: ClaimSpec) -> int:
        """How many replicas of the claim still fit here."""
        if not _suits(self, spec):
            return 0
        by_memory = self.free_units // spec.memory_units
        return min(by_memory, self.free_slots // spec.guarantee) if spec.guarantee else by_memory

    def less(self, spec: ClaimSpec) -> Room:
        return replace(
            self, free_units=self.free_units - spec.memory_units, free_slots=self.free_slots - spec.guarantee
        )


@dataclass(frozen=True, slots=True)
class Placement:
    """The places, and the modes that have to be switched to first (none on GPUs with assignments)."""

    assignments: tuple[Assignment, ...]
    switches: tuple[tuple[str, PartitionMode], ...] = ()


def rooms(observed: Observed, occupancy: Occupancy) -> list[Room]:
    """The room on each partition whose size is known, of the GPUs that take somebody, in the order of the node."""
    found = []
    for gpu in observed.gpus:
        if gpu.state is not GpuState.READY or gpu.pci_address in occupancy.closed:
            continue
        for partition in gpu.partitions:
            if partition.memory_bytes is None:
                continue
            place = (gpu.pci_address, partition.index)
            here = [a for a in occupancy.assignments if a.place == place]
            units = sum(a.memory_units for a in here)
            free = free_units(partition.memory_bytes, units, occupancy.unattributed.get(place, 0))
            slots = occupancy.slots_per_partition - sum(a.guarantee for a in here)
            found.append(Room(*place, gpu.mode, nominal_units(partition.memory_bytes), free, max(0, slots)))
    return found


def place(
    name: str, spec: ClaimSpec, observed: Observed, occupancy: Occupancy, replicas: tuple[int, ...] | None = None
) -> Placement | Refusal:
    """Places for all replicas (or for these numbers of them), or why there are none; nothing is refused that fits."""
    numbers = tuple(range(spec.replicas)) if replicas is None else replicas
    spec = replace(spec, replicas=len(numbers))
    here = rooms(observed, occupancy)
    assignments = _fill(name, spec, here, numbers)
    if len(assignments) == spec.replicas:
        return Placement(assignments)
    idle = _idle_gpus(observed, occupancy) if occupancy.repartition is Repartition.WHEN_IDLE else []
    options = [option for gpu in idle if (option := _best_switch(gpu, spec, here, occupancy)) is not None]
    options.sort(key=lambda option: -option.gain)  # stable: the order of the node decides among equals
    missing = spec.replicas - sum(room.holds(spec) for room in here)
    chosen = []
    for option in options:
        if missing > 0 and option.gain > 0:
            chosen.append(option)
            missing -= option.gain
    if missing > 0:
        return _refusal(name, spec, observed, occupancy, here)
    switched = {option.gpu for option in chosen}
    after = [room for room in here if room.gpu not in switched] + [r for option in chosen for r in option.rooms]
    return Placement(_fill(name, spec, after, numbers), tuple((option.gpu, option.mode) for option in chosen))


def _suits(room: Room, spec: ClaimSpec) -> bool:
    if spec.mode.compute not in (None, room.mode.compute) or spec.mode.memory not in (None, room.mode.memory):
        return False
    wanted = spec.partition
    return wanted is None or (wanted.index == room.index and wanted.gpu in (None, room.gpu))


def _fill(name: str, spec: ClaimSpec, available: Iterable[Room], numbers: tuple[int, ...]) -> tuple[Assignment, ...]:
    """Assign as many replicas as fit, each to the fullest room that takes it; a preferred place comes first."""
    left = list(available)
    assignments = []
    for replica in numbers:
        fitting = [room for room in left if room.holds(spec)]
        if not fitting:
            break
        best = min(fitting, key=lambda room: (not _preferred(room, spec), room.free_units, room.gpu, room.index))
        left[left.index(best)] = best.less(spec)
        assignments.append(Assignment(name, replica, best.gpu, best.index, spec.memory_units, spec.guarantee))
    return tuple(assignments)


def _preferred(room: Room, spec: ClaimSpec) -> bool:
    wish = spec.preferred
    return wish is not None and wish.index == room.index and wish.gpu in (None, room.gpu)


@dataclass(frozen=True, slots=True)
class _Option:
    """One idle GPU in another mode, and how many more replicas it holds then."""

    gpu: str
    mode: PartitionMode
    rooms: tuple[Room, ...]
    gain: int


def _idle_gpus(observed: Observed, occupancy: Occupancy) -> list[Gpu]:
    """GPUs that nobody is assigned to and no process holds: a switch of another would fail with EBUSY."""
    used = {assignment.gpu for assignment in occupancy.assignments} | occupancy.closed
    used |= {gpu for holder in observed.holders for gpu in holder.gpus}
    if observed.busy_rule is BusyRule.NODE_WIDE and observed.holders:
        return []
    return [gpu for gpu in observed.gpus if gpu.pci_address not in used and gpu.state is GpuState.READY]


def _best_switch(gpu: Gpu, spec: ClaimSpec, here: list[Room], occupancy: Occupancy) -> _Option | None:
    """The mode in which this GPU holds the most replicas, the one with the smallest partitions among equals."""
    now = sum(room.holds(spec) for room in here if room.gpu == gpu.pci_address)
    best: _Option | None = None
    for mode in ComputeMode:
        if mode is gpu.compute_mode or not offered(gpu, mode, gpu.memory_mode):
            continue
        imagined = _imagine(gpu, mode, occupancy)
        option = _Option(
            gpu.pci_address,
            PartitionMode(mode),
            imagined,
            min(sum(room.holds(spec) for room in imagined), spec.replicas) - now,
        )
        if best is None or option.gain >= best.gain:
            best = option
    return best


def _imagine(gpu: Gpu, mode: ComputeMode, occupancy: Occupancy) -> tuple[Room, ...]:
    """The partitions that the GPU will have in a mode: even shares of its memory."""
    count = partition_count(mode, gpu.model.xcc_count) if gpu.model is not None else None
    sizes = [partition.memory_bytes for partition in gpu.partitions]
    total = gpu.memory_bytes or sum(size for size in sizes if size is not None)
    if count is None or not total:
        return ()
    units = nominal_units(total // count)
    after = PartitionMode(mode, gpu.memory_mode)
    slots = occupancy.slots_per_partition
    return tuple(Room(gpu.pci_address, index, after, units, units, slots) for index in range(count))


def _refusal(name: str, spec: ClaimSpec, observed: Observed, occupancy: Occupancy, here: list[Room]) -> Refusal:
    """Why the claim fits nowhere: too large for any partition, or no room for it now."""
    asked = f"{gb_text(spec.memory_units)} GB"
    if spec.guarantee > occupancy.slots_per_partition:
        return Refusal(
            None,
            Reason.GUARANTEE_TOO_LARGE,
            f"claim {name} asks for {spec.guarantee} guaranteed slots, a partition has {occupancy.slots_per_partition}",
            "ask for fewer, or for more replicas",
        )
    whole = here + [
        room
        for gpu in _idle_gpus(observed, occupancy)
        for mode in ComputeMode
        if offered(gpu, mode, gpu.memory_mode)
        for room in _imagine(gpu, mode, occupancy)
    ]
    suitable = [room for room in whole if _suits(room, spec)]
    if suitable and max(room.units for room in suitable) < spec.memory_units:
        largest = max(suitable, key=lambda room: room.units)
        return Refusal(
            None,
            Reason.MEMORY_TOO_LARGE,
            f"claim {name} asks for {asked}, the largest partition it may use has {gb_text(largest.units)} GB",
            "ask for less memory, or wish a mode with larger partitions",
        )
    if not any(_suits(room, spec) for room in here) and spec.partition is not None:
        return Refusal(
            spec.partition.gpu,
            Reason.UNKNOWN_PARTITION,
            f"claim {name} wants partition {spec.partition}, which exists on no GPU that takes it now",
            "aimctl get partitions lists them",
        )
    free = [room for room in here if _suits(room, spec)] or here
    replicas = f"{spec.replicas} x " if spec.replicas > 1 else ""
    message = (
        f"claim {name} asks for {replicas}{asked} and {spec.guarantee} guaranteed slots, and nowhere is room for it"
    )
    if not free:
        return Refusal(None, Reason.NO_ROOM, message, "no partition takes claims now; aimctl get gpus tells why")
    most = max(free, key=lambda room: room.free_units)
    where = (
        f"{most.gpu}/{most.index} has the most free memory, {gb_text(most.free_units)} GB, and {most.free_slots} slots"
    )
    switching = "" if occupancy.repartition is Repartition.WHEN_IDLE else "; repartition = never forbids switching"
    return Refusal(None, Reason.NO_ROOM, message, where + switching)
