"""The blocking client against a daemon: leases, errors, pipelining, threads."""

import signal
import threading
import time
from contextlib import ExitStack, suppress

import pytest

from aimd.dispatch import Class, End, Outcome
from aimd.dispatch.client import (
    Client,
    ClientClosedError,
    DispatchError,
    DispatchProtocolError,
    DispatchUnreachableError,
    DrainingError,
    ExpiredError,
    LeaseLostError,
    QueueFullError,
    UnauthorisedError,
    UnknownModelError,
    WouldBlockError,
)
from aimd.errors import AimdError, ConflictError, InvalidInputError
from aimd.protocol import frames
from tests.fakes.dispatch_frames import encode

PARTITION = "0000:05:00.0/0"


def eventually(condition, seconds=5.0):
    """The first true value of the condition."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.002)
    return value


@pytest.fixture
def client(daemon):
    with Client(daemon.path) as client:
        yield client


def test_a_lease_tells_where_to_run_and_is_given_back(daemon, client):
    with client.lease("llama", timeout=0.5, klass="HIGH") as lease:
        assert daemon.running() == [lease.id]
        assert (lease.partition, lease.klass, lease.guaranteed, lease.lost) == (PARTITION, Class.HIGH, False, False)
        assert 599 < lease.remaining() <= 600
    eventually(lambda: daemon.running() == [])
    assert lease.remaining() == 0
    assert daemon.model().ends[Class.HIGH][End.OK] == 1


def test_an_exception_in_the_block_releases_as_failed(daemon, client):
    with pytest.raises(KeyError), client.lease("llama"):
        raise KeyError
    eventually(lambda: daemon.model().ends[Class.MEDIUM][End.FAILED] == 1)


def test_a_release_happens_once(daemon, client):
    lease = client.acquire("llama")
    lease.release()
    lease.release(ok=False)
    client.acquire("llama").release()
    eventually(lambda: len(daemon.asked("release")) == 2 and daemon.running() == [])
    assert daemon.model().ends[Class.MEDIUM][End.FAILED] == 0


def test_what_is_asked_for_arrives(daemon, client):
    client.acquire("llama", klass=Class.LOW, timeout=0.25, partition=PARTITION)
    client.acquire("llama", complete_in=2.0, est_service=0.5, no_wait=True)
    first, second = daemon.asked("acquire")
    assert (first["klass"], first["flags"], second["klass"], second["flags"]) == (2, 2, 255, 3)
    assert 0 <= 250_000_000 - first["wait_ns"] < 100_000_000  # less what the opening took
    assert 0 <= 1_500_000_000 - second["wait_ns"] < 100_000_000
    assert [fields["partition"] for fields in daemon.asked("open")] == [PARTITION, ""]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"klass": "urgent"}, "class 'urgent' is none of high, medium, low"),
        ({"klass": 3}, "class 3 is none of"),
        ({"timeout": -1}, "timeout=-1: seconds, 0 or more"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"timeout": 1, "complete_in": 2}, "give one of them"),
        ({"est_service": 2}, "with complete_in alone"),
        ({"partition": "p" * 65}, "expected one like 0000:05:00.0/3"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_sent(daemon, client, arguments, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        client.acquire("llama", **arguments)
    assert daemon.connections == 0


def test_an_endless_timeout_is_the_longest_of_the_wire(daemon, client):
    client.acquire("llama").release()
    client.acquire("llama", timeout=float("inf"))
    assert daemon.asked("acquire")[1]["wait_ns"] == frames.MAX_WAIT_NS


def test_expired_and_would_block(daemon, client):
    client.acquire_many("llama", 2)
    start = time.monotonic()
    with pytest.raises(ExpiredError) as expired:
        client.acquire("llama", timeout=0.1)
    assert 0.09 < time.monotonic() - start < 1
    assert (expired.value.outcome, expired.value.code) == ("expired", "expired")
    with pytest.raises(ExpiredError) as passed:
        client.acquire("llama", timeout=0)
    assert passed.value.outcome == "deadline_passed"
    with pytest.raises(WouldBlockError):
        client.acquire("llama", no_wait=True)


def test_a_full_queue_says_when_to_try_again(make_daemon):
    daemon = make_daemon(start=False)
    daemon.requests_per_connection = 1
    daemon.start()
    with Client(daemon.path) as client:
        client.acquire_many("llama", 2)
        waits = client.submit("llama")
        with pytest.raises(QueueFullError) as full:
            client.acquire("llama")
        assert (full.value.outcome, full.value.retry_after) == ("queue_full_conn", 0.25)
        waits.cancel()


def test_every_outcome_has_an_error_of_the_tree(daemon, client):
    from aimd.dispatch.client.errors import of_outcome

    for outcome in set(Outcome) - {Outcome.GRANTED}:
        error = of_outcome("llama", outcome, 500)
        assert type(error) is not DispatchError
        assert (error.outcome, error.retry_after) == (outcome.name.lower(), 5e-7)
    assert type(of_outcome("llama", 99)) is DispatchError
    assert issubclass(QueueFullError, ConflictError)
    assert issubclass(DispatchError, AimdError)


def test_names_that_the_daemon_does_not_know(daemon, client):
    with pytest.raises(UnknownModelError, match="no lease for model 'mistral': mistral has 0 partitions") as unknown:
        client.acquire("mistral")
    assert unknown.value.outcome == "unknown_model"
    with pytest.raises(UnknownModelError) as elsewhere:
        client.acquire("llama", partition="0000:05:00.0/9")
    assert elsewhere.value.outcome == "unknown_partition"
    client.acquire("llama")


def test_policy(daemon, client):
    daemon.denied["secret"] = (Outcome.UNAUTHORISED, "uid 1000 may not use it")
    daemon.highest = Class.MEDIUM
    with pytest.raises(UnauthorisedError, match="uid 1000"):
        client.acquire("secret")
    with pytest.raises(UnauthorisedError):
        client.acquire("llama", klass="high")


def test_draining_is_told_and_the_model_is_looked_for_anew(daemon, client):
    client.acquire("llama").release()
    daemon.drain(0)
    with pytest.raises(DrainingError):
        client.acquire("llama")
    daemon.place(1, ["llama"])
    del daemon.names["llama", PARTITION]  # which is there still, draining
    assert client.acquire("llama").partition == "0000:05:00.0/1"


def test_a_model_that_moved_is_opened_again_once(daemon, client):
    client.acquire("llama").release()
    daemon.place(1, ["llama"])
    daemon.remove(0)
    assert client.acquire("llama").partition == "0000:05:00.0/1"
    assert len(daemon.asked("open")) == 2


def test_a_waiting_request_moves_with_its_model(daemon, client):
    client.acquire_many("llama", 2)
    pending = client.submit("llama", timeout=5)
    eventually(daemon.waiting)
    daemon.place(1, ["llama"])
    daemon.remove(0)
    assert pending.result().partition == "0000:05:00.0/1"
    assert daemon.asked("acquire")[-1]["wait_ns"] < 5_000_000_000


def test_a_model_that_is_gone_twice_is_an_error(daemon, client):
    client.acquire("llama").release()
    daemon.place(0, [])
    daemon.names["llama", PARTITION] = 9  # opened, yet unknown to the core
    with pytest.raises(UnknownModelError):
        client.acquire("llama")
    assert len(daemon.asked("open")) == 2


def test_renewal(make_daemon):
    daemon = make_daemon(lease_ns=400_000_000)
    with Client(daemon.path) as client:
        lease = client.acquire("llama")
        time.sleep(0.1)
        assert lease.remaining() < 0.31
        assert 0.35 < lease.renew() <= 0.4
        lease.release()
        with pytest.raises(LeaseLostError):
            lease.renew()


def test_renewal_unasked_keeps_a_long_request(make_daemon):
    daemon = make_daemon(lease_ns=400_000_000)
    with Client(daemon.path) as client, client.lease("llama", renew=True) as lease, client.lease("llama") as other:
        time.sleep(1.0)
        assert daemon.running() == [lease.id]
        assert (lease.lost, other.lost) == (False, True)
    time.sleep(0.3)
    assert len(daemon.asked("release")) == 1
    assert daemon.asked("renew")[-1]["lease"] == lease.id


def test_a_taken_lease_is_seen_though_nobody_reads(make_daemon):
    daemon = make_daemon(lease_ns=100_000_000)
    with Client(daemon.path) as client, client.lease("llama") as lease:
        eventually(lambda: lease.lost, 1.0)
        assert lease.remaining() == 0
        with pytest.raises(LeaseLostError):
            lease.renew()
    assert daemon.asked("release") == []


def test_acquire_many_is_all_or_nothing(daemon, client):
    leases = client.acquire_many("llama", 2, timeout=0.5)
    assert sorted(lease.id for lease in leases) == sorted(daemon.running())
    for lease in leases:
        lease.release()
    with pytest.raises(ExpiredError):
        client.acquire_many("llama", 3, timeout=0.1)
    eventually(lambda: daemon.running() == [] and daemon.waiting() == 0)


def test_many_requests_on_one_connection(daemon, client):
    pending = [client.submit("llama", timeout=10) for _ in range(300)]
    for each in pending:
        each.result().release()
    eventually(lambda: daemon.running() == [])
    assert daemon.connections == 1
    assert sum(daemon.model().outcomes[Class.MEDIUM]) == 300


def test_a_cancelled_request_takes_nothing(daemon, client):
    leases = client.acquire_many("llama", 2)
    pending = client.submit("llama")
    eventually(daemon.waiting)
    pending.cancel()
    eventually(lambda: daemon.waiting() == 0)
    for lease in leases:
        lease.release()
    client.acquire("llama").release()
    eventually(lambda: daemon.running() == [])


def test_a_grant_that_is_faster_than_its_cancel_is_released(daemon, client):
    client.acquire("llama").release()
    pending = client.submit("llama")
    eventually(daemon.running)  # GRANTED is in the socket, and nobody has read it
    pending.cancel()
    client.acquire("llama").release()
    eventually(lambda: daemon.running() == [])


def test_an_interrupt_cancels_what_it_interrupts(daemon, client):
    leases = client.acquire_many("llama", 2)
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(KeyboardInterrupt):
        client.acquire("llama")
    eventually(lambda: daemon.waiting() == 0)
    leases[0].release()
    assert client.acquire("llama", timeout=1).remaining() > 0


def interrupt(_number, _frame):
    raise KeyboardInterrupt


def test_threads_share_the_connection(daemon, client):
    mistakes, most, running, lock = [], 0, 0, threading.Lock()

    def work():
        nonlocal most, running
        try:
            for _ in range(20):
                with client.lease("llama", timeout=20):
                    with lock:
                        running += 1
                        most = max(most, running)
                    time.sleep(0.0002)
                    with lock:
                        running -= 1
        except DispatchError as error:
            mistakes.append(error)

    threads = [threading.Thread(target=work) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (mistakes, most, daemon.connections) == ([], 2, 1)
    eventually(lambda: daemon.running() == [])


def test_who_waits_briefly_is_not_held_up_by_who_reads(daemon, client):
    """The thread that came first reads; each of the others has its own limit, and the reader's end passes the role on."""
    leases = client.acquire_many("llama", 2)
    ends = {}

    def ask(seconds):
        start = time.monotonic()
        with ExitStack() as stack:
            try:
                stack.enter_context(client.lease("llama", timeout=seconds))
            except ExpiredError:
                ends[seconds] = time.monotonic() - start
            else:
                ends[seconds] = None

    threads = [threading.Thread(target=ask, args=(seconds,)) for seconds in (0.15, 0.4, 0.05, 0.3, 10)]
    for thread in threads:
        thread.start()
        time.sleep(0.005)
    for thread in threads[:-1]:
        thread.join(5)
    leases[0].release()
    threads[-1].join(5)
    assert ends.pop(10) is None
    assert sorted(ends) == [0.05, 0.15, 0.3, 0.4]
    assert all(seconds - 0.01 <= took < seconds + 0.3 for seconds, took in ends.items())


@pytest.mark.parametrize("reader_seconds", [0.05, 20])
def test_who_does_not_read_is_woken_at_once(daemon, client, reader_seconds):
    """By a reader that has yet to wait, or by the role of one that left. Else the grant would be seen when the keeper
    looks in, an eighth of a second later on average.
    """
    delays = []
    for _ in range(5):
        leases, granted = client.acquire_many("llama", 2), []
        reader = threading.Thread(target=let_pass, args=(client, reader_seconds))
        follower = threading.Thread(target=ask_and_note, args=(client, granted))
        reader.start()
        time.sleep(0.01)
        follower.start()
        time.sleep(0.1)
        start = time.monotonic()
        daemon.give_back(leases[0].id)
        follower.join(5)
        delays.append(granted[0] - start)
        leases[1].release()
        reader.join(5)
        eventually(lambda: daemon.running() == [])
    assert sorted(delays)[2] < 0.06


def let_pass(client, seconds):
    with suppress(ExpiredError):
        client.acquire("llama", timeout=seconds).release()


def ask_and_note(client, granted):
    lease = client.acquire("llama", timeout=10)
    granted.append(time.monotonic())
    lease.release()


def test_close_ends_those_who_wait(daemon):
    client = Client(daemon.path)
    client.acquire_many("llama", 2)
    errors = []

    def ask():
        with pytest.raises(ClientClosedError) as closed:
            client.acquire("llama")
        errors.append(closed.value)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: daemon.waiting() == 4)
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < 0.25
    for thread in threads:
        thread.join(5)
    assert len(errors) == 4
    eventually(lambda: daemon.waiting() == 0)
    client.close()
    with pytest.raises(ClientClosedError, match="closed"):
        client.acquire("llama")
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "aimd-dispatch"])


def test_what_was_released_is_known_to_the_daemon_after_close(daemon):
    for _ in range(20):
        with Client(daemon.path) as client:
            client.acquire("llama").release()
        assert daemon.running() == []


def test_a_client_that_was_forgotten_goes_away(daemon):
    client = Client(daemon.path)
    client.acquire("llama").release()
    del client
    eventually(lambda: not daemon.peers)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "aimd-dispatch"])


def test_a_daemon_that_cannot_be_understood(daemon, client):
    client.acquire("llama").release()
    pending = client.submit("llama", timeout=5)
    pending.result().release()
    leases = client.acquire_many("llama", 2)
    pending = client.submit("llama", timeout=5)
    eventually(daemon.waiting)
    daemon.send_all(b"\x0c\0\0\0\0\0\0\0")
    with pytest.raises(DispatchProtocolError, match="a frame of 12 bytes"):
        pending.result()
    leases[0].release()
    client.acquire("llama", timeout=30)


@pytest.mark.parametrize(
    ("error", "expected"), [(4, DispatchProtocolError), (11, UnauthorisedError), (6, DispatchProtocolError)]
)
def test_a_daemon_that_refuses_the_connection_for_good(daemon, client, error, expected):
    daemon.greeting_error = (error, "said the daemon")
    with pytest.raises(expected, match="said the daemon"):
        client.acquire("llama", timeout=20)
    daemon.greeting_error = None
    client.acquire("llama")


def test_a_daemon_of_another_version(daemon, client):
    daemon.stall()
    pending = client.submit("llama", timeout=5)
    thread = threading.Thread(target=answer_as_version_2, args=(daemon,))
    thread.start()
    with pytest.raises(DispatchProtocolError, match="version 2"):
        pending.result()
    thread.join()


def answer_as_version_2(daemon):
    original = daemon.on_hello
    daemon.on_hello = lambda peer, _: daemon.write(
        peer, encode("welcome", version=2, instance=1, features=0, requests=1, handles=1)
    )
    daemon.resume()
    time.sleep(0.2)
    daemon.on_hello = original


def test_too_many_connections_is_waited_for(daemon, client):
    daemon.greeting_error = (9, "4096 connections")
    threading.Timer(0.3, setattr, (daemon, "greeting_error", None)).start()
    client.acquire("llama", timeout=5).release()
    daemon.greeting_error = (9, "4096 connections")
    daemon.drop_connections()
    with pytest.raises(DispatchUnreachableError, match="4096 connections"):
        client.acquire("llama", timeout=0.5)
