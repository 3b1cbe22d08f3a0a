"""What memory accounting costs: KFD's list of clients on files, and a poll of the daemon from there to the account.

Run: .venv/bin/pytest tests/benchmarks/test_accounting.py --benchmark-columns=min,median,max

64 partitions with 64 processes that may use all of them: 4,096 counters, as in CPX with a model server per partition. The
floor of the reading is open, read and close of each file, the floor of the idle poll is a poll of 2 s that does nothing.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimd.adapters.amdgpu.clients import ClientReader, Identification
from aimd.adapters.amdgpu.sysfs import OsSysfs
from aimd.adapters.callers import holder_of, pod_of
from aimd.adapters.processes import command_of, start_time_of
from aimd.domain.claim import Claim
from aimd.domain.gpu import Holder
from aimd.planning import effects as fx
from tests.fakes.claims import spec
from tests.unit.planning.desk import Desk, desk
from tests.unit.planning.paper import ADDRESSES

PROC = "class/kfd/kfd/proc"
GIB = 1 << 30
POLL_SECONDS = 2.0
PLACES = {1000 + 7 * number: (ADDRESSES[number // 8], number % 8) for number in range(64)}


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """kfd/proc of 64 living processes, in memory as sysfs is; each uses one partition."""
    folder = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=folder) as root:
        processes = [subprocess.Popen(["sleep", "3600"]) for _ in PLACES]
        for number, process in enumerate(processes):
            own = Path(root, PROC, str(process.pid))
            own.mkdir(parents=True)
            for other, gpu_id in enumerate(PLACES):
                (own / f"vram_{gpu_id}").write_text(f"{20 * GIB if number == other else 0}\n")
                (own / f"sdma_{gpu_id}").write_text("0\n")
                (own / f"stats_{gpu_id}").mkdir()
                (own / f"counters_{gpu_id}").mkdir()
        yield Path(root)
        for process in processes:
            process.kill()
            process.wait()


def reader(root: Path) -> ClientReader:
    return ClientReader(OsSysfs(root), PROC, Identification(command_of, holder_of, start_time_of, pod_of))


def test_floor_open_read_close(benchmark, tree: Path) -> None:
    files = [str(path) for path in (tree / PROC).glob("*/vram_*")]
    assert len(files) == 4096

    def read() -> None:
        for file in files:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            os.read(descriptor, 64)
            os.close(descriptor)

    benchmark.pedantic(read, rounds=41)


def test_scan_of_64_partitions_and_64_processes(benchmark, tree: Path) -> None:
    """Aim: 10 ms."""
    scan = reader(tree)
    assert sum(len(client.vram) for client in scan.read(PLACES)) == 64
    benchmark.pedantic(scan.read, (PLACES,), rounds=41)


def test_first_scan(benchmark, tree: Path) -> None:
    """Who the clients are is looked up: twice a minute."""
    benchmark.pedantic(lambda: reader(tree).read(PLACES), rounds=11)


def clients(count: int) -> tuple[Holder, ...]:
    gpus = frozenset(ADDRESSES)
    return tuple(
        Holder(100 + number, "serve", gpus, ((*place, 20 * GIB),), start_time=1)
        for number, place in enumerate(list(PLACES.values())[:count])
    )


def node_of(count: int) -> Desk:
    made = desk(*["CPX/NPS1"] * 8)
    for number, place in enumerate(list(PLACES.values())[:count]):
        assert isinstance(made.claim(f"m{number}", spec(24, "CPX", at=place)), Claim)
        made.join(f"m{number}", 100 + number)
    return made


@pytest.mark.parametrize("count", [0, 64])
def test_a_poll_from_its_answer_to_the_account(benchmark, count: int) -> None:
    """The decision and all accounts; with `count` claims and processes."""
    made, seen = node_of(count), clients(count)
    numbers = iter(range(1, 1 << 30))

    def poll() -> None:
        at = float(next(numbers))
        made.reconciler.handle(fx.Polled(made.node.generation, seen), fx.Instant(1000 + at, 2000 + at))

    benchmark.pedantic(poll, rounds=101)
    account = made.snapshot.memory.partitions[ADDRESSES[0], 0]
    assert account.used_bytes == (20 * GIB if count else 0)


@pytest.mark.parametrize("busy", [False, True])
def test_share_of_a_processor(tree: Path, tmp_path: Path, busy: bool) -> None:
    """Aim: 0.2 % while idle, at a poll every 2 s: reading the list and everything that follows."""
    (tmp_path / PROC).mkdir(parents=True)
    scan, made = reader(tree if busy else tmp_path), node_of(0)
    rounds = 100
    began = time.process_time()
    for number in range(rounds):
        seen = scan.read(PLACES)
        made.reconciler.handle(fx.Polled(made.node.generation, seen), fx.Instant(1000.0 + number, 2000.0 + number))
    each = (time.process_time() - began) / rounds
    print(f"\n{'64 processes' if busy else 'idle'}: {each * 1e3:.3f} ms of CPU a poll, {each / POLL_SECONDS:.4%}")
    assert busy or each / POLL_SECONDS <= 0.002
