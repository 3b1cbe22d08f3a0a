"""Where a claim goes: best fit by free memory among the partitions that satisfy it, with the fewest mode switches.

GPUs with assignments are never switched. The same input gives the same place; what can be placed is never refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from aimd.domain.claim import Assignment, ClaimSpec
from aimd.domain.gpu import Gpu, Observed
from aimd.domain.modes import PartitionMode
from aimd.domain.plan import Refusal
from aimd.planning.rooms import Occupancy, Room, idle_gpus, imagined_rooms, other_modes, rooms
from aimd.planning.unplaced import refusal


@dataclass(frozen=True, slots=True)
class Placement:
    """The places, and the modes that have to be switched to first (none on GPUs with assignments)."""

    assignments: tuple[Assignment, ...]
    switches: tuple[tuple[str, PartitionMode], ...] = ()


@dataclass(frozen=True, slots=True)
class _Option:
    """One idle GPU in another mode, and how many more replicas it holds then."""

    gpu: str
    mode: PartitionMode
    rooms: tuple[Room, ...]
    gain: int
    against_wish: bool


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
    chosen = _switches(spec, observed, occupancy, here)
    if not chosen:
        return refusal(name, spec, observed, occupancy, here)
    switched = {option.gpu for option in chosen}
    after = [room for room in here if room.gpu not in switched] + [r for option in chosen for r in option.rooms]
    modes = tuple(sorted((option.gpu, option.mode) for option in chosen))
    return Placement(_fill(name, spec, after, numbers), modes)


def _fill(name: str, spec: ClaimSpec, available: Iterable[Room], numbers: tuple[int, ...]) -> tuple[Assignment, ...]:
    """Assign as many replicas as fit, each to the fullest room that takes it; a preferred place comes first."""
    left = list(available)
    assignments = []
    for replica in numbers:
        fitting = [room for room in left if room.holds(spec)]
        if not fitting:
            break
        best = min(fitting, key=lambda room: (not room.preferred(spec), room.free_units, room.gpu, room.index))
        left[left.index(best)] = best.less(spec)
        assignments.append(Assignment(name, replica, best.gpu, best.index, spec.memory_units, spec.guarantee))
    return tuple(assignments)


def _switches(spec: ClaimSpec, observed: Observed, occupancy: Occupancy, here: list[Room]) -> list[_Option]:
    """The fewest switches that make room for what does not fit now, with the preferred place if that costs no more.

    How much a GPU gains does not depend on the others, so the largest gains make the fewest switches. Empty: no way.
    """
    options = [option for gpu in idle_gpus(observed, occupancy) if (option := _best_switch(gpu, spec, here, occupancy))]
    options.sort(key=lambda option: (-option.gain, option.against_wish))  # stable: then the order of the node
    missing = spec.replicas - sum(room.holds(spec) for room in here)
    fewest = _largest(options, missing)
    for option in options:
        if any(room.preferred(spec) and room.holds(spec) for room in option.rooms):
            others = [other for other in options if other is not option]
            rest = _largest(others, missing - option.gain)
            if rest is not None and fewest is not None and len(rest) < len(fewest):
                return [option, *rest]
    return fewest or []


def _largest(options: list[_Option], missing: int) -> list[_Option] | None:
    """The first options whose gains make up for what is missing, None if all of them do not."""
    chosen = []
    for option in options:
        if missing <= 0:
            break
        chosen.append(option)
        missing -= option.gain
    return chosen if missing <= 0 else None


def _best_switch(gpu: Gpu, spec: ClaimSpec, here: list[Room], occupancy: Occupancy) -> _Option | None:
    """The mode in which this GPU holds the most replicas, the one with the smallest partitions among equals."""
    now = sum(room.holds(spec) for room in here if room.gpu == gpu.pci_address)
    best: _Option | None = None
    for mode in other_modes(gpu):
        imagined = imagined_rooms(gpu, mode, occupancy)
        gain = min(sum(room.holds(spec) for room in imagined), spec.replicas) - now
        if gain > 0 and (best is None or gain >= best.gain):
            wish = occupancy.wishes.get(gpu.pci_address, PartitionMode())
            best = _Option(gpu.pci_address, PartitionMode(mode), imagined, gain, wish.compute not in (None, mode))
    return best
