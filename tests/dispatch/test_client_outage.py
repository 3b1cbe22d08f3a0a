"""Clients while the daemon is away, restarts, stalls; and after a fork."""

import asyncio
import os
import threading
import time

import pytest

from aimd.dispatch import Class, End
from aimd.dispatch.client import AsyncClient, Client, DispatchUnreachableError, ExpiredError, LeaseLostError
from tests.dispatch.test_client import eventually


def test_a_daemon_that_never_comes(make_daemon):
    daemon = make_daemon(start=False)
    with Client(daemon.path) as client:
        start = time.monotonic()
        with pytest.raises(DispatchUnreachableError) as unreachable:
            client.acquire("llama", timeout=0.3)
        assert 0.29 < time.monotonic() - start < 0.6
    assert daemon.path in unreachable.value.message
    assert "No such file" in unreachable.value.message
    assert "start aimd" in unreachable.value.hint
    with Client(daemon.path, patience=0.1) as client, pytest.raises(DispatchUnreachableError):
        client.acquire("llama")


def test_a_request_without_a_wait_of_its_own_is_patient_but_not_if_it_would_not_queue(make_daemon):
    daemon = make_daemon(start=False)
    with Client(daemon.path, patience=20) as client:
        start = time.monotonic()
        with pytest.raises(DispatchUnreachableError):
            client.acquire("llama", no_wait=True)
        assert 0.9 < time.monotonic() - start < 2


def test_a_daemon_that_comes_in_time(make_daemon):
    daemon = make_daemon(start=False)
    with Client(daemon.path) as client:
        threading.Timer(0.2, daemon.start).start()
        with client.lease("llama", timeout=5) as lease:
            assert lease.remaining() > 0
    wait = daemon.asked("acquire")[0]["wait_ns"]
    assert 3_000_000_000 < wait < 4_810_000_000


def test_leases_and_requests_outlive_restarts(daemon):
    with Client(daemon.path) as client:
        held = client.acquire_many("llama", 2, timeout=1)
        pending = client.submit("llama", timeout=20)
        eventually(daemon.waiting)
        for _ in range(3):
            daemon.restart(pause=0.02)
            eventually(lambda: {fields["lease"] for fields in daemon.asked("adopt")} == {each.id for each in held})
            eventually(daemon.waiting)
            daemon.frames.clear()
        assert [lease.lost for lease in held] == [False, False]
        held[0].release()
        lease = pending.result()
        assert sorted(daemon.running()) == sorted([held[1].id, lease.id])


def test_an_idle_holder_adopts_though_nobody_reads(daemon):
    with Client(daemon.path) as client, client.lease("llama") as lease:
        daemon.restart(pause=0.1)
        eventually(lambda: daemon.asked("adopt"), 2)
        assert lease.renew() > 599


def test_the_end_of_the_connection_is_seen_at_once(daemon):
    """By the keeper, which would otherwise look in a quarter of a second later."""
    delays = []
    with Client(daemon.path) as client, client.lease("llama"):
        for number in range(1, 4):
            time.sleep(0.05)
            start = time.monotonic()
            daemon.drop_connections()
            eventually(lambda number=number: len(daemon.asked("adopt")) == number, 2)
            delays.append(time.monotonic() - start)
    assert sorted(delays)[1] < 0.08


def test_a_lease_that_the_new_daemon_does_not_know_is_lost(daemon):
    with Client(daemon.path) as client, client.lease("llama") as lease:
        daemon.kill()
        daemon.kept = ()
        daemon.start()
        eventually(lambda: lease.lost, 2)
        with pytest.raises(LeaseLostError):
            lease.renew()


def test_a_renewal_waits_for_the_daemon(daemon):
    with Client(daemon.path) as client, client.lease("llama") as lease:
        daemon.kill()
        threading.Timer(0.2, daemon.start).start()
        assert lease.renew() > 599
        assert lease.remaining() > 599


def test_a_release_during_an_outage_is_said_later(daemon):
    with Client(daemon.path) as client:
        lease = client.acquire("llama")
        daemon.kill()
        lease.release(ok=False)
        daemon.start()
        eventually(lambda: daemon.running() == [], 2)
        assert daemon.asked("adopt") == []
        assert daemon.model().ends[Class.MEDIUM][End.FAILED] == 1


def test_a_release_that_was_sent_to_a_dying_daemon_is_said_again(daemon):
    with Client(daemon.path) as client:
        lease = client.acquire("llama")
        daemon.stall()
        lease.release()
        daemon.restart()
        eventually(lambda: daemon.running() == [], 2)
        client.acquire("llama").release()
        eventually(lambda: len(daemon.asked("release")) == 2)


def test_nothing_is_said_again_that_was_confirmed(daemon):
    with Client(daemon.path) as client:
        client.acquire("llama").release()
        client.acquire("llama").release()
        eventually(lambda: len(daemon.asked("release")) == 2)
        client.acquire("llama").release()  # reads the confirmations
        daemon.restart()
        daemon.frames.clear()
        client.acquire("llama").release()
        assert len(daemon.asked("release")) <= 1 + 1  # the third one's confirmation may not have been read


def test_an_outage_longer_than_the_wait(daemon):
    with Client(daemon.path, patience=0.3) as client:
        client.acquire_many("llama", 2)
        short, long = client.submit("llama", timeout=0.2), client.submit("llama")
        eventually(lambda: daemon.waiting() == 2)
        daemon.kill()
        start = time.monotonic()
        with pytest.raises(DispatchUnreachableError):
            short.result()
        with pytest.raises(DispatchUnreachableError):
            long.result()
        assert time.monotonic() - start < 1.5


def test_a_stalled_daemon_is_told_from_a_full_one(daemon):
    with Client(daemon.path) as client:
        client.acquire("llama").release()
        daemon.stall()
        start = time.monotonic()
        with pytest.raises(DispatchUnreachableError, match="did not answer in time"):
            client.acquire("llama", timeout=0.1)
        assert 1.0 < time.monotonic() - start < 2.0
        daemon.resume()
        client.acquire("llama", timeout=1)
        eventually(lambda: len(daemon.running()) == 1)  # what was granted too late was given back


def test_a_daemon_that_stalls_briefly_is_waited_for(daemon):
    with Client(daemon.path) as client:
        client.acquire_many("llama", 2)
        daemon.stall()
        threading.Timer(0.3, daemon.resume).start()
        with pytest.raises(ExpiredError):
            client.acquire("llama", timeout=0.1)


def test_a_connection_that_the_daemon_drops_is_made_anew(daemon):
    with Client(daemon.path) as client:
        held = client.acquire("llama")
        for error in (None, 10, 8):
            daemon.drop_connections(error)
            client.acquire("llama", timeout=2).release()
        assert daemon.connections == 4
        assert not held.lost


def test_threads_through_restarts(daemon):
    """Requests wait instead of failing, and no slot is leaked."""
    stop, mistakes, done = threading.Event(), [], []
    with Client(daemon.path) as client:

        def work():
            while not stop.is_set():
                try:
                    with client.lease("llama", timeout=20):
                        time.sleep(0.001)
                    done.append(1)
                except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                    mistakes.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(8):
            time.sleep(0.1)
            before = len(done)
            daemon.restart(pause=0.02)
            eventually(lambda before=before: len(done) > before + 3)
        stop.set()
        for thread in threads:
            thread.join(10)
    assert mistakes == []
    # A grant that was on its way when the daemon died is unknown to the client; it ends as lost after the orphan grace.
    assert len(daemon.running()) <= 2


def child_after_fork(work):
    """Exit code of a child that runs `work` and must not do anything of pytest."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def test_a_child_has_its_own_connection_and_not_its_parents_leases(daemon):
    with Client(daemon.path) as client:
        held = client.acquire("llama")
        pending = client.submit("llama")

        def work():
            held.release()
            pending.cancel()
            with pytest.raises(LeaseLostError):
                held.renew()
            with pytest.raises(LeaseLostError):
                pending.result()
            try:
                client.acquire("llama", timeout=0.1)
            except ExpiredError:
                return
            raise AssertionError

        assert child_after_fork(work) == 0
        assert daemon.connections == 2
        assert daemon.asked("release") == daemon.asked("cancel") == []
        second = pending.result()
        assert sorted(daemon.running()) == sorted([held.id, second.id])
        assert held.renew() > 599
        second.release()
        assert child_after_fork(lambda: client.acquire("llama", timeout=1).release()) == 0
        with client.lease("llama", timeout=1):
            assert daemon.connections == 3


def test_a_fork_while_threads_are_at_work(daemon):
    """Locks of the parent that are held in that moment do not stop the child."""
    stop = threading.Event()
    with Client(daemon.path) as client:

        def work():
            while not stop.is_set():
                client.acquire("llama", timeout=20).release()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):
                assert child_after_fork(lambda: client.acquire("llama", timeout=20).release()) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join(10)


def test_a_child_of_an_event_loop(daemon):
    async def ask(client):
        (await client.acquire("llama", timeout=1)).release()
        await client.close()

    async def main():
        async with AsyncClient(daemon.path) as client:
            lease = await client.acquire("llama", timeout=1)
            assert child_after_fork(lambda: in_new_loop(lease, client)) == 0
            assert lease.remaining() > 0
            assert await lease.renew() > 599
            (await client.acquire("llama", timeout=1)).release()

    def in_new_loop(lease, client):
        asyncio._set_running_loop(None)
        lease.release()
        asyncio.run(ask(client))

    asyncio.run(main())
    assert daemon.connections == 2
