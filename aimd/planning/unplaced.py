"""Why a claim fits nowhere: the first obstacle that no release of another claim would remove, else the lack of room."""

from __future__ import annotations

from aimd.domain.claim import ClaimSpec
from aimd.domain.gpu import Gpu, GpuState, Observed
from aimd.domain.memory import gb_text
from aimd.domain.modes import ComputeMode
from aimd.domain.plan import Reason, Refusal
from aimd.planning.obstacles import in_the_way, kept_there, listed, used_there
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
    gpus = sorted({room.gpu for room in suitable if room.units >= spec.memory_units})
    if occupancy.closed.issuperset(gpus):
        return _closed(name, gpus, observed, occupancy)
    return _no_room(name, spec, observed, occupancy, gpus, [room for room in here if room.suits(spec)])


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


def _closed(name: str, gpus: list[str], observed: Observed, occupancy: Occupancy) -> Refusal:
    """When draining and the mode change under way are all that is in the way; the latter ends by itself."""
    first = min(gpus, key=lambda gpu: gpu not in occupancy.switching)
    obstacle = in_the_way(first, observed, occupancy)
    assert obstacle is not None
    if obstacle.reason is Reason.SWITCH_IN_PROGRESS:
        words = f"claim {name} can go to {', '.join(gpus)} only, and {first} {obstacle.words}"
    else:
        words = f"claim {name} can go to {', '.join(gpus)} only, and what is draining takes no new claims"
    return Refusal(first, obstacle.reason, words, obstacle.hint)


def _no_room(
    name: str, spec: ClaimSpec, observed: Observed, occupancy: Occupancy, gpus: list[str], free: list[Room]
) -> Refusal:
    """When it could be on one of `gpus`; `free` are the partitions there are for it now, too small or none."""
    asked = f"{gb_text(spec.memory_units)} GB"
    if spec.replicas > 1:
        asked = f"{spec.replicas} x {asked}"
    if spec.guarantee:
        asked += f" and {spec.guarantee} guaranteed slots"
    if not free:
        return _not_switched(name, asked, observed, occupancy, gpus)
    most = max(free, key=lambda room: (room.free_units, room.free_slots))
    words = f"claim {name} asks for {asked}, the most that is free is {gb_text(most.free_units)} GB"
    if spec.guarantee:
        words += f" and {most.free_slots} slots"
    words += f" on partition {most.gpu}/{most.index}"
    if spec.replicas > 1:
        words += f"; there is room for {sum(room.holds(spec) for room in free)} of {spec.replicas}"
    hint = "ask for less, or release a claim; GPUs with claims or processes on them are not switched"
    beside = used_there((most.gpu, most.index), occupancy) + kept_there({room.gpu for room in free}, occupancy)
    return Refusal(None, Reason.NO_ROOM, words, hint + beside + _besides(occupancy))


def _not_switched(name: str, asked: str, observed: Observed, occupancy: Occupancy, gpus: list[str]) -> Refusal:
    """When the partitions are not there now, and GPUs cannot be switched to have them."""
    obstacles = [obstacle for gpu in gpus if (obstacle := in_the_way(gpu, observed, occupancy)) is not None]
    if len(gpus) == 1 and obstacles:
        (only,) = obstacles
        words = (
            f"claim {name} asks for {asked} on GPU {only.gpu}, which would have to be switched for it and {only.words}"
        )
        return Refusal(only.gpu, only.reason, words, only.hint + _besides(occupancy))
    hint = "GPUs with claims or processes on them are not switched"
    told = listed((f"{each.gpu} {each.words}" for each in obstacles), "; ")
    words = f"claim {name} asks for {asked}, and no partition that it may use is there now"
    return Refusal(None, Reason.NO_ROOM, words, hint + (f": {told}" if told else "") + _besides(occupancy))


def _besides(occupancy: Occupancy) -> str:
    """What else stands in the way at present."""
    told = "" if occupancy.repartition is Repartition.WHEN_IDLE else "; repartition = never forbids switching"
    for word, gpus in (("draining", occupancy.draining), ("being switched", occupancy.switching)):
        if gpus:
            told += f"; {word}: {', '.join(sorted(gpus))}"
    return told
