"""Work that goes on as long as the daemon does: a defect ends one attempt, not the work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

PAUSE_SECONDS = (1.0, 60.0)  # after an attempt that has failed, and after many
DOUBLINGS = 6


async def keep_turning(
    run: Callable[[], Awaitable[None]], log: logging.Logger, what: str, failed: Callable[[], None] = lambda: None
) -> None:
    """Run it until cancelled; what ends by an error, perhaps over an object that nobody thought of, begins again later.

    Args:
        run: never returns by itself.
        what: of the work, for the log: "a turn in the cluster".
        failed: is called after each failure.
    """
    in_a_row = 0
    while True:
        began = time.monotonic()
        turning = asyncio.ensure_future(run())
        try:
            await asyncio.wait({turning})
        finally:
            turning.cancel()
            await asyncio.gather(turning, return_exceptions=True)
        first, longest = PAUSE_SECONDS
        in_a_row = 0 if time.monotonic() - began >= longest else in_a_row
        pause = min(longest, first * 2.0**in_a_row)
        in_a_row = min(in_a_row + 1, DOUBLINGS)
        failed()
        words = "%s has failed, the next is in %.0f s; what is placed goes on"
        log.error(words, what, pause, exc_info=turning.exception())
        await asyncio.sleep(pause)


@contextlib.asynccontextmanager
async def turning(
    run: Callable[[], Awaitable[None]], log: logging.Logger, what: str, failed: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    """The same beside what the context does, ended with it."""
    task = asyncio.create_task(keep_turning(run, log, what, failed))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
