"""kill -9 at each named step of a mode change: afterwards journal, hardware and ledger agree.

The normal run kills 20 daemons at each point. A thousand at each, which takes about an hour:

    python -m pytest tests/integration/test_crash.py -m campaign

The lives and what is compared are in crash_lives.py, the points in crash_rounds.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from aimd.adapters.ledger import SqliteLedger
from aimd.domain.ledger import LedgerWrite
from aimd.domain.silicon import partition_count
from aimd.sim.node import SimulatedNode
from aimd.sim.state import new_state, restore
from tests.e2e.programs import Daemon
from tests.fakes.node import running_node
from tests.integration.crash_points import DyingLedger, Moment
from tests.integration.crash_rounds import POINTS
from tests.integration.unix_http import ask, lines

ROOT = Path(__file__).parents[2]
WORKERS = 2


class Killers:
    """Processes that kill daemons, each at one point after the other."""

    def __init__(self, tasks: list[tuple[str, int]]) -> None:
        self.results: dict[tuple[str, int], Future[dict[str, list[str]]]] = {task: Future() for task in tasks}
        self._tasks: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        for task in tasks:
            self._tasks.put(task)
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.integration.crash_rounds"],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(min(WORKERS, len(tasks)))
        ]
        for process in self._processes:
            threading.Thread(target=self._feed, args=(process,), daemon=True).start()

    def _feed(self, process: subprocess.Popen[str]) -> None:
        while True:
            try:
                name, rounds = task = self._tasks.get_nowait()
            except queue.Empty:
                return
            try:
                process.stdin.write(f"{name} {rounds}\n")
                process.stdin.flush()
                self.results[task].set_result(json.loads(process.stdout.readline()))
            except (OSError, ValueError) as error:
                self.results[task].set_exception(error)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def killers(request):
    """Begun for all points that were selected, so that the processors are never idle."""
    items = [item for item in request.session.items if getattr(item, "function", None) is test_killed]
    mine = [item.callspec.params for item in items]
    killers = Killers([(params["point"], params["rounds"]) for params in mine])
    yield killers
    killers.close()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("rounds", [20, pytest.param(1000, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("point", list(POINTS))
def test_killed(killers: Killers, point: str, rounds: int) -> None:
    assert killers.results[point, rounds].result() == {}


# -- the real program, killed at any time ------------------------------------------------------------------------

FAST_SWITCH_SECONDS = 0.02


@pytest.fixture
def home():
    """A folder whose sockets' paths are short enough."""
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        yield Path(folder)


def begin(home: Path) -> Daemon:
    daemon = Daemon(home, "mi300x:2", "--profile", "6.12")
    daemon.state.mkdir(parents=True)
    SimulatedNode(new_state("mi300x", 2, "6.12", switch_seconds=FAST_SWITCH_SECONDS), daemon.state / "sim.json")
    return daemon


def final_plan(daemon: Daemon, name: str) -> dict:
    """The plan when nothing more happens to it; {} if the daemon does not know it."""
    answer = ask(daemon.socket, f"/v1/plans/{name}")
    if answer.status == 404:
        return {}
    return list(lines(daemon.socket, f"/v1/plans/{name}?watch=1"))[-1]


def modes_of_hardware(daemon: Daemon) -> list[str]:
    state = restore((daemon.state / "sim.json").read_bytes())
    assert state.additions == []
    counts = {gpu.address: sum(node.address == gpu.address for node in state.nodes) for gpu in state.gpus}
    assert [counts[gpu.address] for gpu in state.gpus] == [partition_count(gpu.compute, 8) for gpu in state.gpus]
    assert [gpu.mode_file for gpu in state.gpus] == [gpu.compute for gpu in state.gpus]
    return [gpu.compute.value for gpu in state.gpus]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rounds", [20, pytest.param(1000, marks=pytest.mark.campaign)])
def test_the_program_killed_at_any_time(home: Path, rounds: int) -> None:
    dice = random.Random(rounds)  # the same times in every run
    daemon = begin(home)
    wanted = {"gpu0": "SPX", "gpu1": "SPX"}
    try:
        for number in range(rounds):
            daemon.start()
            name, before = f"round-{number}", list(wanted.values())
            asked = {
                gpu: dice.choice([mode for mode in ("SPX", "DPX", "QPX", "CPX") if mode != wanted[gpu]])
                for gpu in wanted
            }
            killer = threading.Timer(dice.uniform(0, 6 * FAST_SWITCH_SECONDS), os.kill, (daemon.pid, signal.SIGKILL))
            killer.start()
            acknowledged = False
            with contextlib.suppress(OSError, http.client.HTTPException):
                acknowledged = ask(daemon.socket, f"/v1/plans/{name}", "PUT", {"modes": asked}).status == 202
            killer.join()
            assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
            daemon.start()
            plan = final_plan(daemon, name)
            assert plan or not acknowledged, f"{name} was acknowledged and is lost"
            if plan:
                assert plan["state"] == "committed", plan
                wanted = asked
            shown = ask(daemon.socket, "/v1/gpus").json["gpus"]
            assert [gpu["compute_mode"] for gpu in shown] == list(wanted.values()), (number, before, asked)
            assert all(gpu["drift"] == [] and gpu["change"] is None for gpu in shown), shown
            assert modes_of_hardware(daemon) == list(wanted.values())
            assert daemon.stop() == 0
        names = [plan["name"] for plan in stored_plans(daemon)]
        assert len(names) == len(set(names))
    finally:
        daemon.close()


def stored_plans(daemon: Daemon) -> list[dict]:
    daemon.start()
    plans: list[dict] = ask(daemon.socket, "/v1/plans").json["plans"]
    return plans


# -- what is shown is durable --------------------------------------------------------------------------------------


class SlowLedger(DyingLedger):
    """Its commits of a state wait until they may go on."""

    def __init__(self, path: Path, step: str) -> None:
        super().__init__(SqliteLedger(path, 0.0), Moment("never"))
        self._step = step
        self.reached = threading.Event()
        self.may_go_on = threading.Event()

    def commit(self, write: LedgerWrite) -> None:
        if any(switch.state == self._step for change in write.changes for switch in change.switches):
            self.reached.set()
            assert self.may_go_on.wait(10)
        super().commit(write)


@pytest.mark.parametrize("step", ["planned", "switching", "committed"])
def test_a_state_is_shown_when_it_is_durable(tmp_path: Path, step: str) -> None:
    async def run() -> None:
        ledger = SlowLedger(tmp_path / "ledger.db", step)
        async with running_node(ledger=ledger) as node:
            waiting = asyncio.create_task(node.switch((0, "CPX"), name="mine"))
            assert await asyncio.to_thread(ledger.reached.wait, 10)
            await asyncio.sleep(0.05)
            shown = node.snapshot.change("mine")
            assert shown is None or shown.state != step
            assert step != "committed" or [len(status.gpu.partitions) for status in node.snapshot.gpus] == [1, 1]
            ledger.may_go_on.set()
            assert (await waiting).state == "committed"

    asyncio.run(run())
