"""The order of devices is the placement policy: what a first-fit scheduler makes of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from aimd.domain.claim import Assignment
from aimd.domain.device_name import DeviceName
from aimd.domain.gpu import Observed
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.planning.dra.devices import devices
from aimd.planning.dra.surroundings import Surroundings
from aimd.planning.placement import Placement, place
from aimd.planning.rooms import Occupancy
from tests.fakes.claims import spec
from tests.unit.dra.first_fit import Pool
from tests.unit.dra.nodes import claimed, on_paper, with_gpu
from tests.unit.planning.paper import ADDRESSES


def pool(snapshot: NodeSnapshot) -> Pool:
    found = devices(snapshot, Surroundings())
    return Pool(found.counter_sets, found.devices)


def order(snapshot: NodeSnapshot) -> list[str]:
    return [one["name"] for one in devices(snapshot, Surroundings()).devices]


def test_what_the_design_has_seen() -> None:
    made = pool(on_paper("CPX/NPS1"))
    assert [made.allocate("CPX", 8), made.allocate("CPX", 8), made.allocate("CPX", 12)] == [
        "gpu0-cpx-0",
        "gpu0-cpx-0",
        "gpu0-cpx-1",
    ]
    assert made.allocate("CPX", 25) is None
    assert made.allocate("DPX", 8) is None
    assert made.allocate("SPX") is None
    assert made.allocate("CPX", 8) == "gpu0-cpx-0"


def test_two_modes_leave_no_room_for_a_third() -> None:
    made = pool(on_paper("CPX/NPS1", "QPX/NPS1"))
    assert made.allocate("CPX", 8) == "gpu0-cpx-0"
    assert made.allocate("QPX", 8) == "gpu1-qpx-0"
    assert made.allocate("DPX", 8) is None
    assert made.allocate("SPX", 8) is None


def test_a_claim_without_a_size_has_the_partition_alone() -> None:
    made = pool(on_paper("CPX/NPS1"))
    assert [made.allocate("CPX") for _ in range(9)] == [*(f"gpu0-cpx-{index}" for index in range(8)), None]


def test_slots_are_scheduled() -> None:
    made = pool(on_paper("CPX/NPS1"))
    assert [made.allocate("CPX", 1, slots) for slots in (10, 7, 6, 17)] == [
        "gpu0-cpx-0",
        "gpu0-cpx-1",
        "gpu0-cpx-0",
        None,
    ]


def test_what_is_there_before_what_needs_a_switch() -> None:
    assert order(on_paper("SPX/NPS1", "CPX/NPS1"))[:9] == [*(f"gpu1-cpx-{index}" for index in range(8)), "gpu0-spx-0"]


def test_the_fullest_partition_first_whoever_fills_it() -> None:
    claims = (claimed("a", 0, 3, 8), claimed("b", 1, 5, 16, device=True))
    assert order(replace(on_paper("CPX/NPS1", "CPX/NPS1"), claims=claims))[:3] == [
        "gpu1-cpx-5",
        "gpu0-cpx-3",
        "gpu1-cpx-0",
    ]


def test_idle_gpus_come_last() -> None:
    claims = (claimed("a", 1, 0, 24),)
    found = order(replace(on_paper("CPX/NPS1", "CPX/NPS1", "CPX/NPS1"), claims=claims))
    assert found[:9] == ["gpu1-cpx-0", *(f"gpu1-cpx-{index}" for index in range(1, 8)), "gpu0-cpx-0"]


def test_of_what_needs_a_switch_small_partitions_first_and_as_wished() -> None:
    snapshot = on_paper("SPX/NPS1", "SPX/NPS1")
    assert order(snapshot)[2] == "gpu0-cpx-0"
    wished = with_gpu(snapshot, 0, wish=PartitionMode.parse("SPX"))
    assert order(wished)[2:10] == [f"gpu1-cpx-{index}" for index in range(8)]


def test_every_device_is_there_once() -> None:
    found = order(on_paper(*["CPX/NPS1"] * 8))
    assert len(found) == len(set(found)) == 120


def taken_by_devices(snapshot: NodeSnapshot, places: list[tuple[str, int, int]]) -> NodeSnapshot:
    """With these places (GPU, index, units) allocated."""
    claims = tuple(
        replace(
            claimed(f"claim-{number}", 0, 0, 1, device=True),
            assignments=(Assignment(f"claim-{number}", 0, gpu, index, units, 0),),
        )
        for number, (gpu, index, units) in enumerate(places)
    )
    return replace(snapshot, claims=claims)


@pytest.mark.parametrize("seed", range(6))
def test_first_fit_in_this_order_is_the_best_fit_of_claims(seed: int) -> None:
    """As long as nothing has to be switched, a claim goes where the node itself would put it."""
    choose = random.Random(seed)
    snapshot = on_paper(*(choose.choice(["CPX/NPS1", "QPX/NPS1", "DPX/NPS1"]) for _ in range(2)))
    observed = Observed(tuple(status.gpu for status in snapshot.gpus))
    places: list[tuple[str, int, int]] = []
    for _ in range(20):
        gb = choose.choice([1, 2.5, 8, 12, 20, 24, 40])
        made = pool(taken_by_devices(snapshot, places))
        for gpu, index, units in places:
            name = next(
                str(DeviceName(s.index, s.gpu.compute_mode, index)) for s in snapshot.gpus if s.gpu.pci_address == gpu
            )
            assert (
                made.allocate_where(lambda device, name=name: device["name"] == name, {"memory": units << 20}) == name
            )
        reserved = tuple(Assignment("x", 0, gpu, index, units, 0) for gpu, index, units in places)
        there = Occupancy(assignments=reserved, unswitchable=frozenset(ADDRESSES))
        wanted = place("claim", spec(gb), observed, there)
        settled = made.allocate_where(lambda device: "bindingConditions" not in device, {"memory": int(gb * (1 << 30))})
        if not isinstance(wanted, Placement):
            assert settled is None
            continue
        (one,) = wanted.assignments
        found = DeviceName.parse(str(settled))
        free = {(a.gpu, a.index): 0 for a in reserved}
        for gpu, index, units in places:
            free[gpu, index] += units
        size = {s.gpu.pci_address: 192 * 1024 // len(s.gpu.partitions) for s in snapshot.gpus}
        left = [
            size[gpu] - free.get((gpu, index), 0) for gpu, index in (one.place, (ADDRESSES[found.gpu], found.index))
        ]
        assert left[0] == left[1]  # among equals the order is finer
        places.append((ADDRESSES[found.gpu], found.index, one.memory_units))


@pytest.mark.parametrize("seed", range(10))
def test_no_gpu_is_ever_in_two_modes_and_no_partition_overcommitted(seed: int) -> None:
    """Whatever comes: claims of all sizes and modes, against what others have reserved."""
    choose = random.Random(seed)
    snapshot = on_paper(*(choose.choice(["CPX/NPS1", "SPX/NPS1", "QPX/NPS1"]) for _ in range(3)))
    outside = claimed("other", choose.randrange(3), 0, choose.choice([4, 16]))
    made = pool(replace(snapshot, claims=(outside,)))
    for _ in range(40):
        made.allocate(choose.choice([None, "SPX", "DPX", "QPX", "CPX"]), choose.choice([None, 1, 8, 24, 30, 90, 192]))
    modes: dict[int, set[str]] = {}
    for name in made.used:
        found = DeviceName.parse(name)
        modes.setdefault(found.gpu, set()).add(found.mode.value)
    assert all(len(some) == 1 for some in modes.values())
    other = outside.assignments[0]
    number = ADDRESSES.index(other.gpu)
    assert modes.get(number, {str(snapshot.gpus[number].gpu.compute_mode)}) == {
        str(snapshot.gpus[number].gpu.compute_mode)
    }
    for name, used in made.used.items():
        found = DeviceName.parse(name)
        size = 192 // {"SPX": 1, "DPX": 2, "QPX": 4, "CPX": 8}[found.mode.value]
        theirs = other.memory_units >> 10 if (found.gpu, found.index) == (number, 0) else 0
        assert used["memory"] / (1 << 30) + theirs <= size
