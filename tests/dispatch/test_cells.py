"""Latencies as counts by cell say the same as the core's sketches."""

from itertools import pairwise

from aimd._native.sketch import LatencySketch
from aimd.dispatch.core import cell_value, cells_of, latencies_of
from aimd.planning.latency_window import quantiles


def raw(values):
    """What a core reads of a model with these latencies in its first sketch."""
    sketch = LatencySketch()
    cells = {}
    for value in values:
        sketch.record(value)
        cell = next(cell for cell in range(1 << 12) if abs(cell_value(cell) - value) * 128 <= value)
        cells[cell] = cells.get(cell, 0) + 1
    empty = (0, 0, {})
    return sketch, [(1, 2, [(sketch.total, sketch.largest, cells), *[empty] * 9])]


def test_quantiles_are_those_of_the_sketch():
    sketch, read = raw([0, 1, 127, 128, 5_000, 5_001, 1_000_000, 123_456_789] * 3)
    [cells], [sketches] = cells_of(read), latencies_of(read)
    assert (cells.partition, cells.model, cells.queue[1:], cells.service, cells.total) == (
        1,
        2,
        ({}, {}),
        ({},) * 3,
        ({},) * 3,
    )
    assert sketches.queue[0].count == sketch.count == 24
    found = quantiles(cells.queue[0], cell_value)
    for share, value in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        assert (
            value == sketches.queue[0].quantile(share) or abs(value - sketches.queue[0].quantile(share)) * 128 <= value
        )


def test_values_grow_with_cells():
    values = [cell_value(cell) for cell in range(2500 - 64)]
    assert values[:130] == [*range(128), 129, 131]
    assert all(one < two for one, two in pairwise(values))
