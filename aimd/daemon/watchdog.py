"""The watchdog: the service manager hears that the daemon lives only while both of its paths turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger("aimd")

LOOKS = 4  # within the manager's period: a beat is asked for at one and has come by the next


class Path(Protocol):
    """Something that has to turn: `ask_beat` waits for nothing, `beats` moves when it has turned since."""

    @property
    def beats(self) -> float: ...

    def ask_beat(self) -> None: ...


class Watchdog:
    """Feeds by `alive` when every path has turned since it was fed last.

    Args:
        paths: by the name that the log gives them.
        seconds: after which the manager gives the daemon up.
        alive: tells the manager.
    """

    def __init__(self, paths: dict[str, Path], seconds: float, alive: Callable[[], None]) -> None:
        self._paths = paths
        self._pause = seconds / LOOKS
        self._alive = alive
        self._seen: dict[str, float] = {}
        self._told: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        self._alive()
        while True:
            self._seen = {name: path.beats for name, path in self._paths.items()}
            await self._fed()
            self._alive()
            self._told.clear()

    async def _fed(self) -> None:
        while True:
            for path in self._paths.values():
                path.ask_beat()
            await asyncio.sleep(self._pause)
            hanging = [name for name, path in self._paths.items() if path.beats == self._seen[name]]
            if not hanging:
                return
            for name in hanging:
                if name not in self._told:
                    log.error("the %s has not turned for %.1f s: the watchdog is not fed", name, self._pause)
            self._told.update(hanging)
