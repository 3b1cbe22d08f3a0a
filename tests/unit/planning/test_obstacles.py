"""Refusals that name what stands in the way: the GPU, and the processes, claims or mode change on it."""

from __future__ import annotations

from dataclasses import replace

from aimd.domain.claim import Assignment
from aimd.domain.gpu import BusyRule, Partition
from aimd.domain.left_behind import LeftBehind
from aimd.domain.plan import Reason, Refusal
from aimd.planning.obstacles import COMMAND_LENGTH, MOST_NAMED
from aimd.planning.placement import place
from aimd.planning.rooms import Occupancy
from tests.fakes.claims import spec
from tests.unit.planning.paper import ADDRESSES, GIB, gpu, holder, observed

HERE = ADDRESSES[0]
PINNED = spec(5, "CPX", at=(HERE, 3))
NODE = observed(gpu(0, "SPX/NPS1"), gpu(1, "SPX/NPS1"))


def refused(node, occupancy: Occupancy, wanted=PINNED) -> Refusal:
    result = place("m", wanted, node, occupancy)
    assert isinstance(result, Refusal)
    return result


def taken(claim: str, number: int = 0, gb: int = 20, slots: int = 0) -> Assignment:
    return Assignment(claim, 0, ADDRESSES[number], 0, gb * 1024, slots)


def left(gb: int = 12, slots: int = 4, *, index: int = 0) -> LeftBehind:
    kept = Assignment("old", 2, HERE, index, gb * 1024, slots)
    return LeftBehind(kept, ((7, "python serve.py"), (8, None)))


def test_the_processes_that_hold_the_gpu() -> None:
    node = replace(NODE, holders=(holder(7, 0, 1), holder(8, 0, command=None), holder(9, 1)))
    refusal = refused(node, Occupancy())
    assert (refusal.gpu, refusal.reason) == (HERE, Reason.GPU_BUSY)
    assert refusal.message == (
        f"claim m asks for 5 GB on GPU {HERE}, which would have to be switched for it and is held by "
        "pid 7 (python train.py), pid 8 (?)"
    )
    assert refusal.hint == "end these processes; aimd never signals any"


def test_with_the_node_wide_rule_any_process_is_named() -> None:
    node = replace(NODE, holders=(holder(9, 1),), busy_rule=BusyRule.NODE_WIDE)
    refusal = refused(node, Occupancy())
    assert (refusal.gpu, refusal.reason) == (HERE, Reason.GPU_BUSY)
    assert refusal.message.endswith(
        "cannot be switched while a process uses any GPU of the node (this driver's rule): pid 9 (python train.py)"
    )


def test_the_claims_on_the_gpu_and_who_holds_it() -> None:
    occupancy = Occupancy((taken("a"), taken("b"), taken("a"), taken("elsewhere", 1)))
    refusal = refused(NODE, occupancy)
    assert (refusal.gpu, refusal.reason) == (HERE, Reason.GPU_IN_USE)
    assert refusal.message.endswith(f"{HERE}, which would have to be switched for it and is in use by claims: a, b")
    held = refused(replace(NODE, holders=(holder(9, 0),)), occupancy)
    assert held.message.endswith("is in use by claims: a, b; it is held by pid 9 (python train.py)")


def test_the_mode_change_on_the_gpu() -> None:
    refusal = refused(NODE, Occupancy(switching=frozenset({HERE}), change="c1"))
    assert (refusal.gpu, refusal.reason) == (HERE, Reason.SWITCH_IN_PROGRESS)
    assert refusal.message == f"claim m can go to {HERE} only, and {HERE} is being switched by mode change c1"
    assert refusal.hint.startswith("aimctl describe plan c1 ")


def test_the_mode_change_counts_more_than_draining() -> None:
    """It ends by itself."""
    occupancy = Occupancy(draining=frozenset({HERE}), switching=frozenset({ADDRESSES[1]}), change="c1")
    assert refused(NODE, occupancy, spec(5)).reason is Reason.SWITCH_IN_PROGRESS
    assert refused(NODE, occupancy).reason is Reason.GPU_DRAINING


def test_processes_of_a_former_claim_are_told_once() -> None:
    node = replace(NODE, holders=(holder(7, 0), holder(9, 0)))
    refusal = refused(node, Occupancy(left_behind=(left(),)))
    assert refusal.reason is Reason.GPU_BUSY
    assert refusal.message.endswith(
        "is held by pid 9 (python train.py), pid 7 (python serve.py) and pid 8 (?) of the former old/2"
    )


def test_what_is_kept_and_used_on_a_full_partition() -> None:
    node = observed(gpu(0, "CPX/NPS1"))
    occupancy = Occupancy(left_behind=(left(index=3), left(1, 0, index=5)), unattributed={(HERE, 3): 3 * GIB // 2})
    refusal = refused(node, occupancy, spec(20, at=(HERE, 3)))
    assert (refusal.reason, refusal.message) == (
        Reason.NO_ROOM,
        f"claim m asks for 20 GB, the most that is free is 10.5 GB on partition {HERE}/3",
    )
    assert refusal.hint.endswith(
        "; processes of no claim use 1.5 GiB there; kept until they end: pid 7 (python serve.py) and pid 8 (?) of the "
        f"former old/2 on {HERE}/3 (12 GB, 4 slots), pid 7 (python serve.py) and pid 8 (?) of the former old/2 on "
        f"{HERE}/5 (1 GB)"
    )


def test_of_several_gpus_each_is_told_with_its_obstacle() -> None:
    node = replace(NODE, holders=(holder(9, 1),))
    refusal = refused(node, Occupancy((taken("a"),)), spec(5, "CPX"))
    assert (refusal.gpu, refusal.reason) == (None, Reason.NO_ROOM)
    assert refusal.hint == (
        f"GPUs with claims or processes on them are not switched: {HERE} is in use by claims: a; "
        f"{ADDRESSES[1]} is held by pid 9 (python train.py)"
    )


def test_a_sentence_does_not_grow_without_end() -> None:
    many = tuple(holder(pid, 0, command="x" * 500) for pid in range(100, 200))
    words = refused(replace(NODE, holders=many), Occupancy()).message
    assert words.endswith(f" and {100 - MOST_NAMED} more")
    assert len(words) < (MOST_NAMED + 3) * (COMMAND_LENGTH + 15)


def test_a_gpu_whose_mode_is_unknown_is_not_switched() -> None:
    """A plan would refuse it, and the claim would wait for ever for what is never tried."""
    unknown = replace(gpu(0), reported_compute=None, partitions=(Partition(0, 128, None, 192 * GIB),))
    assert refused(observed(unknown), Occupancy(), spec(5, "CPX")).reason is Reason.MODE_NOT_AVAILABLE
