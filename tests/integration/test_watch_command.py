"""`aimctl watch` over a restart of the daemon: what happened before, meanwhile and after it is told once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import final

from aimd.sim.node import SimulatedNode
from tests.fakes.claims import spec
from tests.fakes.node import fast_state
from tests.fakes.served import Served, served

ROOT = Path(__file__).parents[2]
SECONDS = 30.0


@final
class Watcher:
    """`aimctl watch` as a process; its lines are kept in files."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.socket, self._out, self._err = home / "socket", home / "out", home / "err"
        self._command = [sys.executable, "-m", "aimd.ctl", "--socket", str(self.socket), "watch", *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(self._command, env=environment, stdout=out, stderr=err)

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def until(self, condition) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, (self.out, self.err)
            time.sleep(0.02)

    def interrupt(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> int:
        assert self._process is not None
        return self._process.wait(SECONDS)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def daemon_at(socket: Path, sim: SimulatedNode, ledger: Path) -> Iterator[Served]:
    """A life of the daemon, reached at one path whatever its own socket is called."""
    with served(sim=sim, directory=ledger) as daemon:
        socket.unlink(missing_ok=True)
        socket.symlink_to(daemon.socket)
        yield daemon


def test_changes_are_told_once_over_a_restart(tmp_path: Path) -> None:
    sim = SimulatedNode(fast_state())
    with Watcher(tmp_path, "-o", "json") as watcher:
        tell_over_a_restart(sim, watcher, tmp_path)


def tell_over_a_restart(sim: SimulatedNode, watcher: Watcher, tmp_path: Path) -> None:
    def kinds() -> set[str]:
        return {json.loads(line)["kind"] for line in watcher.out.splitlines(keepends=True) if line.endswith("\n")}

    def seen(kind: str, name: str) -> list[str]:
        lines = [json.loads(line) for line in watcher.out.splitlines(keepends=True) if line.endswith("\n")]
        key = "subject" if kind == "event" else "name"
        told = [line for line in lines if line["kind"] == kind and line["object"][key] == name]
        return [line["object"]["kind"] if kind == "event" else line["type"] for line in told]

    with daemon_at(watcher.socket, sim, tmp_path) as daemon:
        daemon.run(daemon.node.loop.claim("before", spec(1), uid=0))
        watcher.start()
        number = 0
        while not (
            "claim" in kinds() and "event" in kinds()
        ):  # it says nothing when it has begun: something happens until it tells of it
            number += 1
            daemon.run(daemon.node.loop.claim(f"probe-{number}", spec(1), uid=0))
            time.sleep(0.2)
        daemon.run(daemon.node.loop.claim("llama", spec(24, "CPX"), uid=0))
        watcher.until(lambda: seen("event", "llama") == ["claim_placed"] and "ADDED" in seen("claim", "llama"))
    watcher.until(lambda: "aimd is gone" in watcher.err)
    with daemon_at(watcher.socket, sim, tmp_path) as daemon:
        daemon.run(daemon.node.loop.release("llama"))
        watcher.until(lambda: "aimd is there again" in watcher.err)
        watcher.until(lambda: "DELETED" in seen("claim", "llama") and "claim_released" in seen("event", "llama"))
        daemon.run(daemon.node.loop.claim("after", spec(1), uid=0))
        watcher.until(lambda: seen("claim", "after") and seen("event", "after"))
        assert watcher.interrupt() == 130
    assert (seen("claim", "before"), seen("event", "before")) == ([], [])
    assert seen("event", "llama") == ["claim_placed", "claim_released"]
    assert [seen("claim", "llama")[0], seen("claim", "llama")[-1]] == ["ADDED", "DELETED"]
    assert seen("claim", "after") == ["ADDED"]
    assert watcher.err.splitlines() == [
        "aimd is gone; its changes are told when it is there again",
        "aimd is there again",
    ]


def test_without_a_daemon_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    with Watcher(tmp_path) as watcher:
        watcher.start()
        assert watcher.ended() == 3
        assert watcher.err.startswith("error: no aimd answers")
