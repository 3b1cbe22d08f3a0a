"""Programs that a test cluster is made of: started with a log, ended by their number."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

SECONDS_TO_END = 10
SHOWN = 4000  # characters of a log


class Program:
    """One running program. It does not outlive the thread that started it, which has to be the session's main one."""

    def __init__(self, name: str, command: list[object], log: Path, environ: dict[str, str] | None = None) -> None:
        self.name = name
        self._log = log
        tied = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*tied, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environ,
                start_new_session=True,  # an interrupt of the run is not theirs
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def runs(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        """The end of what it has written."""
        return self._log.read_text(errors="replace")[-SHOWN:]

    def complaint(self, what: str) -> str:
        state = "runs" if self.runs() else f"ended with {self._process.returncode}"
        return f"{what}; {self.name} {state}, its log ends:\n{self.log()}"

    def resident(self) -> int:
        """Bytes of memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Asked first, killed if that takes too long."""
        self._process.terminate()
        try:
            self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.kill()


def free_ports(number: int) -> list[int]:
    """Of 127.0.0.1; all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
