"""The dispatch core, driven from C without the GIL, beside what others do for the same job.

Run: .venv/bin/pytest tests/benchmarks/test_core.py

`cycle` is acquire + grant + release of one request; the peer in C++ (peers/cycle.cpp) has three classes in order of
arrival and deadlines to expire by, and nothing else of what aimd does: what it costs less is the price of the rest. The
scan is the way of servers that look at every queued request for time-outs (the shape of Triton's). Sketches are recorded
from Python on both sides.
"""

from __future__ import annotations

import random
import subprocess
from collections import deque
from typing import Any

import pytest
from ddsketch import DDSketch
from hdrh.histogram import HdrHistogram

from aimd._native.bench import bench_cycle, bench_decision, bench_expiry, bench_sketch, bench_snapshot
from aimd._native.sketch import LatencySketch

RECORDS = 20_000
WAITING = (0, 1_000, 10_000, 100_000, 1_000_000)


@pytest.mark.parametrize("waiting", WAITING)
@pytest.mark.parametrize("mixed", [False, True], ids=["deadlines-in-order", "deadlines-mixed"])
def test_full_cycle(benchmark: Any, waiting: int, mixed: bool) -> None:
    told: list[float] = []
    benchmark.group = f"full cycle, {waiting:,} waiting" + (", mixed deadlines" if mixed else "")
    benchmark.pedantic(
        lambda: told.append(bench_cycle(1_000, waiting, mixed=mixed, rounds=501)), rounds=5, warmup_rounds=1
    )
    size = {"kind": f"full cycle, deadlines {'mixed' if mixed else 'ordered'}", "size": waiting} if waiting else {}
    benchmark.extra_info.update(peer="aimd", ns_per_operation=min(told), **size)


@pytest.mark.parametrize("waiting", WAITING)
def test_full_cycle_of_a_bare_dispatcher_in_cpp(benchmark: Any, compiled: Any, waiting: int) -> None:
    told: list[float] = []
    command = [str(compiled("cycle.cpp")), str(waiting), "1000", "501"]
    benchmark.group = f"full cycle, {waiting:,} waiting"
    benchmark.pedantic(lambda: told.append(output_of(command)), rounds=5, warmup_rounds=1)
    size = {"kind": "full cycle, deadlines ordered", "size": waiting} if waiting else {}
    benchmark.extra_info.update(peer="C++, bare", ns_per_operation=min(told), **size)


def output_of(command: list[str]) -> float:
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("waiting", WAITING[1:4])
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


@pytest.mark.parametrize("fraction", [0.01, 0.1])
@pytest.mark.parametrize("way", ["scan", "index"])
def test_expiry_in_cpp(benchmark: Any, compiled: Any, way: str, fraction: float) -> None:
    told: list[float] = []
    command = [str(compiled("expiry.cpp")), way, "100000", str(round(fraction * 1000))]
    benchmark.group = f"{fraction:.0%} of 100k expire, whole call"
    benchmark.pedantic(lambda: told.append(output_of(command)), rounds=3, warmup_rounds=1)
    name = {"scan": "C++, scan", "index": "C++, set + map + list"}[way]
    benchmark.extra_info.update(peer=name, ns_per_operation=min(told))


@pytest.mark.parametrize("blocks", [4, 16])
def test_longest_step_of_a_snapshot(benchmark: Any, blocks: int) -> None:
    """64 partitions of 16 models, all in use, dispatching going on between the steps. The longest step of all is mostly
    another process's turn, so the work's own maximum is told: of each step the least of the rounds, of these the most.
    """
    told: list[dict[str, int]] = []
    benchmark.group = "snapshot: longest step"
    benchmark.pedantic(lambda: told.append(bench_snapshot(64, 16, 7, blocks)), rounds=1)
    peer = "aimd" if blocks == 4 else f"aimd, {blocks} blocks at once"
    benchmark.extra_info.update(peer=peer, ns_per_operation=told[0]["step"], **told[0])
    print(f"\n{blocks} blocks a step, ns: {told[0]}")


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
