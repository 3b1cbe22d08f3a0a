"""The control socket in a thread of its own, for a process whose main thread belongs to libfuse."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from aimd.sim.control import ControlServer, serve
from aimd.sim.node import SimulatedNode


class ControlThread:
    """Context in which the node's control socket is served; entering raises what `control.serve` raises."""

    def __init__(self, node: SimulatedNode, path: Path) -> None:
        self._node = node
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sim-control-loop", daemon=True)
        self._server: ControlServer | None = None

    def __enter__(self) -> ControlThread:  # noqa: PYI034 -- typing.Self is of Python 3.11
        self._thread.start()
        serving: Future[ControlServer] = asyncio.run_coroutine_threadsafe(serve(self._node, self._path), self._loop)
        try:
            self._server = serving.result()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result()
        self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
