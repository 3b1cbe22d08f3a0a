"""LatencySketch: error bound, merge, quantiles, fixed size."""

import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimd._native.sketch import LatencySketch

TOP = 2**44


def sketch_of(values):
    sketch = LatencySketch()
    for value in values:
        sketch.record(value)
    return sketch


@given(st.one_of(st.integers(0, 300), st.integers(0, TOP - 1), st.integers(0, 43).map(lambda bits: 1 << bits)))
def test_a_value_is_told_within_one_in_128(value):
    ((told, count),) = sketch_of([value]).values()
    assert count == 1
    assert abs(told - value) * 128 <= value


def test_small_values_are_exact():
    assert sketch_of(range(128)).values() == [(value, 1) for value in range(128)]


def test_cells_ascend_without_a_gap():
    """Each cell begins where the one before it ends: neighbours are never told more than 1/64 apart."""
    edges = sorted({base + step for bits in range(44) for base in [1 << bits] for step in (-1, 0, 1)})
    told = [sketch_of([edge]).values()[0][0] for edge in edges if 0 <= edge < TOP]
    assert told == sorted(told)


def test_what_is_longer_counts_in_the_last_cell():
    sketch = sketch_of([TOP, 2**63, 2**64 - 1])
    assert sketch.count == 3
    assert sketch.largest == 2**64 - 1
    assert sketch.total == TOP + 2**63 + 2**64 - 1
    ((told, count),) = sketch.values()
    assert count == 3
    assert TOP * 127 // 128 <= told <= TOP


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200), st.floats(0, 1))
def test_quantiles(values, fraction):
    told = sketch_of(values).quantile(fraction)
    exact = sorted(values)
    place = next(place for place in range(len(values)) if place + 1 >= fraction * len(values))
    assert abs(told - exact[place]) * 128 <= exact[place]


@given(st.lists(st.integers(0, 2**50)), st.lists(st.integers(0, 2**50)))
def test_merge_is_addition(first, second):
    merged = sketch_of(first)
    merged.merge(sketch_of(second))
    both = sketch_of(first + second)
    assert merged.values() == both.values()
    assert (merged.count, merged.total, merged.largest) == (both.count, both.total, both.largest)


def test_made_of_the_cells_of_a_core():
    sketch = LatencySketch.of({0: 2, 130: 1}, 132, 132)
    assert sketch.values() == [(0, 2), (133, 1)]
    assert sketch.quantile(1.0) == 132
    with pytest.raises(ValueError, match="cell 2496 of a sketch"):
        LatencySketch.of({2496: 1}, 1, 1)


def test_size_does_not_grow():
    sketch = LatencySketch()
    before = sys.getsizeof(sketch)
    dice = random.Random(1)
    for _ in range(10_000):
        sketch.record(dice.randrange(TOP))
    assert sys.getsizeof(sketch) == before < 21_000


def test_errors():
    sketch = LatencySketch()
    assert sketch.quantile(0.5) is None
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="0 to 1 is expected"):
            sketch.quantile(wrong)
    with pytest.raises(OverflowError):
        sketch.record(-1)
    with pytest.raises(TypeError):
        sketch.merge(None)
