"""A value that one writes and many follow: the last one, and a wait for a newer. For one event loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Published(Generic[Value]):
    """The value published last.

    Args:
        first: the value before any was published.
        number: of a value; a newer one has a larger number.
    """

    def __init__(self, first: Value, number: Callable[[Value], int]) -> None:
        self._value = first
        self._number = number
        self._moved = asyncio.Event()

    def latest(self) -> Value:
        return self._value

    def publish(self, value: Value) -> None:
        self._value = value
        self._moved.set()
        self._moved = asyncio.Event()

    async def newer(self, number: int, timeout: float) -> Value:
        """The first value above the number, or the present one when the timeout (seconds) has passed."""
        above = asyncio.ensure_future(self._above(number))
        try:
            # wait_for() of Python up to 3.11 forgets to be cancelled if what it waits for ends in the same moment
            await asyncio.wait({above}, timeout=timeout)
        finally:
            above.cancel()
        return self._value

    async def _above(self, number: int) -> None:
        while self._number(self._value) <= number:
            await self._moved.wait()
