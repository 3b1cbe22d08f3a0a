"""The public PriorityQueue beside what people use instead, at constant size ("hold" model).

Run: .venv/bin/pytest tests/benchmarks/test_queue.py --benchmark-json build/queue.json
Plot of it: .venv/bin/python -m tests.benchmarks.plot build/queue.json tests/benchmarks/queue.png
"""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tests.benchmarks.peers.queues import PEERS, keys

SIZES = (1_000, 10_000, 100_000, 1_000_000)
CYCLES = 50_000
FEW = 20  # where one cycle costs O(n)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.timeout(600)
def test_pop_and_push(benchmark: Any, peer: str, size: int) -> None:
    filled = PEERS[peer](keys(size))
    new = keys(CYCLES, seed=3)
    benchmark.group = f"pop+push at {size:,}"
    benchmark.extra_info.update(peer=peer, size=size, operations=CYCLES, kind="pop+push")
    benchmark.pedantic(lambda: filled.pop_push(new), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("peer", [name for name, peer in PEERS.items() if peer.can_cancel])
@pytest.mark.timeout(600)
def test_cancel_and_push(benchmark: Any, peer: str, size: int) -> None:
    kind = PEERS[peer]
    filled = kind(keys(size))
    new = keys(FEW if kind.slow_cancel else CYCLES, seed=4)
    benchmark.group = f"cancel+push at {size:,}"
    benchmark.extra_info.update(peer=peer, size=size, operations=len(new), kind="cancel+push")
    rounds = 3 if kind.slow_cancel else 5
    benchmark.pedantic(lambda: filled.cancel_push(new), rounds=rounds, warmup_rounds=0 if kind.slow_cancel else 1)


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
