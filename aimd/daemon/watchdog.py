"""The watchdog: the service manager hears that the daemon lives only while both of its paths turn."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger("aimd")

LOOKS = 4  # within the manager's period
PEEK_SECONDS = 0.02  # between two looks whether a beat that was asked for has come
COMPLAIN_SECONDS = 1.0  # so late a beat is in the log


class Path(Protocol):
    """Something that has to turn: `ask_beat` waits for nothing, `beats` moves when it has turned since."""

    @property
    def beats(self) -> float: ...

    def ask_beat(self) -> None: ...


class Watchdog:
    """Asks all paths for a beat, and feeds by `alive` as soon as every one of them has turned since it was asked.

    Args:
        paths: by the name that the log gives them.
        seconds: after which the manager gives the daemon up.
        alive: tells the manager.
    """

    def __init__(self, paths: dict[str, Path], seconds: float, alive: Callable[[], None]) -> None:
        self._paths = paths
        self._pause = seconds / LOOKS
        self._alive = alive

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._turned()
            self._alive()
            await asyncio.sleep(self._pause)

    async def _turned(self) -> None:
        seen = {name: path.beats for name, path in self._paths.items()}
        for path in self._paths.values():
            path.ask_beat()
        complain_at = time.monotonic() + COMPLAIN_SECONDS
        while True:
            hanging = [name for name, path in self._paths.items() if path.beats == seen[name]]
            if not hanging:
                return
            if time.monotonic() >= complain_at:
                complain_at = float("inf")
                for name in hanging:
                    log.error("the %s does not turn: the watchdog is not fed until it does", name)
            await asyncio.sleep(PEEK_SECONDS)
