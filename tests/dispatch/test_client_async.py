"""The asyncio client against a daemon."""

import asyncio
import time

import pytest

from aimd.dispatch import Class, End
from aimd.dispatch.client import (
    AsyncClient,
    ClientClosedError,
    DispatchUnreachableError,
    ExpiredError,
    LeaseLostError,
    UnknownModelError,
    WouldBlockError,
)


async def eventually(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "it did not happen"
        await asyncio.sleep(0.002)
    return value


def with_client(daemon, scenario, **options):
    async def main():
        async with AsyncClient(daemon.path, **options) as client:
            await asyncio.wait_for(scenario(client), 30)

    asyncio.run(main())


def test_a_lease_for_a_block(daemon):
    async def scenario(client):
        async with client.lease("llama", timeout=0.5, klass="low") as lease:
            assert daemon.running() == [lease.id]
            assert (lease.partition, lease.klass) == ("0000:05:00.0/0", Class.LOW)
            assert await lease.renew() > 599
        await eventually(lambda: daemon.running() == [])
        with pytest.raises(LeaseLostError):
            await lease.renew()
        with pytest.raises(KeyError):
            async with client.lease("llama"):
                raise KeyError
        await eventually(lambda: daemon.model().ends[Class.MEDIUM][End.FAILED] == 1)

    with_client(daemon, scenario)


def test_errors(daemon):
    async def scenario(client):
        with pytest.raises(UnknownModelError):
            await client.acquire("mistral")
        await client.acquire_many("llama", 2)
        with pytest.raises(WouldBlockError):
            await client.acquire("llama", no_wait=True)
        start = time.monotonic()
        with pytest.raises(ExpiredError):
            await client.acquire("llama", timeout=0.1)
        assert time.monotonic() - start < 1

    with_client(daemon, scenario)


def test_many_tasks(daemon):
    async def scenario(client):
        async def work():
            for _ in range(10):
                async with client.lease("llama", timeout=20):
                    await asyncio.sleep(0)

        await asyncio.gather(*(work() for _ in range(50)))
        await eventually(lambda: daemon.running() == [])
        assert daemon.connections == 1

    with_client(daemon, scenario)


def test_a_cancelled_task_cancels_its_request(daemon):
    async def scenario(client):
        leases = await client.acquire_many("llama", 2)
        task = asyncio.create_task(client.acquire("llama"))
        await eventually(daemon.waiting)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: daemon.waiting() == 0)
        for lease in leases:
            lease.release()
        await eventually(lambda: daemon.running() == [])

    with_client(daemon, scenario)


def test_a_grant_that_is_faster_than_the_cancel_is_released(daemon):
    async def scenario(client):
        (await client.acquire("llama")).release()
        await eventually(lambda: daemon.running() == [])
        for turns in range(6):  # cancelled before and after the grant was read, and before the task saw it
            task = asyncio.create_task(client.acquire("llama"))
            await asyncio.sleep(0)
            time.sleep(0.02)  # noqa: ASYNC251 - the loop must not read the answer that is there
            assert len(daemon.running()) == 1
            for _ in range(turns):
                await asyncio.sleep(0)
            if task.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                task.result().release()
            await eventually(lambda: daemon.running() == [])

    with_client(daemon, scenario)


def test_a_cancelled_block_releases_as_failed(daemon):
    async def scenario(client):
        async def hold():
            async with client.lease("llama"):
                await asyncio.sleep(60)

        task = asyncio.create_task(hold())
        await eventually(daemon.running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: daemon.model().ends[Class.MEDIUM][End.FAILED] == 1)

    with_client(daemon, scenario)


def test_outages(daemon):
    async def scenario(client):
        held = await client.acquire_many("llama", 2)
        waiting = client.submit("llama", timeout=20)
        await eventually(daemon.waiting)
        for _ in range(3):
            await asyncio.to_thread(daemon.restart, 0.02)
            await eventually(lambda: len(daemon.asked("adopt")) == 2)
            await eventually(daemon.waiting)
            daemon.frames.clear()
        held[0].release()
        lease = await waiting
        assert sorted(daemon.running()) == sorted([held[1].id, lease.id])
        await asyncio.to_thread(daemon.kill)
        lease.release()
        with pytest.raises(DispatchUnreachableError, match=r"dispatch\.sock could not be reached"):
            await client.acquire("llama", timeout=0.2)
        with pytest.raises(DispatchUnreachableError):
            await client.acquire("llama")
        daemon.start()
        await eventually(lambda: daemon.running() == [held[1].id])

    with_client(daemon, scenario, patience=0.2)


def test_a_taken_lease_and_a_renewed_one(make_daemon):
    daemon = make_daemon(lease_ns=200_000_000)

    async def scenario(client):
        async with client.lease("llama", renew=True) as kept, client.lease("llama") as lost:
            await asyncio.sleep(0.5)
            assert (kept.lost, lost.lost) == (False, True)

    with_client(daemon, scenario)


def test_close(daemon):
    async def scenario(client):
        await client.acquire_many("llama", 2)
        waiting = asyncio.create_task(client.acquire("llama"))
        await eventually(daemon.waiting)
        await client.close()
        with pytest.raises(ClientClosedError):
            await waiting
        with pytest.raises(ClientClosedError):
            await client.acquire("llama")
        await eventually(lambda: daemon.waiting() == 0)

    with_client(daemon, scenario)


def test_what_was_released_is_known_to_the_daemon_after_close(daemon):
    async def scenario(client):
        (await client.acquire("llama")).release()

    for _ in range(20):
        with_client(daemon, scenario)
        assert daemon.running() == []


def test_more_than_the_socket_takes_at_once(daemon):
    async def scenario(client):
        (await client.acquire("llama")).release()
        daemon.stall()
        pending = [client.submit("mistral" if n % 2 else "llama", timeout=30) for n in range(20_000)]
        daemon.resume()
        for each in pending:
            each.cancel()
        (await client.acquire("llama", timeout=30)).release()

    with_client(daemon, scenario)
