"""A source of traffic for the API: boards that a test puts there."""

from __future__ import annotations

import asyncio
import contextlib

from aimd.domain.traffic import TrafficBoard


class ShownTraffic:
    """ports.TrafficSource; `show` publishes a board, from the loop's thread."""

    def __init__(self, board: TrafficBoard | None = None) -> None:
        self.board = board
        self.asked: list[int] = []  # numbers of the boards that newer ones were asked for
        self._shown = asyncio.Condition()

    async def show(self, board: TrafficBoard) -> None:
        async with self._shown:
            self.board = board
            self._shown.notify_all()

    async def newer(self, number: int, timeout: float) -> TrafficBoard | None:
        self.asked.append(number)

        async def wait() -> None:
            async with self._shown:
                await self._shown.wait_for(lambda: self.board is not None and self.board.number > number)

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(wait(), timeout)
        return self.board
