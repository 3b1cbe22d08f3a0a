"""Where claims go, case by case; the properties are in tests/property/test_placement.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aimd.domain.claim import Assignment
from aimd.domain.gpu import BusyRule
from aimd.domain.modes import ComputeMode, PartitionMode
from aimd.domain.plan import Reason, Refusal
from aimd.planning.placement import Placement, place
from aimd.planning.rooms import Occupancy, Repartition
from tests.fakes.claims import spec
from tests.unit.planning.paper import ADDRESSES, GIB, gpu, holder, observed

CPX, SPX, DPX, QPX = (PartitionMode(ComputeMode[name]) for name in ("CPX", "SPX", "DPX", "QPX"))
NEVER = Repartition.NEVER


def taken(number: int, index: int, gb: float, guarantee: int = 0, name: str = "other", replica: int = 0) -> Assignment:
    return Assignment(name, replica, ADDRESSES[number], index, round(gb * 1024), guarantee)


def found(result: Placement | Refusal) -> list[str]:
    """Places like `0/3`, GPU number and index."""
    assert isinstance(result, Placement), result
    return [f"{ADDRESSES.index(a.gpu)}/{a.index}" for a in result.assignments]


def switches(result: Placement | Refusal) -> list[tuple[int, str]]:
    assert isinstance(result, Placement), result
    return [(ADDRESSES.index(address), str(mode.compute)) for address, mode in result.switches]


def refused(result: Placement | Refusal) -> Refusal:
    assert isinstance(result, Refusal), result
    assert result.message
    assert result.hint
    return result


# -- best fit ------------------------------------------------------------------------------------------------------


def test_the_smallest_partition_that_holds_it() -> None:
    node = observed(gpu(0, "SPX/NPS1"), gpu(1, "CPX/NPS1"), gpu(2, "QPX/NPS1"))
    assert found(place("m", spec(20), node, Occupancy())) == ["1/0"]
    assert found(place("m", spec(30), node, Occupancy())) == ["2/0"]
    assert found(place("m", spec(100), node, Occupancy())) == ["0/0"]


def test_the_fullest_partition_that_still_holds_it() -> None:
    node = observed(gpu(0, "CPX/NPS1"))
    occupancy = Occupancy((taken(0, 2, 10), taken(0, 5, 14)))
    assert found(place("m", spec(10), node, occupancy)) == ["0/5"]
    assert found(place("m", spec(10.5), node, occupancy)) == ["0/2"]
    assert found(place("m", spec(15), node, occupancy)) == ["0/0"]


def test_the_order_of_the_node_decides_among_equals() -> None:
    node = observed(gpu(1, "CPX/NPS1"), gpu(0, "CPX/NPS1"))
    assert found(place("m", spec(24, replicas=3), node, Occupancy())) == ["0/0", "0/1", "0/2"]


def test_a_partition_is_shared_to_the_last_unit() -> None:
    node = observed(gpu(0, "CPX/NPS1"))
    assert found(place("m", spec(12, replicas=2), node, Occupancy())) == ["0/0", "0/0"]
    assert found(place("m", spec(12 + 1 / 1024, replicas=2), node, Occupancy())) == ["0/0", "0/1"]
    full = Occupancy(tuple(taken(0, index, 24 - 1 / 1024) for index in range(8)))
    assert found(place("m", spec(1 / 1024), node, full)) == ["0/0"]
    assert refused(place("m", spec(2 / 1024), node, full)).reason is Reason.NO_ROOM


def test_guarantees_are_counted_per_partition() -> None:
    node = observed(gpu(0, "CPX/NPS1"))
    occupancy = Occupancy((taken(0, 0, 1, guarantee=10),))
    assert found(place("m", spec(1, guarantee=6), node, occupancy)) == ["0/0"]
    assert found(place("m", spec(1, guarantee=7), node, occupancy)) == ["0/1"]
    assert found(place("m", spec(1, guarantee=8, replicas=3), node, Occupancy())) == ["0/0", "0/0", "0/1"]
    assert found(place("m", spec(1, guarantee=4), node, replace(occupancy, slots_per_partition=13))) == ["0/1"]


def test_only_the_replicas_that_are_asked_for() -> None:
    node = observed(gpu(0, "CPX/NPS1"))
    result = place("m", spec(24, replicas=9), node, Occupancy((taken(0, 0, 24),)), (3, 7))
    assert found(result) == ["0/1", "0/2"]
    assert [a.replica for a in result.assignments] == [3, 7]


def test_use_that_nobody_knows_of() -> None:
    node = observed(gpu(0, "CPX/NPS1"))
    occupancy = Occupancy(unattributed={(ADDRESSES[0], 0): 1, (ADDRESSES[0], 1): 12 * GIB})
    assert found(place("m", spec(24), node, occupancy)) == ["0/2"]
    assert found(place("m", spec(12), node, occupancy)) == ["0/1"]


def test_partitions_that_tell_no_size_take_nobody() -> None:
    one = gpu(0, "CPX/NPS1")
    blind = replace(
        one, partitions=tuple(replace(part, memory_bytes=None) for part in one.partitions[:7]) + one.partitions[7:]
    )
    assert found(place("m", spec(24), observed(blind), Occupancy())) == ["0/7"]


# -- wishes --------------------------------------------------------------------------------------------------------


def test_modes_that_are_wished() -> None:
    node = observed(gpu(0, "CPX/NPS1"), gpu(1, "QPX/NPS4"), gpu(2, "CPX/NPS4"))
    assert found(place("m", spec(10, "QPX"), node, Occupancy())) == ["1/0"]
    assert found(place("m", spec(10, "NPS4"), node, Occupancy())) == ["2/0"]
    assert found(place("m", spec(10, "CPX/NPS1"), node, Occupancy())) == ["0/0"]


def test_a_pinned_partition_is_the_only_one() -> None:
    node = observed(gpu(0, "CPX/NPS1"), gpu(1, "CPX/NPS1"))
    here = spec(20, at=(ADDRESSES[1], 5))
    assert found(place("m", here, node, Occupancy())) == ["1/5"]
    assert refused(place("m", here, node, Occupancy((taken(1, 5, 20),)))).reason is Reason.NO_ROOM
    anywhere = spec(20, at=(None, 5), replicas=2)
    assert found(place("m", anywhere, node, Occupancy())) == ["0/5", "1/5"]
    assert found(place("m", anywhere, node, Occupancy((taken(0, 5, 4),)))) == ["0/5", "1/5"]


def test_a_preferred_partition_is_taken_if_it_fits() -> None:
    node = observed(gpu(0, "CPX/NPS1"), gpu(1, "SPX/NPS1"))
    assert found(place("m", spec(20, preferred=(ADDRESSES[1], 0)), node, Occupancy())) == ["1/0"]
    assert found(place("m", spec(20, preferred=(None, 3)), node, Occupancy())) == ["0/3"]
    assert found(place("m", spec(20, preferred=(None, 3)), node, Occupancy((taken(0, 3, 5),)))) == ["0/0"]
    assert found(place("m", spec(20, preferred=(ADDRESSES[1], 4)), node, Occupancy())) == ["0/0"], "no switch for it"


# -- switches ------------------------------------------------------------------------------------------------------


def test_no_switch_where_there_is_room() -> None:
    node = observed(gpu(0, "SPX/NPS1"), gpu(1, "CPX/NPS1"))
    result = place("m", spec(24, "CPX"), node, Occupancy())
    assert (found(result), switches(result)) == (["1/0"], [])


def test_an_idle_gpu_is_switched_to_the_wished_mode() -> None:
    node = observed(gpu(0, "SPX/NPS1"), gpu(1, "SPX/NPS1"))
    result = place("m", spec(24, "CPX", replicas=8), node, Occupancy((taken(0, 0, 1),)))
    assert (found(result), switches(result)) == ([f"1/{index}" for index in range(8)], [(1, "CPX")])


def test_the_mode_with_the_smallest_partitions_that_hold_it() -> None:
    result = place("m", spec(90), observed(gpu(0, "CPX/NPS1")), Occupancy())
    assert (found(result), switches(result)) == (["0/0"], [(0, "DPX")])
    result = place("m", spec(100), observed(gpu(0, "CPX/NPS1")), Occupancy())
    assert (found(result), switches(result)) == (["0/0"], [(0, "SPX")])


def test_as_few_gpus_as_possible() -> None:
    """gpu0 would gain less than gpu1: of its partitions some hold the claim already."""
    node = observed(gpu(0, "QPX/NPS1"), gpu(1, "SPX/NPS1"), gpu(2, "SPX/NPS1"))
    result = place("m", spec(20, replicas=24, guarantee=16), node, Occupancy())
    assert switches(result) == [(0, "CPX"), (1, "CPX"), (2, "CPX")]
    result = place("m", spec(20, replicas=13, guarantee=16), node, Occupancy())
    assert switches(result) == [(1, "CPX")], "4 + 1 + 1 are there, 7 more come from one switch"


def test_all_replicas_go_to_the_partitions_of_the_new_mode() -> None:
    """Nine of 20 GB fit the whole GPU and not its eighths; the eighths are gone then."""
    result = place("m", spec(20, replicas=9), observed(gpu(0, "CPX/NPS1")), Occupancy())
    assert (set(found(result)), switches(result)) == ({"0/0"}, [(0, "SPX")])


def test_the_preferred_gpu_among_those_that_could_be_switched() -> None:
    node = observed(gpu(0, "SPX/NPS1"), gpu(1, "SPX/NPS1"), gpu(2, "SPX/NPS1"))
    result = place("m", spec(24, "CPX", preferred=(ADDRESSES[1], 6)), node, Occupancy())
    assert (found(result), switches(result)) == (["1/6"], [(1, "CPX")])
    result = place("m", spec(24, "CPX", preferred=(ADDRESSES[2], 6), replicas=16), node, Occupancy())
    assert switches(result) == [(0, "CPX"), (2, "CPX")]
    assert found(result)[0] == "2/6"
    here = observed(gpu(0, "SPX/NPS1"), gpu(1, "CPX/NPS1"), gpu(2, "SPX/NPS1"))
    result = place("m", spec(24, "CPX", preferred=(None, 6), replicas=9), here, Occupancy())
    assert (switches(result), found(result)[0]) == ([(0, "CPX")], "0/6")


def test_a_preferred_gpu_does_not_cost_a_further_switch() -> None:
    node = observed(gpu(0, "QPX/NPS1"), gpu(1, "SPX/NPS1"))
    wanted = spec(20, preferred=(ADDRESSES[0], 7), replicas=12, guarantee=16)
    assert switches(place("m", wanted, node, Occupancy())) == [(1, "CPX")]


def test_a_pinned_partition_that_comes_with_a_switch() -> None:
    node = observed(gpu(0, "SPX/NPS1"), gpu(1, "SPX/NPS1"))
    result = place("m", spec(20, at=(ADDRESSES[1], 6)), node, Occupancy())
    assert (found(result), switches(result)) == (["1/6"], [(1, "CPX")])
    result = place("m", spec(40, at=(ADDRESSES[1], 3)), node, Occupancy())
    assert (found(result), switches(result)) == (["1/3"], [(1, "QPX")])


@pytest.mark.parametrize(
    ("occupancy", "why"),
    [
        (Occupancy((taken(0, 0, 1),)), "somebody is assigned to it"),
        (Occupancy(draining=frozenset({ADDRESSES[0]})), "it is draining"),
        (Occupancy(switching=frozenset({ADDRESSES[0]})), "it is being switched"),
        (Occupancy(unswitchable=frozenset({ADDRESSES[0]})), "its switch has just failed"),
        (Occupancy(repartition=NEVER), "policy forbids it"),
    ],
)
def test_gpus_that_are_not_switched(occupancy: Occupancy, why: str) -> None:
    result = place("m", spec(24, "CPX"), observed(gpu(0, "SPX/NPS1")), occupancy)
    assert isinstance(result, Refusal), why


def test_gpus_that_processes_hold_are_not_switched() -> None:
    node = observed(gpu(0, "SPX/NPS1"), gpu(1, "SPX/NPS1"), holders=(holder(7, 0),))
    assert switches(place("m", spec(24, "CPX"), node, Occupancy())) == [(1, "CPX")]
    unknown = replace(node, busy_rule=BusyRule.UNKNOWN)
    assert switches(place("m", spec(24, "CPX"), unknown, Occupancy())) == [(1, "CPX")]
    old = replace(node, busy_rule=BusyRule.NODE_WIDE)
    assert refused(place("m", spec(24, "CPX"), old, Occupancy())).reason is Reason.NO_ROOM


def test_gpus_that_take_nobody() -> None:
    node = observed(gpu(0, "CPX/NPS1"), gpu(1, "CPX/NPS1", partitions=0), gpu(2, "CPX/NPS1"), gpu(3, "CPX/NPS1"))
    occupancy = Occupancy(draining=frozenset({ADDRESSES[0]}), switching=frozenset({ADDRESSES[2]}))
    assert found(place("m", spec(24), node, occupancy)) == ["3/0"]


def test_a_gpu_of_an_unknown_model_is_used_and_not_switched() -> None:
    node = observed(gpu(0, "CPX/NPS1", device_id=0x7777))
    assert found(place("m", spec(24), node, Occupancy())) == ["0/0"]
    assert refused(place("m", spec(24, "SPX"), node, Occupancy())).reason is Reason.MODE_NOT_AVAILABLE


# -- refusals ------------------------------------------------------------------------------------------------------

FULL = tuple(taken(0, index, 14 if index == 3 else 20, guarantee=4) for index in range(8))
REFUSALS = [
    pytest.param(
        spec(24.5, at=(None, 0), mode="CPX"), Occupancy(), Reason.MEMORY_TOO_LARGE, "24.5 GB", "24 GB", id="more-than-N"
    ),
    pytest.param(spec(193), Occupancy(), Reason.MEMORY_TOO_LARGE, "193 GB", "192 GB", id="more-than-a-gpu"),
    pytest.param(
        spec(25), Occupancy(repartition=NEVER), Reason.MEMORY_TOO_LARGE, "25 GB", "24 GB", id="more-than-N-and-never"
    ),
    pytest.param(spec(1, guarantee=17), Occupancy(), Reason.GUARANTEE_TOO_LARGE, "17", "16", id="guarantee"),
    pytest.param(spec(12), Occupancy(FULL), Reason.NO_ROOM, "12 GB", f"10 GB on partition {ADDRESSES[0]}/3", id="full"),
    pytest.param(
        spec(9, replicas=4), Occupancy(FULL), Reason.NO_ROOM, "4 x 9 GB", "room for 1 of 4", id="too-many-replicas"
    ),
    pytest.param(
        spec(2, guarantee=13), Occupancy(FULL), Reason.NO_ROOM, "13 guaranteed slots", "12 slots", id="slots-are-taken"
    ),
    pytest.param(
        spec(90), Occupancy(FULL), Reason.NO_ROOM, "90 GB", "10 GB on partition", id="larger-partitions-would-do"
    ),
    pytest.param(
        spec(90, "DPX"), Occupancy(FULL), Reason.GPU_IN_USE, "90 GB", "is in use by claims: other", id="another-mode"
    ),
    pytest.param(spec(5, "CPX/NPS4"), Occupancy(), Reason.MODE_NOT_AVAILABLE, "CPX/NPS4", "CPX/NPS1", id="memory-mode"),
    pytest.param(spec(5, "TPX"), Occupancy(), Reason.MODE_NOT_AVAILABLE, "TPX/?", "CPX/NPS1", id="mode-never-offered"),
    pytest.param(
        spec(5, "SPX"), Occupancy(repartition=NEVER), Reason.MODE_NOT_AVAILABLE, "SPX/?", "CPX/NPS1", id="never"
    ),
    pytest.param(
        spec(5, at=("0000:ff:00.0", 1)),
        Occupancy(),
        Reason.UNKNOWN_PARTITION,
        "0000:ff:00.0/1",
        "none",
        id="no-such-gpu",
    ),
    pytest.param(
        spec(5, "DPX", at=(ADDRESSES[0], 2)), Occupancy(), Reason.UNKNOWN_PARTITION, "/2", "0 to 1", id="no-such-index"
    ),
    pytest.param(
        spec(5),
        Occupancy(draining=frozenset({ADDRESSES[0]})),
        Reason.GPU_DRAINING,
        ADDRESSES[0],
        "takes no new claims",
        id="draining",
    ),
    pytest.param(
        spec(5),
        Occupancy(switching=frozenset({ADDRESSES[0]}), change="c1"),
        Reason.SWITCH_IN_PROGRESS,
        ADDRESSES[0],
        "is being switched by mode change c1",
        id="being-switched",
    ),
]


@pytest.mark.parametrize(("wanted", "occupancy", "reason", "asked", "there"), REFUSALS)
def test_refusals_name_what_was_asked_for_and_what_there_is(wanted, occupancy, reason, asked, there) -> None:
    refusal = refused(place("llama", wanted, observed(gpu(0, "CPX/NPS1")), occupancy))
    assert refusal.reason is reason
    assert refusal.message.startswith("claim llama ")
    assert asked in refusal.message
    assert there in refusal.message


def test_a_refusal_names_the_policy_and_what_is_closed() -> None:
    node = observed(gpu(0, "CPX/NPS1"), gpu(1, "CPX/NPS1"))
    never = Occupancy(FULL, draining=frozenset({ADDRESSES[1]}), repartition=NEVER)
    assert refused(place("m", spec(12), node, never)).hint.endswith(
        f"; repartition = never forbids switching; draining: {ADDRESSES[1]}"
    )


def test_draining_is_the_reason_only_if_it_is_the_only_one() -> None:
    node = observed(gpu(0, "CPX/NPS1"), gpu(1, "CPX/NPS1"))
    occupancy = Occupancy(FULL, draining=frozenset({ADDRESSES[1]}))
    assert refused(place("m", spec(12), node, occupancy)).reason is Reason.NO_ROOM
    assert refused(place("m", spec(12, at=(ADDRESSES[1], 0)), node, occupancy)).reason is Reason.GPU_DRAINING


def test_draining_is_the_reason_if_all_other_partitions_are_too_small() -> None:
    node = observed(gpu(0, "CPX/NPS1"), gpu(1, "SPX/NPS1"))
    occupancy = Occupancy(draining=frozenset({ADDRESSES[1]}), repartition=NEVER)
    assert refused(place("m", spec(100), node, occupancy)).reason is Reason.GPU_DRAINING


def test_a_node_without_partitions() -> None:
    for node in (observed(), observed(gpu(0, partitions=0))):
        refusal = refused(place("m", spec(1), node, Occupancy()))
        assert refusal.reason is Reason.NO_ROOM
        assert "no partition whose size is known" in refusal.message
