"""The dispatch core, driven from C without the GIL, beside what others do for the same job.

Run: .venv/bin/pytest tests/benchmarks/test_core.py

`cycle` is acquire + grant + release of one request. The scan is the way of servers that look at every queued request
for time-outs (the shape of Triton's). Sketches are recorded from Python on both sides.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
from ddsketch import DDSketch
from hdrh.histogram import HdrHistogram

from aimd._native.bench import bench_cycle, bench_decision, bench_expiry, bench_sketch
from aimd._native.sketch import LatencySketch

RECORDS = 20_000
WAITING = (0, 1_000, 10_000, 100_000)


@pytest.mark.parametrize("waiting", WAITING)
@pytest.mark.parametrize("mixed", [False, True], ids=["deadlines-in-order", "deadlines-mixed"])
def test_full_cycle(benchmark: Any, waiting: int, mixed: bool) -> None:
    told: list[float] = []
    benchmark.group = f"full cycle, {'mixed' if mixed else 'ordered'} deadlines"
    benchmark.pedantic(
        lambda: told.append(bench_cycle(1_000, waiting, mixed=mixed, rounds=501)), rounds=5, warmup_rounds=1
    )
    peer = "aimd" if waiting == 0 else f"aimd, {waiting:,} waiting"
    benchmark.extra_info.update(peer=peer, ns_per_operation=min(told))


@pytest.mark.parametrize("waiting", WAITING[1:])
def test_decision_after_a_release(benchmark: Any, waiting: int) -> None:
    medians: list[int] = []
    benchmark.group = "release to next grant, median"

    def run() -> None:
        times = bench_decision(50_000, waiting)
        medians.append(times[len(times) // 2])

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    peer = "aimd" if waiting == 1_000 else f"aimd, {waiting:,} waiting"
    benchmark.extra_info.update(peer=peer, ns_per_operation=min(medians))


@pytest.mark.parametrize("fraction", [0.01, 0.1])
def test_expiry_of_100k(benchmark: Any, fraction: float) -> None:
    times: list[int] = []
    benchmark.group = f"{fraction:.0%} of 100k expire, whole call"

    def run() -> None:
        nanoseconds, expired = bench_expiry(100_000, fraction)
        assert expired == 100_000 * fraction
        times.append(nanoseconds)

    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(peer="aimd", ns_per_operation=min(times))


class Queued:
    """A request as a server written in Python holds it."""

    __slots__ = ("start_by",)

    def __init__(self, start_by: int) -> None:
        self.start_by = start_by


def scan(queue: deque[Queued], now: int) -> tuple[deque[Queued], list[Queued]]:
    """Look at each queued request, keep those that still can start in time, and hand the others over."""
    kept: deque[Queued] = deque()
    expired = []
    for request in queue:
        if request.start_by <= now:
            expired.append(request)
        else:
            kept.append(request)
    return kept, expired


@pytest.mark.parametrize("fraction", [0.01, 0.1])
def test_expiry_by_a_scan(benchmark: Any, fraction: float) -> None:
    rng = random.Random(1)
    queue = deque(Queued(0 if rng.random() < fraction else 10**12) for _ in range(100_000))
    benchmark.group = f"{fraction:.0%} of 100k expire, whole call"
    benchmark.extra_info.update(peer="scan in Python", operations=1)
    benchmark.pedantic(lambda: scan(queue, 1), rounds=10, warmup_rounds=1)


def values() -> list[int]:
    rng = random.Random(1)
    return [int(rng.lognormvariate(13, 2)) + 1 for _ in range(RECORDS)]


def record_all(record: Any, each: list[int]) -> None:
    for value in each:
        record(value)


@pytest.mark.parametrize("peer", ["aimd", "ddsketch", "hdrhistogram"])
def test_sketch_record_from_python(benchmark: Any, peer: str) -> None:
    record = {
        "aimd": LatencySketch().record,
        "ddsketch": DDSketch(1 / 128).add,
        "hdrhistogram": HdrHistogram(1, 3_600_000_000_000, 2).record_value,
    }[peer]
    each = values()
    benchmark.group = "sketch record"
    benchmark.extra_info.update(peer=peer, operations=len(each))
    benchmark.pedantic(lambda: record_all(record, each), rounds=5, warmup_rounds=1)


def test_sketch_record_from_c(benchmark: Any) -> None:
    """As the core records: a count of leading zeros, a shift, an addition."""
    told: list[float] = []
    benchmark.group = "sketch record"
    benchmark.pedantic(lambda: told.append(bench_sketch(10_000)), rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(peer="aimd, from C", ns_per_operation=min(told))
