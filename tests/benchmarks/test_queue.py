"""The public PriorityQueue beside what people use instead, at constant size (hold model, see peers/queues.py).

Run: .venv/bin/pytest tests/benchmarks/test_queue.py --benchmark-json build/queue.json
Plot of it: .venv/bin/python -m tests.benchmarks.plot build/queue.json tests/benchmarks/queue.png
"""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.benchmarks.peers.queues import PEERS, Keys

SIZES = (1_000, 10_000, 100_000, 1_000_000)
CYCLES = 50_000
ROUNDS = 5
FEW = 10  # where one cycle costs O(n)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.timeout(600)
def test_pop_and_push(benchmark: Any, peer: str, size: int) -> None:
    source = Keys(size, CYCLES * (ROUNDS + 1))
    filled = PEERS[peer](source.filling())
    benchmark.group = f"pop+push at {size:,}"
    benchmark.extra_info.update(peer=peer, size=size, operations=CYCLES, kind="pop+push")
    benchmark.pedantic(filled.pop_push, setup=lambda: ((source.next(CYCLES),), {}), rounds=ROUNDS, warmup_rounds=1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("peer", [name for name, peer in PEERS.items() if peer.can_cancel])
@pytest.mark.timeout(600)
def test_cancel_and_push(benchmark: Any, peer: str, size: int) -> None:
    kind = PEERS[peer]
    source = Keys(size, CYCLES * (ROUNDS + 1))
    filled = kind(source.filling())
    cycles = FEW if kind.slow_cancel else CYCLES
    benchmark.group = f"cancel+push at {size:,}"
    benchmark.extra_info.update(peer=peer, size=size, operations=cycles, kind="cancel+push")
    warmup = 0 if kind.slow_cancel else 1
    benchmark.pedantic(
        filled.cancel_push, setup=lambda: ((source.next(cycles),), {}), rounds=ROUNDS, warmup_rounds=warmup
    )


@pytest.mark.parametrize("size", SIZES)
def test_limit_of_std_priority_queue(benchmark: Any, compiled: Any, size: int) -> None:
    program = compiled("hold.cpp")
    told = []

    def run() -> None:
        command = [str(program), str(size), str(CYCLES * 10)]
        told.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))

    benchmark.group = f"pop+push at {size:,}"
    benchmark.pedantic(run, rounds=3)
    benchmark.extra_info.update(peer="C++ std::priority_queue", size=size, kind="pop+push", ns_per_operation=min(told))
