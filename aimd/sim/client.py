"""Synchronous client of a simulated node's control socket, for tests and the `aimd sim` commands.

Standard library alone. The calling process is the one that joins: the node sees its pid through the socket.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from aimd.errors import InvalidInputError, UnreachableError

SOCKET_VARIABLE = "AIMD_SIM_SOCKET"
_ANSWER_SECONDS = 30.0


class SimClient:
    """A connection to a simulated node.

    Args:
        path: of the socket; by default what AIMD_SIM_SOCKET says.
        environ: where that variable is looked up.

    All methods raise OSError with the errno of the answer if the node refuses, and UnreachableError if nobody answers.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ) -> None:
        chosen = path or environ.get(SOCKET_VARIABLE)
        if not chosen:
            raise InvalidInputError(
                "the simulated node's socket is not named, expected a path or AIMD_SIM_SOCKET",
                code="socket_unknown",
                hint="set AIMD_SIM_SOCKET to the sim.sock of the daemon or of the mount",
            )
        self.path = os.fspath(chosen)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(self.path)  # without a timeout: it would be EAGAIN while the backlog is full
        except OSError as cause:
            self._socket.close()
            raise UnreachableError(
                f"simulated node {self.path} does not answer ({cause.strerror or cause}), expected its control socket",
                hint="start one with `aimd run --simulate mi300x:8` or `aimd sim mount DIR`",
            ) from cause
        self._socket.settimeout(_ANSWER_SECONDS)
        self._lines = self._socket.makefile("rb")

    def join(self, gpus: Sequence[str] | None = None) -> None:
        """Become a KFD client of these GPUs (`gpu0` or PCI address; None = all) until this process dies."""
        self.request("join", gpus=None if gpus is None else list(gpus))

    def use(self, gpu_id: int, vram: int) -> None:
        """Have `vram` bytes allocated on the partition; this process must have joined."""
        self.request("use", gpu_id=gpu_id, vram=vram)

    def devices(self) -> list[dict[str, Any]]:
        """The partitions that this process, which must have joined, may use (sim.memory.SimDevice as JSON)."""
        found: list[dict[str, Any]] = self.request("devices")["devices"]
        return found

    def gpu_id(self, partition: str) -> int:
        """KFD's gpu_id of a partition named as a lease names it, `0000:05:00.0/3`; this process must have joined.

        Raises:
            InvalidInputError: this process may use no such partition.
        """
        gpu, _, index = partition.partition("/")
        wanted = f"{gpu[:-1]}{index}"  # the function of a bus id is the partition's index
        for device in self.devices():
            if device["bus_id"] == wanted:
                found: int = device["gpu_id"]
                return found
        raise InvalidInputError(
            f"partition {partition} is none that this process may use, expected one like 0000:05:00.0/0"
        )

    def compute(self, gpu_id: int, share: float) -> None:
        """From now on keep the partition busy for this share of the time, 0 to 1, until said otherwise or dead."""
        self.request("compute", gpu_id=gpu_id, share=share)

    def fault(self, kind: str, gpu: str | None = None, *, remaining: int | None = 1, seconds: float = 0.0) -> None:
        """Arm a fault (kinds: sim.state.FaultKind) `remaining` times, None = until cleared."""
        self.request("fault", kind=kind, gpu=gpu, remaining=remaining, seconds=seconds)

    def clear_faults(self) -> None:
        self.request("clear-faults")

    def reload(self) -> None:
        """Unload and load the driver module; EBUSY while there are KFD clients."""
        self.request("reload")

    def reboot(self) -> None:
        self.request("reboot")

    def status(self) -> dict[str, Any]:
        """The state of the node (sim.state.SimState as JSON)."""
        state: dict[str, Any] = self.request("status")["state"]
        return state

    def request(self, operation: str, **fields: object) -> dict[str, Any]:
        """Send one request and return its answer, for requests that have no method here."""
        try:
            self._socket.sendall(json.dumps({"op": operation, **fields}).encode() + b"\n")
            line = self._lines.readline()
        except OSError as cause:
            raise UnreachableError(
                f"simulated node {self.path} did not answer {operation} ({cause.strerror or cause}), expected an answer "
                f"within {_ANSWER_SECONDS:g} s"
            ) from cause
        if not line:
            raise UnreachableError(f"simulated node {self.path} has closed the connection, expected an answer")
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise OSError(answer["errno"], answer["error"])
        return answer

    def close(self) -> None:
        """Close the connection; a process that joined stays a client."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> SimClient:  # noqa: PYI034 -- typing.Self is of Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
