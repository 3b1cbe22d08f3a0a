"""What the node costs: start, memory, the command line, and aimd's own time in a mode switch.

Run: .venv/bin/pytest tests/benchmarks --benchmark-columns=min,median,max

Each has its peer or its floor in the same run: a bare interpreter for start and RSS, `python -c pass` for the command
line, the driver's own write for a switch.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimd.sim.node import SimulatedNode
from aimd.sim.state import new_state
from tests.fakes.node import ADDRESSES, fast_state, running_node

AIMD = [sys.executable, "-m", "aimd"]
AIMCTL = [sys.executable, "-m", "aimd.ctl"]


def all_cpx(path: Path) -> None:
    """The state file of a node with 64 partitions."""
    node = SimulatedNode(new_state("mi300x", 8, "7.2", switch_seconds=0.0), path)
    for address in ADDRESSES:
        node.write(f"bus/pci/devices/{address}/current_compute_partition", b"CPX")


class Daemon:
    """`aimd run --simulate mi300x:8` with 64 partitions."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        began = time.perf_counter()
        arguments = ["--runtime-dir", f"{directory}/run", "--state-dir", f"{directory}/state"]
        self.process = subprocess.Popen(
            [*AIMD, "run", "--simulate", "mi300x:8", *arguments], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        line = next(line for line in self.process.stderr if "9855" not in line)  # another daemon's address for metrics
        self.start_seconds = time.perf_counter() - began
        assert "8 GPUs, 64 partitions" in line, line

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "AIMD_SOCKET": f"{self.directory}/run/aimd.sock"}

    def rss_mib(self) -> float:
        return rss_mib(self.process.pid)

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(10) == 0
        assert self.process.stderr is not None
        self.process.stderr.close()


def rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    all_cpx(tmp_path / "state" / "sim.json")
    return tmp_path


@pytest.fixture
def daemon(directory: Path) -> Iterator[Daemon]:
    running = Daemon(directory)
    yield running
    running.stop()


def test_start_to_ready_with_64_partitions(benchmark, directory: Path) -> None:
    seconds = []

    def start() -> None:
        daemon = Daemon(directory)
        seconds.append(daemon.start_seconds)
        daemon.stop()

    benchmark.pedantic(start, rounds=7, warmup_rounds=1)
    benchmark.extra_info["start_to_ready_ms"] = round(min(seconds) * 1000)
    print(
        f"\nstart to READY: min {min(seconds) * 1000:.0f} ms, median {sorted(seconds)[len(seconds) // 2] * 1000:.0f} ms"
    )


def test_bare_interpreter_start(benchmark) -> None:
    benchmark.pedantic(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), rounds=7, warmup_rounds=1)


def test_resident_memory_with_64_partitions(benchmark, daemon: Daemon) -> None:
    bare = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    time.sleep(0.2)
    floor = rss_mib(bare.pid)
    bare.communicate(b"\n")
    for _ in range(50):
        subprocess.run([*AIMCTL, "get", "partitions"], env=daemon.environment, check=True, stdout=subprocess.DEVNULL)
    rss = benchmark(daemon.rss_mib)
    print(f"\nRSS after 50 requests: {rss:.1f} MiB; a bare interpreter has {floor:.1f} MiB")


def test_aimctl_get_gpus(benchmark, daemon: Daemon) -> None:
    command = [*AIMCTL, "get", "gpus"]
    benchmark.pedantic(
        lambda: subprocess.run(command, env=daemon.environment, check=True, stdout=subprocess.DEVNULL),
        rounds=15,
        warmup_rounds=2,
    )


def test_own_time_of_a_switch(benchmark, tmp_path: Path) -> None:
    """The whole transaction less the time inside the driver's write, on a node with 64 partitions."""
    own: list[float] = []
    inside: list[float] = []

    async def switches() -> None:
        state = fast_state("mi300x", 8)
        state.switch_seconds = 0.25
        async with running_node(state, directory=tmp_path) as node:
            for gpu in range(1, 8):
                await node.switch((gpu, "CPX"))
            for turn in range(10):
                change = await node.switch((0, ("CPX", "SPX")[turn % 2]))
                (switch,) = change.switches
                assert switch.ended is not None
                assert switch.began is not None
                own.append(switch.ended - switch.began - switch.write_seconds)
                inside.append(switch.write_seconds)

    benchmark.pedantic(lambda: asyncio.run(switches()), rounds=1)
    middle = len(own) // 2
    print(
        f"\nown time of a switch: median {sorted(own)[middle] * 1000:.1f} ms, max {max(own) * 1000:.1f} ms; "
        f"inside the driver: median {sorted(inside)[middle] * 1000:.1f} ms"
    )
