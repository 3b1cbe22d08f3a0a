"""Lock counters: a set of devices fits exactly when it is of one mode, over all sets, for every model and every choice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest

from aimd.domain.modes import ComputeMode
from aimd.domain.silicon import MODELS, partition_count
from aimd.planning.dra.counters import LockCounters
from aimd.sim.hardware import MODELS as SIMULATED

SPX, DPX, TPX, QPX, CPX = ComputeMode
XCCS = sorted({model.xcc_count for model in MODELS.values()} | {model.xcc_count for model in SIMULATED.values()} | {2})


def counts(xcc_count: int) -> dict[ComputeMode, int]:
    """Partitions of each mode of a GPU."""
    found = {mode: partition_count(mode, xcc_count) for mode in ComputeMode}
    return {mode: count for mode, count in found.items() if count is not None}


def choices(xcc_count: int) -> Iterator[dict[ComputeMode, int]]:
    """Every choice of modes that a driver could offer."""
    every = counts(xcc_count)
    for size in range(1, len(every) + 1):
        for modes in combinations(every, size):
            yield {mode: every[mode] for mode in modes}


def fitting_sets(locks: LockCounters) -> set[frozenset[tuple[ComputeMode, int]]]:
    """All sets of devices for which the counters suffice; amounts are not negative, so what overflows stays so."""
    devices = [(mode, index) for mode, count in locks.counts.items() for index in range(count)]
    found: set[frozenset[tuple[ComputeMode, int]]] = set()

    def grow(position: int, chosen: tuple[tuple[ComputeMode, int], ...], left: dict[str, int]) -> None:
        if position == len(devices):
            found.add(frozenset(chosen))
            return
        grow(position + 1, chosen, left)
        taken = locks.consumed(*devices[position])
        rest = {name: amount - taken.get(name, 0) for name, amount in left.items()}
        if all(amount >= 0 for amount in rest.values()):
            grow(position + 1, (*chosen, devices[position]), rest)

    grow(0, (), locks.capacities)
    return found


def sets_of_one_mode(by_mode: dict[ComputeMode, int]) -> set[frozenset[tuple[ComputeMode, int]]]:
    found = {frozenset()}
    for mode, count in by_mode.items():
        for bits in range(1 << count):
            found.add(frozenset((mode, index) for index in range(count) if bits >> index & 1))
    return found


@pytest.mark.parametrize("xcc_count", XCCS)
def test_exactly_the_sets_of_one_mode_fit(xcc_count: int) -> None:
    for by_mode in choices(xcc_count):
        assert fitting_sets(LockCounters(by_mode)) == sets_of_one_mode(by_mode), by_mode


def test_every_set_of_an_mi300x_by_itself() -> None:
    """All 2^15, none left out for being larger than one that overflows."""
    by_mode = counts(8)
    locks = LockCounters(by_mode)
    devices = [(mode, index) for mode, count in by_mode.items() for index in range(count)]
    assert len(devices) == 15
    columns = sorted(locks.capacities)
    rows = [[locks.consumed(*device).get(name, 0) for name in columns] for device in devices]
    sums = [[0] * len(columns)]
    modes: list[set[ComputeMode]] = [set()]
    for (mode, _), row in zip(devices, rows, strict=True):
        sums += [[a + b for a, b in zip(each, row, strict=True)] for each in sums]
        modes += [{*each, mode} for each in modes]
    assert len(sums) == 1 << 15
    for total, used in zip(sums, modes, strict=True):
        assert (max(total) <= locks.capacity) == (len(used) <= 1)


@pytest.mark.parametrize("xcc_count", XCCS)
def test_amounts_are_whole_and_none_is_empty(xcc_count: int) -> None:
    for by_mode in choices(xcc_count):
        locks = LockCounters(by_mode)
        for mode, count in by_mode.items():
            assert locks.capacity % count == 0
            for index in range(count):
                consumed = locks.consumed(mode, index)
                assert set(consumed) <= set(locks.capacities)
                assert all(isinstance(amount, int) and amount > 0 for amount in consumed.values())
                assert bool(consumed) == (len(by_mode) > 1)
                assert locks.fits([(mode, index)])


@pytest.mark.parametrize("xcc_count", XCCS)
def test_they_are_few_enough_for_a_counter_set(xcc_count: int) -> None:
    for by_mode in choices(xcc_count):
        assert len(LockCounters(by_mode).capacities) <= 32


def test_the_counters_of_an_mi300x() -> None:
    locks = LockCounters(counts(8))
    assert locks.capacities == {"dpx-0": 8, "dpx-1": 8, **{f"qpx-{k}": 8 for k in range(4)}}
    quarters = {f"qpx-{k}": 1 for k in range(4)}
    assert locks.consumed(CPX, 7) == {"dpx-0": 1, "dpx-1": 1, **quarters}
    assert locks.consumed(QPX, 2) == {"dpx-0": 2, "dpx-1": 2, "qpx-2": 8}
    assert locks.consumed(DPX, 1) == {"dpx-1": 8, **{f"qpx-{k}": 4 for k in range(4)}}
    assert locks.consumed(SPX, 0) == locks.capacities


def test_the_counters_of_an_mi300a() -> None:
    locks = LockCounters(counts(6))
    assert locks.capacities == {"tpx-0": 6, "tpx-1": 6, "tpx-2": 6}
    assert locks.consumed(CPX, 5) == {"tpx-0": 1, "tpx-1": 1, "tpx-2": 1}
    assert locks.consumed(TPX, 1) == {"tpx-1": 6}


def test_a_gpu_with_one_mode_needs_none() -> None:
    assert LockCounters({SPX: 1}).capacities == {}
    assert LockCounters({CPX: 8}).consumed(CPX, 3) == {}
    assert LockCounters({}).capacities == {}


def test_without_a_mode_between_the_finest_has_the_counters() -> None:
    locks = LockCounters({SPX: 1, CPX: 4})
    assert locks.consumed(CPX, 2) == {"cpx-2": 4}
    assert locks.consumed(SPX, 0) == dict.fromkeys(("cpx-0", "cpx-1", "cpx-2", "cpx-3"), 4)


def test_counts_of_which_none_is_a_multiple_of_the_others() -> None:
    """No silicon is so today; amounts stay whole."""
    by_mode = {SPX: 1, DPX: 2, TPX: 3, QPX: 4}
    locks = LockCounters(by_mode)
    assert locks.capacity == 12
    assert fitting_sets(locks) == sets_of_one_mode(by_mode)
    assert fitting_sets(LockCounters({DPX: 2, TPX: 3})) == sets_of_one_mode({DPX: 2, TPX: 3})
