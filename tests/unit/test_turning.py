"""Work that goes on: what one attempt ends by is said, and the next one comes."""

from __future__ import annotations

import asyncio
import logging

import pytest

from aimd.daemon import turning
from aimd.daemon.turning import keep_turning

LOG = logging.getLogger("aimd.test")


def test_an_attempt_that_fails_is_told_and_followed_by_the_next_later_and_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun: list[float] = []
    enough = asyncio.Event()
    failures: list[int] = []

    async def run() -> None:
        begun.append(asyncio.get_running_loop().time())
        if len(begun) < 3:
            raise KeyError("nobody thought of it")
        enough.set()
        await asyncio.sleep(60)

    async def story() -> None:
        async with turning.turning(run, LOG, "the work", lambda: failures.append(1)):
            await asyncio.wait_for(enough.wait(), 30)

    asyncio.run(story())
    first, second, third = begun
    assert (second - first, third - second) == (pytest.approx(1, abs=0.9), pytest.approx(2, abs=0.9))
    assert len(failures) == 2
    assert [record.message for record in caplog.records] == [
        "the work has failed, the next is in 1 s; what is placed goes on",
        "the work has failed, the next is in 2 s; what is placed goes on",
    ]
    assert all(record.exc_info for record in caplog.records)


def test_it_ends_with_what_it_is_beside() -> None:
    ended: list[bool] = []

    async def run() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def story() -> None:
        task = asyncio.create_task(keep_turning(run, LOG, "the work"))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
    assert ended == [True]
