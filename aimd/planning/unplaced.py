"""Why a claim fits nowhere: the first obstacle that no release of another claim would remove, else the lack of room."""

from __future__ import annotations

from aimd.domain.claim import ClaimSpec
from aimd.domain.gpu import Gpu, GpuState, Observed
from aimd.domain.memory import gb_text
from aimd.domain.modes import ComputeMode
from aimd.domain.plan import Reason, Refusal
from aimd.planning.rooms import Occupancy, Repartition, Room, imagined_rooms, other_modes, rooms


def refusal(name: str, spec: ClaimSpec, observed: Observed, occupancy: Occupancy, here: list[Room]) -> Refusal:
    """The reason, with what was asked for and what there is; `here` is the room that is free now."""
    if spec.guarantee > occupancy.slots_per_partition:
        return Refusal(
            None,
            Reason.GUARANTEE_TOO_LARGE,
            f"claim {name} asks for {spec.guarantee} guaranteed slots, a partition has {occupancy.slots_per_partition}",
            "ask for fewer per replica, and for more replicas",
        )
    possible = _possible(observed, occupancy)
    if not possible:
        words = f"claim {name} has no GPU to go to: the node shows no partition whose size is known"
        return Refusal(None, Reason.NO_ROOM, words, "aimctl get gpus tells what the GPUs lack")
    in_mode = [room for room in possible if room.in_mode(spec)]
    if not in_mode:
        return _no_mode(name, spec, observed, occupancy)
    suitable = [room for room in in_mode if room.suits(spec)]
    if not suitable:
        return _no_partition(name, spec, occupancy, in_mode)
    largest = max(suitable, key=lambda room: room.units)
    if largest.units < spec.memory_units:
        return Refusal(
            spec.partition.gpu if spec.partition is not None else None,
            Reason.MEMORY_TOO_LARGE,
            f"claim {name} asks for {gb_text(spec.memory_units)} GB, the largest partition that it may use has "
            f"{gb_text(largest.units)} GB",
            f"ask for less memory per replica, or for a place with more{_besides(occupancy)}",
        )
    return _closed(name, spec, occupancy, suitable) or _no_room(name, spec, occupancy, here)


def _possible(observed: Observed, occupancy: Occupancy) -> list[Room]:
    """Every partition that is there or could be, as if nobody was: in use, draining or in the middle of a switch."""
    empty = Occupancy(slots_per_partition=occupancy.slots_per_partition)
    found = rooms(observed, empty)
    if occupancy.repartition is Repartition.WHEN_IDLE:
        found += [
            room for gpu in _ready(observed) for mode in other_modes(gpu) for room in imagined_rooms(gpu, mode, empty)
        ]
    return found


def _ready(observed: Observed) -> list[Gpu]:
    return [gpu for gpu in observed.gpus if gpu.state is GpuState.READY]


def _no_mode(name: str, spec: ClaimSpec, observed: Observed, occupancy: Occupancy) -> Refusal:
    modes = sorted({str(gpu.mode) for gpu in _ready(observed)})
    offers = {mode for gpu in _ready(observed) for mode in (gpu.compute_mode, *other_modes(gpu))}
    hint = f"compute modes offered here: {', '.join(mode for mode in ComputeMode if mode in offers)}"
    if occupancy.repartition is Repartition.NEVER:
        hint = "repartition = never: claims do not switch GPUs; aimctl set-mode does"
    elif spec.mode.memory is not None:
        hint += "; claims do not change memory modes, aimctl set-mode does"
    words = (
        f"claim {name} wants mode {spec.mode}, which no GPU is in or can be switched to; they are in {', '.join(modes)}"
    )
    return Refusal(None, Reason.MODE_NOT_AVAILABLE, words, hint)


def _no_partition(name: str, spec: ClaimSpec, occupancy: Occupancy, in_mode: list[Room]) -> Refusal:
    wanted = spec.partition
    assert wanted is not None
    there = [room.index for room in in_mode if wanted.gpu in (None, room.gpu)]
    has = f"there are 0 to {max(there)}" if there else "this GPU has none in the wished mode"
    words = f"claim {name} wants partition {wanted}, which is not there and would not be in any mode it may use: {has}"
    return Refusal(
        wanted.gpu, Reason.UNKNOWN_PARTITION, words, f"aimctl get partitions lists them{_besides(occupancy)}"
    )


def _closed(name: str, spec: ClaimSpec, occupancy: Occupancy, suitable: list[Room]) -> Refusal | None:
    """When draining is all that is in the way."""
    gpus = sorted({room.gpu for room in suitable if room.units >= spec.memory_units})
    if not occupancy.draining.issuperset(gpus):
        return None
    words = f"claim {name} can go to {', '.join(gpus)} only, and what is draining takes no new claims"
    return Refusal(gpus[0], Reason.GPU_DRAINING, words, "aimctl undrain opens a GPU again")


def _no_room(name: str, spec: ClaimSpec, occupancy: Occupancy, here: list[Room]) -> Refusal:
    asked = f"{gb_text(spec.memory_units)} GB"
    if spec.replicas > 1:
        asked = f"{spec.replicas} x {asked}"
    if spec.guarantee:
        asked += f" and {spec.guarantee} guaranteed slots"
    free = [room for room in here if room.suits(spec)]
    if not free:
        words = f"claim {name} asks for {asked}, and no partition that it may use is there now"
        return Refusal(
            None, Reason.NO_ROOM, words, f"GPUs with claims or processes on them are not switched{_besides(occupancy)}"
        )
    most = max(free, key=lambda room: (room.free_units, room.free_slots))
    words = f"claim {name} asks for {asked}, the most that is free is {gb_text(most.free_units)} GB"
    if spec.guarantee:
        words += f" and {most.free_slots} slots"
    words += f" on partition {most.gpu}/{most.index}"
    if spec.replicas > 1:
        words += f"; there is room for {sum(room.holds(spec) for room in free)} of {spec.replicas}"
    hint = "ask for less, or release a claim; GPUs with claims or processes on them are not switched"
    return Refusal(None, Reason.NO_ROOM, words, hint + _besides(occupancy))


def _besides(occupancy: Occupancy) -> str:
    """What else stands in the way at present."""
    told = "" if occupancy.repartition is Repartition.WHEN_IDLE else "; repartition = never forbids switching"
    for word, gpus in (("draining", occupancy.draining), ("being switched", occupancy.switching)):
        if gpus:
            told += f"; {word}: {', '.join(sorted(gpus))}"
    return told
