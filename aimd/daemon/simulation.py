"""The simulated node inside the daemon's process: its files, its driver events and its control socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from aimd.ports import DriverEvent
from aimd.rundirs import RunDirectories
from aimd.sim.client import SOCKET_VARIABLE
from aimd.sim.control import serve
from aimd.sim.node import SimulatedNode
from aimd.sim.spec import SOCKET_FILE, STATE_FILE, open_node, parse_spec


def environment_of(paths: RunDirectories) -> dict[str, str]:
    """What tells a process's stand-in for libamdhip64 where the simulated node is."""
    return {SOCKET_VARIABLE: str(Path(paths.runtime) / SOCKET_FILE)}


class Simulation:
    """ports.DriverEvents of a simulated node that runs here; `node` is its ports.Sysfs."""

    def __init__(self, node: SimulatedNode) -> None:
        self.node = node
        self._events: asyncio.Queue[DriverEvent | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def heard(kind: str, address: str | None) -> None:
            loop.call_soon_threadsafe(self._events.put_nowait, DriverEvent(kind, address))

        node.listen(heard)

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, spec: str, profile: str, paths: RunDirectories) -> AsyncIterator[Simulation]:
        """The node of the state directory, or a new one; its control socket is served meanwhile."""
        simulation = cls(open_node(parse_spec(spec, profile), Path(paths.state) / STATE_FILE))
        server = await serve(simulation.node, Path(paths.runtime) / SOCKET_FILE)
        try:
            yield simulation
        finally:
            await server.close()
            await simulation.close()

    async def __aiter__(self) -> AsyncIterator[DriverEvent]:
        while (event := await self._events.get()) is not None:
            yield event

    async def close(self) -> None:
        self._events.put_nowait(None)
