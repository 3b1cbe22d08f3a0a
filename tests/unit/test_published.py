"""What is published: the last value, and who waits for a newer one gets it at once."""

import asyncio
import time

from aimd.daemon.published import Published


def test_the_first_is_there_and_a_newer_one_wakes_all_who_wait():
    async def follow():
        shown = Published(5, lambda number: number)
        assert await shown.newer(4, 10) == 5
        waiting = [asyncio.create_task(shown.newer(number, 10)) for number in (5, 6)]
        await asyncio.sleep(0)
        shown.publish(6)
        assert await waiting[0] == 6
        assert not waiting[1].done(), "6 is not above 6"
        shown.publish(9)
        assert await waiting[1] == shown.latest() == 9

    asyncio.run(follow())


def test_a_wait_without_an_end_gives_the_present_value():
    async def wait():
        shown = Published(5, lambda number: number)
        began = time.monotonic()
        assert await shown.newer(5, 0.05) == 5
        assert time.monotonic() - began >= 0.04

    asyncio.run(wait())


def test_who_is_cancelled_in_the_moment_of_a_newer_value_is_cancelled():
    """Else a task that follows for ever cannot be ended, and the daemon with it: see the comment in newer()."""

    async def run():
        values = Published(0, lambda value: value)
        seen = []

        async def follow():
            while True:
                seen.append(await values.newer(seen[-1] if seen else 0, 60))

        for number in range(1, 6):
            task = asyncio.create_task(follow())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            values.publish(number)
            for _ in range(number):  # as far as the news may have come by then
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task}, timeout=2)
            assert task.cancelled()

    asyncio.run(run())
