"""The real programs as processes: `aimd run` on a simulated node in directories of its own, and what speaks to it."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.integration.unix_http import ask

ROOT = Path(__file__).parents[2]
AIMD = (sys.executable, "-m", "aimd")
AIMCTL = (sys.executable, "-m", "aimd.ctl")
SECONDS = 30


class Daemon:
    """`aimd run --simulate` with its runtime and state directories in `home`, as a user without root finds them.

    Args:
        home: what HOME and, with `run` in it, XDG_RUNTIME_DIR are set to.
        node: MODEL:N of the simulated node.
        options: further ones of `aimd run`.
        within: a command that runs it, and becomes it, elsewhere.
    """

    def __init__(self, home: Path, node: str = "mi300x:8", *options: str, within: Sequence[str] = ()) -> None:
        self.runtime, self.state = home / "run" / "aimd", home / "state" / "aimd"
        self.socket = self.runtime / "aimd.sock"
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(home),
            "AIMD_SOCKET": str(self.socket),
            "AIMD_SIM_SOCKET": str(self.runtime / "sim.sock"),
        }
        directories = ("--runtime-dir", str(self.runtime), "--state-dir", str(self.state))
        self._command = [*within, *AIMD, "run", "--simulate", node, *directories, *options]
        self._log = home / "daemon.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start, wait until it is ready, and return its line that says so."""
        with self._log.open("ab") as log:
            began = log.tell()
            self._process = subprocess.Popen(self._command, env=self.environment, stderr=log)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            told = self._log.read_bytes()[began:].decode()
            ready = [line for line in told.splitlines(keepends=True) if line.startswith("aimd is ready:")]
            if ready and ready[0].endswith("\n"):
                return ready[0].strip()
            assert self._process.poll() is None, told
            time.sleep(0.01)
        raise AssertionError(f"not ready within {SECONDS} s: {told}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal and return the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(SECONDS)
        self._process = None
        return code

    def close(self) -> None:
        if self._process is not None:
            self.stop(signal.SIGKILL)

    def aimctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(*AIMCTL, *arguments)

    def aimd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(*AIMD, *arguments)

    def get(self, *what: str) -> Any:
        """An answer of the API, asked without aimctl, which takes its time to start."""
        answer = ask(self.socket, "/v1/" + "/".join(what))
        assert answer.status == 200, answer
        return answer.json

    def modes(self) -> list[str]:
        return [f"{gpu['compute_mode']}/{gpu['memory_mode']}" for gpu in self.get("gpus")["gpus"]]

    def hold(self, *arguments: str) -> subprocess.Popen[str]:
        """`aimd sim hold`, once it is a KFD client; `arguments` may name GPUs and a command."""
        process = subprocess.Popen(
            [*AIMD, "sim", "hold", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            assert selector.select(SECONDS), "aimd sim hold says nothing"
        line = process.stdout.readline()
        assert "is a KFD client" in line, line
        return process

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=SECONDS * 2)
