"""All errors of DISPATCH.md one by one: one ERROR frame, then the end of file, and nobody else is touched."""

import contextlib
import socket
import struct
import time

import pytest

from aimd.dispatch import Limits, Outcome
from aimd.dispatch.server import Caps
from aimd.protocol import frames
from aimd.protocol.frames import Ended, FrameError, Queued, Welcome
from tests.dispatch_service.talking import Talk


def raw(size=16, kind=4, flags=0, word=0, body=bytes(8)):
    return struct.pack("<HBBI", size, kind, flags, word) + body


def acquire(handle=0, request=1, wait=-1, klass=255, flags=0, reserved=bytes(7)):
    return struct.pack("<HBBIQqB7s", 32, 3, flags, handle, request, wait, klass, reserved)


def open_frame(model, partition, text, size=None, flags=0):
    size = 16 + len(text) if size is None else size
    return struct.pack("<HBBHHQ", size, 2, flags, model, partition, 7) + text


HELLO = frames.hello()
BEFORE_HELLO = {
    "size of 0": (raw(size=0), FrameError.BAD_SIZE),
    "size of 8": (raw(size=8), FrameError.BAD_SIZE),
    "odd size": (raw(size=23), FrameError.BAD_SIZE),
    "size of 520": (raw(size=520), FrameError.BAD_SIZE),
    "largest size": (raw(size=65528), FrameError.BAD_SIZE),
    "HELLO of 16 bytes": (raw(16, 1, 0, frames.MAGIC), FrameError.BAD_SIZE),
    "HELLO of 32 bytes": (raw(32, 1, 0, frames.MAGIC, bytes(24)), FrameError.BAD_SIZE),
    "bad magic": (struct.pack("<HBBIHHIQ", 24, 1, 0, frames.MAGIC + 1, 1, 1, 0, 0), FrameError.BAD_MAGIC),
    "later versions": (frames.hello(first=2, last=9), FrameError.BAD_VERSION),
    "earlier versions": (frames.hello(first=0, last=0), FrameError.BAD_VERSION),
    "reserved of HELLO": (struct.pack("<HBBIHHIQ", 24, 1, 0, frames.MAGIC, 1, 1, 0, 1), FrameError.BAD_FIELD),
    "flags of HELLO": (struct.pack("<HBBIHHIQ", 24, 1, 1, frames.MAGIC, 1, 1, 0, 0), FrameError.BAD_FIELD),
    "OPEN first": (frames.open_model(1, "llama"), FrameError.OUT_OF_ORDER),
    "ACQUIRE first": (acquire(), FrameError.OUT_OF_ORDER),
    "RELEASE first": (frames.release(1), FrameError.OUT_OF_ORDER),
    "unknown kind first": (raw(kind=99), FrameError.UNKNOWN_KIND),
    "an answer": (raw(kind=65), FrameError.UNKNOWN_KIND),
}
AFTER_HELLO = {
    "second HELLO": (HELLO, FrameError.OUT_OF_ORDER),
    "kind 0": (raw(kind=0), FrameError.UNKNOWN_KIND),
    "kind 8": (raw(kind=8), FrameError.UNKNOWN_KIND),
    "kind 255": (raw(kind=255), FrameError.UNKNOWN_KIND),
    "ACQUIRE of 24 bytes": (raw(24, 3, body=bytes(16)), FrameError.BAD_SIZE),
    "ACQUIRE of 40 bytes": (raw(40, 3, body=bytes(32)), FrameError.BAD_SIZE),
    "RELEASE of 24 bytes": (raw(24, 4, body=bytes(16)), FrameError.BAD_SIZE),
    "RENEW of 24 bytes": (raw(24, 5, body=bytes(16)), FrameError.BAD_SIZE),
    "ADOPT of 24 bytes": (raw(24, 6, body=bytes(16)), FrameError.BAD_SIZE),
    "CANCEL of 24 bytes": (raw(24, 7, body=bytes(16)), FrameError.BAD_SIZE),
    "OPEN without names": (raw(16, 2), FrameError.BAD_SIZE),
    "OPEN of 31 bytes": (open_frame(15, 0, b"n" * 15), FrameError.BAD_SIZE),
    "OPEN of an empty name": (open_frame(0, 0, bytes(8)), FrameError.BAD_FIELD),
    "OPEN of a long name": (open_frame(254, 0, b"n" * 254 + bytes(2)), FrameError.BAD_FIELD),
    "OPEN of a long partition": (open_frame(8, 65, b"n" * 73 + bytes(7)), FrameError.BAD_FIELD),
    "OPEN of longest lengths": (open_frame(65535, 65535, b"n" * 8), FrameError.BAD_FIELD),
    "OPEN longer than its names": (open_frame(5, 0, b"llama" + bytes(11)), FrameError.BAD_FIELD),
    "OPEN shorter than its names": (open_frame(9, 0, b"llama" + bytes(3)), FrameError.BAD_FIELD),
    "OPEN padded by others than zeros": (open_frame(5, 0, b"llama\0\0\1"), FrameError.BAD_FIELD),
    "OPEN with flags": (open_frame(5, 0, b"llama\0\0\0", flags=1), FrameError.BAD_FIELD),
    "request 2^63": (acquire(request=1 << 63), FrameError.BAD_FIELD),
    "wait -2": (acquire(wait=-2), FrameError.BAD_FIELD),
    "least wait": (acquire(wait=-(1 << 63)), FrameError.BAD_FIELD),
    "wait above 2^62": (acquire(wait=(1 << 62) + 1), FrameError.BAD_FIELD),
    "class 3": (acquire(klass=3), FrameError.BAD_FIELD),
    "class 254": (acquire(klass=254), FrameError.BAD_FIELD),
    "flag 4 of ACQUIRE": (acquire(flags=4), FrameError.BAD_FIELD),
    "reserved of ACQUIRE": (acquire(reserved=bytes(6) + b"\1"), FrameError.BAD_FIELD),
    "unknown handle": (acquire(handle=1), FrameError.UNKNOWN_HANDLE),
    "largest handle": (acquire(handle=0xFFFFFFFF), FrameError.UNKNOWN_HANDLE),
    "waiting request": (acquire(request=50), FrameError.DUPLICATE_REQUEST),
    "flag 4 of RELEASE": (raw(flags=4), FrameError.BAD_FIELD),
    "flag 1 of RENEW": (raw(kind=5, flags=1), FrameError.BAD_FIELD),
    "flag 2 of CANCEL": (raw(kind=7, flags=2), FrameError.BAD_FIELD),
    "word of RELEASE": (raw(word=1), FrameError.BAD_FIELD),
    "word of ADOPT": (raw(kind=6, word=1), FrameError.BAD_FIELD),
}


@pytest.fixture
def other(talk):
    """An honest client with a lease and something that waits; untouched at the end."""
    client = talk()
    handle = client.open()
    lease = client.lease(handle)
    yield client
    assert client.silent(0.001)
    client.say(frames.renew(lease))
    assert client.hear().lease == lease
    assert client.acquire(handle, 2**62).request == 2**62


@pytest.mark.parametrize("name", BEFORE_HELLO)
def test_error_before_hello(host, talk, other, name):
    wrong, error = BEFORE_HELLO[name]
    client = talk(hello=False)
    client.say(wrong + HELLO + frames.open_model(1, "llama"))  # what follows is not looked at
    (answer,) = client.rest()
    assert answer.error == error
    assert answer.message.isprintable()
    assert len(answer.message) > 20
    assert host.numbers()["faults"] == 1


@pytest.mark.parametrize("name", AFTER_HELLO)
def test_error_after_hello(host, talk, other, name):
    wrong, error = AFTER_HELLO[name]
    client = talk()
    handle = client.open()
    lease = client.lease(handle, 49)
    assert client.acquire(handle, 50) == Queued(50)
    client.say(frames.renew(lease) + wrong + frames.renew(lease) + acquire(request=51))
    renewed, answer = client.rest()
    assert renewed.lease == lease
    assert answer.error == error
    assert answer.message.isprintable()
    assert len(answer.message) > 20
    host.until(lambda numbers: numbers["connections"] == 1)
    assert host.server.busy(0) == (2, 0)  # what waited is cancelled, the lease is an orphan
    assert host.model().outcomes[1][Outcome.CANCELLED] == 1
    host.check_balance()


def test_what_is_not_read_behind_a_fault_is_no_obstacle(talk):
    """The kernel would give ECONNRESET in place of the end of file."""
    client = talk()
    client.say(raw(kind=99) + bytes(20_000))  # more than is read at once
    (answer,) = client.rest()
    assert answer.error == FrameError.UNKNOWN_KIND


def test_half_a_frame_and_the_end(host, talk):
    client = talk()
    client.say(HELLO[:9])
    client.sock.shutdown(socket.SHUT_WR)
    assert client.rest() == []


def test_too_many_opens(make_host):
    host = make_host(answering=False)
    client = Talk(host.path)
    client.say(*(frames.open_model(tag, "llama") for tag in range(17)))
    (answer,) = client.rest()
    assert answer.error == FrameError.TOO_MANY_OPENS
    questions = host.server.questions()
    assert [question.key[2] for question in questions] == list(range(16))
    for question in questions:
        host.answer(question)


def test_more_questions_than_the_ring_holds_are_told_to_come_again(make_host):
    host = make_host(answering=False)
    clients = [Talk(host.path) for _ in range(257)]
    for client in clients:
        client.say(*(frames.open_model(tag, "llama") for tag in range(16)))
    told = [clients[-1].hear() for _ in range(16)]
    assert {answer.outcome for answer in told} == {Outcome.WOULD_BLOCK}
    questions = host.server.questions()
    assert len(questions) == 4096
    for question in questions[:32]:
        host.answer(question)
    assert clients[0].hear().handle == 0
    clients[-1].say(frames.open_model(99, "llama"))
    while not (questions := host.server.questions()):
        time.sleep(0.001)
    host.answer(questions[0])
    assert clients[-1].hear().tag == 99


def test_connections_of_a_user_are_capped(make_host):
    host = make_host(caps=Caps(connections_per_user=3))
    clients = [Talk(host.path) for _ in range(3)]
    fourth = Talk(host.path, hello=False)
    with contextlib.suppress(BrokenPipeError):
        fourth.say(HELLO)
    (answer,) = fourth.rest()
    assert answer.error == FrameError.TOO_MANY_CONNECTIONS
    assert "user" in answer.message
    clients[0].close()
    host.until(lambda numbers: numbers["connections"] == 2)
    assert isinstance(Talk(host.path).welcome, Welcome)
    assert host.numbers()["refused"] == 1


def test_connections_of_all_are_capped(make_host):
    host = make_host(limits=Limits(connections=2))
    kept = [Talk(host.path) for _ in range(2)]
    (answer,) = Talk(host.path, hello=False).rest()
    assert answer.error == FrameError.TOO_MANY_CONNECTIONS
    assert "all connections" in answer.message
    kept.pop().close()
    host.until(lambda numbers: numbers["connections"] == 1)
    assert isinstance(Talk(host.path).welcome, Welcome)


def test_waiting_requests_of_a_connection_are_capped(make_host):
    host = make_host(limits=Limits(requests_per_connection=3))
    client = Talk(host.path)
    assert client.welcome.requests == 3
    handle = client.open()
    for request in range(2):
        client.lease(handle, request)
    client.say(*(frames.acquire(handle, request) for request in range(2, 6)))
    *queued, ended = client.hear_many(4)
    assert queued == [Queued(2), Queued(3), Queued(4)]
    assert ended.outcome == Outcome.QUEUE_FULL_CONN


def test_waiting_requests_of_a_user_are_capped(make_host):
    host = make_host(caps=Caps(waiting_per_user=3))
    first, second = Talk(host.path), Talk(host.path)
    handle = first.open()
    assert second.open() == handle
    leases = [first.lease(handle, request) for request in range(2)]
    assert [first.acquire(handle, 2), first.acquire(handle, 3), second.acquire(handle, 2)] == [
        Queued(2),
        Queued(3),
        Queued(2),
    ]
    assert second.acquire(handle, 3) == Ended(3, Outcome.QUEUE_FULL_UID, 0)
    assert second.acquire(handle, 3, flags=1) == Ended(3, Outcome.WOULD_BLOCK, 0)
    model = host.model()
    assert model.outcomes[1][Outcome.QUEUE_FULL_UID] == model.bad[1] == 1
    first.say(frames.cancel(3))
    assert first.hear().outcome == Outcome.CANCELLED
    assert second.acquire(handle, 3) == Queued(3)
    first.close()  # what it had waiting is not charged any more
    host.until(lambda numbers: numbers["connections"] == 1)
    assert second.acquire(handle, 4) == Queued(4)
    second.say(frames.release(leases[0], 2))  # somebody else's connection, the same process
    assert second.hear().request == 2


def test_waiting_requests_that_expired_are_not_charged(make_host):
    host = make_host(caps=Caps(waiting_per_user=1))
    client = Talk(host.path)
    handle = client.open()
    for request in range(2):
        client.lease(handle, request)
    for request in range(5):
        assert client.acquire(handle, 10 + request, 2_000_000) == Queued(10 + request)
        assert client.hear().outcome == Outcome.EXPIRED
