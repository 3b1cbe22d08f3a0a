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
