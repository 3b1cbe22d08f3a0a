"""Placement: nothing is over-committed, nobody is switched away, nothing is refused that fits, and what is planned comes.

All cases of the small nodes: python -m pytest tests/property/test_placement_properties.py -m campaign
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimd.domain.claim import Assignment, ClaimSpec, ClaimState, PartitionRef
from aimd.domain.gpu import BusyRule, Holder, Observed
from aimd.domain.memory import nominal_units, reserved_bytes
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.plan import Refusal
from aimd.errors import RefusedError
from aimd.planning.placement import Placement, place
from aimd.planning.policy import Policy
from aimd.planning.rooms import Occupancy, Repartition
from aimd.sim.hardware import MODELS, PROFILES
from tests.fakes.claims import broken_promises, spec
from tests.fakes.node import fast_state, running_node
from tests.property.simulated import Bench
from tests.unit.planning.paper import ADDRESSES, gpu, holder, observed

SLOTS = 16

# -- random nodes with the real sizes --------------------------------------------------------------------------------

SIZES = (1, 700, 8 * 1024, 12 * 1024, 24 * 1024, 32 * 1024, 48 * 1024, 96 * 1024, 192 * 1024)
compute_modes = st.one_of(st.none(), st.sampled_from(ComputeMode))


@st.composite
def references(draw, addresses):
    if draw(st.booleans()):
        return None
    return PartitionRef(draw(st.integers(0, 7)), draw(st.sampled_from([None, *addresses])))


@st.composite
def specs(draw, addresses):
    return ClaimSpec(
        memory_units=draw(st.sampled_from(SIZES)) + draw(st.sampled_from([0, 0, 1, 13])),
        mode=PartitionMode(draw(compute_modes), draw(st.sampled_from([None, None, None, MemoryMode.NPS1]))),
        partition=draw(references(addresses)) if draw(st.integers(0, 3)) == 0 else None,
        preferred=draw(references(addresses)),
        guarantee=draw(st.sampled_from([0, 0, 1, 5, 8, SLOTS])),
        replicas=draw(st.sampled_from([1, 1, 1, 2, 3, 9])),
    )


@st.composite
def nodes(draw):
    model = draw(st.sampled_from(sorted(MODELS)))
    memory = draw(st.sampled_from(MODELS[model].memory_modes))
    now = [draw(compute_modes) for _ in range(draw(st.integers(1, 4)))]
    return Bench(model, draw(st.sampled_from(sorted(PROFILES))), memory, now)


@st.composite
def occupancies(draw, seen: Observed):
    """Claims that came one after the other, GPUs that are closed, use that nobody knows of."""
    addresses = [each.pci_address for each in seen.gpus]
    some = st.frozensets(st.sampled_from(addresses), max_size=1)
    places = [(each.pci_address, part.index) for each in seen.gpus for part in each.partitions]
    made = Occupancy(
        draining=draw(some),
        switching=draw(some),
        unswitchable=draw(some),
        unattributed=draw(st.dictionaries(st.sampled_from(places), st.integers(0, 2**36), max_size=3)),
        slots_per_partition=draw(st.sampled_from([SLOTS, SLOTS, 5])),
        repartition=draw(st.sampled_from(Repartition)),
    )
    for number in range(draw(st.integers(0, 5))):
        result = place(f"before-{number}", draw(specs(addresses)), seen, made)
        if isinstance(result, Placement) and not result.switches:
            made = replace(made, assignments=made.assignments + result.assignments)
    return made


def check(wanted: ClaimSpec, result: Placement, seen: Observed, occupancy: Occupancy) -> None:
    """What has to be true of a placement, computed from bytes and not from units."""
    switched = {address for address, _ in result.switches}
    assert [a.replica for a in result.assignments] == list(range(wanted.replicas))
    assert not switched & {a.gpu for a in occupancy.assignments}
    assert not switched & (occupancy.closed | occupancy.unswitchable)
    assert not switched & {address for holder in seen.holders for address in holder.gpus}
    assert not (switched and occupancy.repartition is Repartition.NEVER)
    assert not (switched and seen.busy_rule is BusyRule.NODE_WIDE and seen.holders)
    assert len(switched) == len(result.switches)
    assert not occupancy.closed & {a.gpu for a in result.assignments}
    everybody = [*occupancy.assignments, *result.assignments]
    for each in seen.gpus:
        if each.pci_address in switched:
            continue
        for partition in each.partitions:
            here = [a for a in everybody if a.place == (each.pci_address, partition.index)]
            if not any(a in result.assignments for a in here):
                continue
            used = sum(reserved_bytes(a.memory_units, partition.memory_bytes) for a in here)
            unknown = occupancy.unattributed.get((each.pci_address, partition.index), 0)
            assert used <= partition.memory_bytes - unknown
            assert sum(a.memory_units for a in here) <= nominal_units(partition.memory_bytes)
            assert sum(a.guarantee for a in here) <= occupancy.slots_per_partition


def held(seen: Observed, data: st.DataObject) -> Observed:
    gpus = data.draw(st.frozensets(st.sampled_from([each.pci_address for each in seen.gpus]), max_size=1))
    return replace(seen, holders=(Holder(7, "python", gpus),) if gpus else ())


@settings(max_examples=150)
@given(data=st.data(), bench=nodes())
def test_nothing_is_over_committed_and_nobody_is_switched_away(data, bench):
    seen = held(bench.scan(), data)
    occupancy, wanted = data.draw(occupancies(seen)), data.draw(specs(bench.addresses))
    result = place("m", wanted, seen, occupancy)
    if isinstance(result, Refusal):
        assert all((result.reason, result.message, result.hint))
        return
    check(wanted, result, seen, occupancy)
    if wanted.partition is not None:
        assert all(a.index == wanted.partition.index for a in result.assignments)


@settings(max_examples=100)
@given(data=st.data(), bench=nodes())
def test_the_same_node_gives_the_same_places(data, bench):
    seen = bench.scan()
    occupancy, wanted = data.draw(occupancies(seen)), data.draw(specs(bench.addresses))
    shuffled = replace(
        occupancy,
        assignments=tuple(data.draw(st.permutations(occupancy.assignments))),
        unattributed=dict(reversed(occupancy.unattributed.items())),
    )
    assert place("m", wanted, seen, shuffled) == place("m", wanted, seen, occupancy)


@settings(max_examples=100)
@given(data=st.data(), bench=nodes())
def test_a_switch_that_was_planned_brings_the_places(data, bench):
    """On the hardware, after the switch: the partitions are there, and the claim fits on them without another switch."""
    seen = bench.scan()
    occupancy = replace(data.draw(occupancies(seen)), repartition=Repartition.WHEN_IDLE)
    wanted = data.draw(specs(bench.addresses))
    result = place("m", wanted, seen, occupancy)
    if isinstance(result, Refusal):
        return
    for address, mode in result.switches:
        bench.driver.set_compute_mode(address, mode.compute)
    after = bench.scan()
    sizes = {(each.pci_address, part.index): part.memory_bytes for each in after.gpus for part in each.partitions}
    totals = Counter()
    for assignment in (*occupancy.assignments, *result.assignments):
        totals[assignment.place] += reserved_bytes(assignment.memory_units, sizes[assignment.place])
    assert all(total <= sizes[place] for place, total in totals.items())
    again = place("m", wanted, after, replace(occupancy, repartition=Repartition.NEVER))
    assert isinstance(again, Placement)
    if result.switches:
        assert Counter(a.place for a in again.assignments) == Counter(a.place for a in result.assignments)


# -- exhaustive search on small nodes --------------------------------------------------------------------------------

GB_OF = {"SPX": (192,), "DPX": (96, 96), "CPX": (48,) * 4}  # MI308X, 192 GB
STATES = ("free", "used", "draining", "held")


def dimensions(count: int) -> list[list]:
    """Modes and states of the GPUs, size, mode, guarantee and replicas of the claim, its places, the busy rule."""
    return [
        list(itertools.product(GB_OF, repeat=count)),
        list(itertools.product(STATES, repeat=count)),
        [40, 49, 96, 100, 193],
        [None, "CPX", "DPX"],
        [0, 9],
        [1, 2, 5],
        [None, (None, 1), (ADDRESSES[count - 1], 0)],
        [None, (ADDRESSES[count - 1], 1)],
        [False, True],
    ]


def every_case(count: int) -> Iterator[tuple]:
    return itertools.product(*dimensions(count))


def some_cases(count: int, number: int) -> Iterator[tuple]:
    dice = random.Random(count)
    return (tuple(dice.choice(values) for values in dimensions(count)) for _ in range(number))


def fewest_switches(modes: tuple[str, ...], states: tuple[str, ...], wanted: ClaimSpec, *, old: bool) -> int | None:
    """By trying every mode of every GPU that may be switched, and every place for every replica."""
    frozen = old and "held" in states
    choices = [
        list(GB_OF) if state == "free" and not frozen else [mode] for mode, state in zip(modes, states, strict=True)
    ]
    counts = [
        sum(after != before for after, before in zip(tried, modes, strict=True))
        for tried in itertools.product(*choices)
        if _fits(tried, states, wanted)
    ]
    return min(counts, default=None)


def _fits(modes: tuple[str, ...], states: tuple[str, ...], wanted: ClaimSpec) -> bool:
    room = []
    for number, (mode, state) in enumerate(zip(modes, states, strict=True)):
        for index, gb in enumerate(GB_OF[mode]):
            pin = wanted.partition
            here = pin is None or (pin.index == index and pin.gpu in (None, ADDRESSES[number]))
            if state != "draining" and here and wanted.mode.compute in (None, ComputeMode[mode]):
                room.append((gb - 8, 8) if state == "used" and index == 0 else (gb, SLOTS))
    return _all_find_a_place(room, wanted.memory_units / 1024, wanted.guarantee, wanted.replicas)


def _all_find_a_place(room: list[tuple[float, int]], gb: float, slots: int, replicas: int) -> bool:
    if replicas == 0:
        return True
    for position, (free_gb, free_slots) in enumerate(room):
        if free_gb >= gb and free_slots >= slots:
            rest = [(free_gb - gb, free_slots - slots), *room[position + 1 :]]  # replicas are equal: never look back
            if _all_find_a_place(rest, gb, slots, replicas - 1):
                return True
    return False


def examine(case: tuple) -> None:
    modes, states, gb, mode, guarantee, replicas, at, preferred, old = case
    wanted = spec(gb, mode, at=at, preferred=preferred, guarantee=guarantee, replicas=replicas)
    count = len(modes)
    gpus = [gpu(number, f"{now}/NPS1", model="MI308X", compute_modes="SPX DPX CPX") for number, now in enumerate(modes)]
    holders = tuple(holder(number + 1, number) for number in range(count) if states[number] == "held")
    seen = observed(*gpus, holders=holders, rule=BusyRule.NODE_WIDE if old else BusyRule.PER_GPU)
    used = [ADDRESSES[number] for number in range(count) if states[number] == "used"]
    draining = frozenset(ADDRESSES[number] for number in range(count) if states[number] == "draining")
    occupancy = Occupancy(tuple(Assignment("o", 0, address, 0, 8 * 1024, 8) for address in used), draining=draining)
    best = fewest_switches(modes, states, wanted, old=old)
    result = place("m", wanted, seen, occupancy)
    told = f"{case}: {result}, best {best}"
    assert isinstance(result, Refusal) == (best is None), told
    if isinstance(result, Placement):
        assert len(result.switches) == best, told
        check(wanted, result, seen, occupancy)
        never = place("m", wanted, seen, replace(occupancy, repartition=Repartition.NEVER))
        assert isinstance(never, Refusal) == (best > 0), told


@pytest.mark.parametrize(("count", "number"), [(1, 1500), (2, 2000), (3, 300)])
def test_nothing_is_refused_that_fits_and_nothing_takes_more_switches_than_needed(count, number):
    for case in some_cases(count, number):
        examine(case)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_all_cases_of_small_nodes():
    for case in itertools.chain(every_case(1), every_case(2), some_cases(3, 20_000)):
        examine(case)


# -- carried out by the daemon ---------------------------------------------------------------------------------------


def prediction(name: str, wanted: ClaimSpec, snapshot: NodeSnapshot, policy: Policy) -> Placement | Refusal:
    seen = Observed(tuple(status.gpu for status in snapshot.gpus), snapshot.holders, busy_rule=snapshot.busy_rule)
    assignments = tuple(assignment for claim in snapshot.claims for assignment in claim.assignments)
    return place(name, wanted, seen, Occupancy(assignments, repartition=policy.repartition))


@pytest.mark.parametrize("seed", range(12))
def test_what_is_planned_is_what_the_daemon_does(seed):
    """Claims and releases at random on the simulated node; each claim ends on exactly the predicted places."""
    dice = random.Random(seed)
    policy = Policy(wait_seconds=5.0, settle_seconds=5.0, repartition=dice.choice(list(Repartition)))

    async def run() -> int:
        made = 0
        async with running_node(fast_state(dice.choice(sorted(MODELS)), 3), policy=policy) as node:
            for number in range(8):
                wanted = spec(
                    dice.choice([5, 12, 24, 30, 48, 90, 120]),
                    dice.choice([None, None, "CPX", "SPX", "DPX"]),
                    guarantee=dice.choice([0, 3, 8]),
                    replicas=dice.choice([1, 1, 2, 5]),
                )
                expected = prediction(f"m{number}", wanted, node.snapshot, policy)
                if isinstance(expected, Refusal):
                    with pytest.raises(RefusedError) as refused:
                        await node.loop.claim(f"m{number}", wanted, uid=0)
                    assert (refused.value.code, refused.value.message) == (expected.reason, expected.message)
                    continue
                claim = await node.loop.claim(f"m{number}", wanted, uid=0)
                assert claim.state is (ClaimState.SWITCHING if expected.switches else ClaimState.PLACED)
                made += 1
                await node.until(
                    lambda snapshot: (
                        all(each.state is ClaimState.PLACED for each in snapshot.claims)
                        and all(change.current is None for change in snapshot.changes)
                    )
                )
                placed = node.snapshot.claim(f"m{number}")
                assert [a.place for a in placed.assignments] == [a.place for a in expected.assignments]
                assert broken_promises(node.snapshot) == []
                if dice.random() < 0.4:
                    await node.loop.release(dice.choice(node.snapshot.claims).name)
        return made

    assert asyncio.run(run()) > 0
