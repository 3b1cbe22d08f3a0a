"""The native core counts latencies up to bounds as its sketches have them, cell by cell, for any bounds."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimd.dispatch.core import NativeCore, cell_value, cells_of, histograms_of
from aimd.dispatch.values import Limits, ModelConfig, PartitionConfig
from aimd.domain.metering import BUCKETS_SECONDS

GUARANTEED = ModelConfig(9, guarantee=1)


def used_core(seed, requests=60):
    """Two models at two slots, one of them now and then below its guarantee; all classes but low."""
    draw = random.Random(seed)
    core = NativeCore(Limits(partitions=8, models=16))
    core.configure(0, 7, PartitionConfig((GUARANTEED, ModelConfig(11)), capacity=2))
    connection, now, running = core.open(1), 0, []
    for request in range(1, requests):
        now += int(2 ** draw.uniform(0, 30))
        events = core.acquire(now, connection, request, 7, draw.choice((9, 11, 11)), draw.choice((0, 1)))
        running += [event[3] for event in events if event[0] == 1]
        if draw.random() < 0.7:
            now += int(2 ** draw.uniform(0, 40))
            for lease in running[:1]:
                events = core.release(now, connection, lease)
                running = running[1:] + [event[3] for event in events if event[0] == 1]
    return core


@given(st.integers(0, 50), st.lists(st.one_of(st.integers(0, 1 << 44), st.integers(0, 300)), max_size=32))
def test_counts_are_those_of_the_cells(seed, bounds):
    core, bounds = used_core(seed), sorted(bounds)
    sketches = {(one.partition, one.model): one for one in core.latencies()}
    cells = {(one.partition, one.model): one for one in cells_of(core._latencies())}
    found = histograms_of(core._histograms(bounds))
    assert {(one.partition, one.model) for one in found} == sketches.keys()
    for one in found:
        key = one.partition, one.model
        for stage in ("queue", "total"):
            for klass, histogram in enumerate(getattr(one, stage)):
                counted, sketch = getattr(cells[key], stage)[klass], getattr(sketches[key], stage)[klass]
                expected = [sum(n for c, n in counted.items() if cell_value(c) <= bound) for bound in bounds]
                if sketch.count:
                    assert histogram == (sketch.total, (*expected, sketch.count))
                else:
                    assert histogram is None
        reclaim = sketches[key].reclaim
        assert (one.reclaim is None) == (reclaim.count == 0)
        if one.reclaim is not None:
            assert (one.reclaim[0], one.reclaim[1][-1]) == (reclaim.total, reclaim.count)


def test_some_wait_below_their_guarantee():
    assert any(one.reclaim for one in histograms_of(used_core(1)._histograms((1000,)))), "else nothing is shown above"


def test_a_restored_lease_is_counted_at_its_end():
    core = NativeCore(Limits(partitions=8, models=16))
    core.configure(0, 7, PartitionConfig((GUARANTEED,), capacity=2))
    core._restore(10, [(1 << 16, 7, 9, 0, 1, 0, 10_000)])
    connection = core.open(1)
    core.adopt(20, connection, 1 << 16)
    core.release(5000, connection, 1 << 16)
    [one] = histograms_of(core._histograms((1, 1000, 100_000)))
    assert (one.queue, one.total) == ((None, None, None), ((5000, (0, 0, 1, 1)), None, None))


def test_bounds_out_of_order_and_too_many_are_refused():
    core = used_core(1)
    for bounds in ((2, 1), range(33)):
        with pytest.raises(ValueError, match="at most 32 bounds in ascending order"):
            core._histograms(bounds)


def test_the_bounds_of_the_page_are_few_enough():
    assert len(BUCKETS_SECONDS) <= 32
    assert list(BUCKETS_SECONDS) == sorted(BUCKETS_SECONDS)
