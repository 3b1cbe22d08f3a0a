"""The clients' sans-io core, by itself: what it says when, and what it makes of what it hears."""

import pytest

from aimd.dispatch.client.errors import ClientClosedError, DispatchProtocolError, DispatchUnreachableError
from aimd.dispatch.client.records import LeaseState
from aimd.dispatch.client.session import ANSWER_GRACE, Session
from aimd.protocol import frames
from tests.fakes.dispatch_frames import decode, encode, whole_frame

MILLISECOND = 1_000_000
SECOND = 1_000_000_000
WELCOME = encode("welcome", version=1, instance=1, features=0, requests=1024, handles=256)


class Talk:
    """A session with a daemon's side that the test plays, and a clock."""

    def __init__(self, *, chance=0.0):
        self.now = 1000 * SECOND
        self.session = Session("/run/aimd/dispatch.sock", 30 * SECOND, lambda: chance)

    def connect(self):
        self.session.connected(self.now)
        self.hear(WELCOME)

    def acquire(self, model="llama", wait=SECOND, **options):
        return self.session.acquire(self.now, model, "", 255, wait, **{"no_wait": False, "renew": False} | options)

    def said(self):
        """What was sent since the last time, as (kind, number)."""
        data, said = self.session.outbox.data, []
        while (frame := whole_frame(data)) is not None:
            fields = decode(frame)
            said.append((fields["kind"], fields.get("lease", fields.get("request", fields.get("tag")))))
        return said

    def hear(self, data):
        self.session.received(self.now, data)

    def open(self):
        """Answer the opens that were sent; returns what was sent besides."""
        said = self.said()
        for kind, tag in said:
            if kind == "open":
                self.hear(opened(tag))
        return [each for each in said if each[0] != "open"] + self.said()

    def granted(self, lease=0x10000, **options):
        """A ticket with its lease."""
        ticket = self.acquire(**options)
        (request,) = [number for kind, number in self.open() if kind == "acquire"]
        self.hear(granted(request, lease))
        return ticket


def opened(tag, handle=0):
    return encode(
        "opened", tag=tag, handle=handle, highest=0, default_class=1, slots=2, lease_ns=600 * SECOND, partition="p/0"
    )


def granted(request, lease=0x10000):
    return encode("granted", request=request, lease=lease, klass=1, lease_ns=600 * SECOND, guaranteed=False)


def test_the_first_words():
    talk = Talk()
    talk.acquire()
    talk.connect()
    assert [kind for kind, _ in talk.said()] == ["hello", "open"]


def test_after_an_outage_releases_come_first_then_adoptions_then_requests():
    talk = Talk()
    talk.connect()
    released, held = talk.granted(1 << 16), talk.granted(2 << 16)
    waiting = talk.acquire()
    talk.said()
    talk.session.disconnected(talk.now, "gone")
    talk.session.leases.release(released.lease, ok=True)
    talk.now += SECOND // 4
    talk.connect()
    assert talk.said()[:3] == [("hello", None), ("release", 1 << 16), ("adopt", 2 << 16)]
    assert not waiting.settled
    assert held.lease.state is LeaseState.HELD


def test_a_resubmitted_request_has_what_is_left_of_its_wait():
    talk = Talk()
    ticket = talk.acquire(wait=SECOND)
    talk.now += 700 * MILLISECOND
    talk.connect()
    (_, _), (_, tag) = talk.said()
    talk.hear(opened(tag))
    assert decode(whole_frame(talk.session.outbox.data))["wait_ns"] == 300 * MILLISECOND
    assert talk.session.limit(ticket) == 1001 * SECOND + ANSWER_GRACE


def test_a_queued_request_with_the_models_budget_is_the_daemons_to_end():
    talk = Talk()
    talk.connect()
    ticket = talk.acquire(wait=-1)
    ((_, request),) = [each for each in talk.open() if each[0] == "acquire"]
    assert talk.session.limit(ticket) == talk.now + 30 * SECOND + ANSWER_GRACE
    talk.hear(encode("queued", request=request))
    assert talk.session.limit(ticket) is None
    talk.now += 100 * SECOND
    talk.session.disconnected(talk.now, "gone")
    assert talk.session.limit(ticket) == talk.now + 30 * SECOND


def test_request_numbers_never_return():
    talk = Talk()
    talk.connect()
    numbers = []
    for _ in range(3):
        talk.acquire()
        numbers += [number for kind, number in talk.open() if kind == "acquire"]
        talk.session.disconnected(talk.now, "gone")
        talk.connect()
    numbers += [number for kind, number in talk.open() if kind == "acquire"]
    assert len(set(numbers)) == len(numbers) == 1 + 2 + 3 + 3


def test_at_most_sixteen_opens_are_under_way():
    talk = Talk()
    talk.connect()
    for number in range(40):
        talk.acquire(f"model-{number}")
    tags = [tag for kind, tag in talk.said() if kind == "open"]
    assert len(tags) == 16
    talk.hear(opened(tags[0]))
    assert [kind for kind, _ in talk.said()] == ["open", "acquire"]
    talk.hear(encode("denied", tag=tags[1], outcome=9, message="no"))
    assert [kind for kind, _ in talk.said()] == ["open"]


def test_attempts_to_connect_become_rare_and_a_lasting_connection_starts_anew():
    talk = Talk(chance=1.0)
    pauses = []
    for _ in range(8):
        talk.session.disconnected(talk.now, "refused")
        pauses.append((talk.session.connect_at - talk.now) // MILLISECOND)
    assert pauses == [10, 20, 40, 80, 160, 250, 250, 250]
    talk.connect()
    talk.session.disconnected(talk.now, "at once")
    assert talk.session.connect_at - talk.now == 250 * MILLISECOND
    talk.connect()
    talk.now += 2 * SECOND
    talk.session.disconnected(talk.now, "later")
    assert talk.session.connect_at - talk.now == 10 * MILLISECOND
    early = Talk(chance=0.0)
    early.session.disconnected(early.now, "refused")
    assert early.session.connect_at - early.now == 5 * MILLISECOND


def test_half_a_frame_of_the_last_connection_is_forgotten():
    talk = Talk()
    talk.connect()
    talk.hear(granted(1)[:13])
    talk.session.disconnected(talk.now, "gone")
    talk.connect()
    assert talk.session.is_connected
    assert talk.granted().lease is not None


def test_bytes_one_by_one():
    talk = Talk()
    ticket = talk.acquire()
    talk.session.connected(talk.now)
    for byte in WELCOME:
        talk.hear(bytes([byte]))
    ((_, request),) = [each for each in talk.open() if each[0] == "acquire"]
    for byte in encode("queued", request=request) + granted(request):
        talk.hear(bytes([byte]))
    assert ticket.lease.lease == 0x10000
    assert talk.session.outbox.settled == [ticket]


@pytest.mark.parametrize("data", [b"\0" * 16, b"\x10\0\x63\0\0\0\0\0" + bytes(8), frames.renew(1)])
def test_what_no_daemon_says_ends_the_connection_and_those_who_wait(data):
    talk = Talk()
    talk.connect()
    ticket = talk.acquire()
    talk.hear(data)
    assert not talk.session.is_connected
    assert isinstance(ticket.error, DispatchProtocolError)


def test_answers_to_nothing_change_nothing_but_a_lease_is_given_back():
    talk = Talk()
    talk.connect()
    talk.said()
    for data in (
        encode("queued", request=9),
        encode("ended", request=9, outcome=5, retry_after_ns=0),
        encode("released", lease=9),
        encode("renewed", lease=9, lease_ns=1),
        encode("adopted", lease=9, lease_ns=1),
        encode("taken", lease=9, end=2),
        encode("refused", number=9, fault=1, asked=7),
        encode("denied", tag=9, outcome=9, message=""),
        opened(9),
    ):
        talk.hear(data)
    assert talk.said() == []
    talk.hear(granted(9, 0x90000))
    assert talk.said() == [("release", 0x90000)]


def test_what_is_refused_for_a_lease():
    talk = Talk()
    talk.connect()
    held = talk.granted().lease
    renewal = talk.session.renew(held)
    talk.hear(encode("refused", number=held.lease, fault=2, asked=5))
    assert renewal.error.code == "reclaim"
    assert held.state is LeaseState.HELD
    renewal = talk.session.renew(held)
    talk.hear(encode("refused", number=held.lease, fault=1, asked=5))
    assert renewal.error.code == "lease_lost"
    assert held.state is LeaseState.LOST


def test_renewal_unasked_is_tried_again_after_a_refusal():
    talk = Talk()
    talk.connect()
    held = talk.granted(renew=True).lease
    assert talk.session.leases.next_due() == talk.now + 300 * SECOND
    talk.now += 300 * SECOND
    talk.session.leases.renew_due(talk.now)
    assert talk.said() == [("renew", held.lease)]
    talk.hear(encode("refused", number=held.lease, fault=2, asked=5))
    assert talk.session.leases.next_due() == talk.now + 150 * SECOND
    talk.now += 150 * SECOND
    talk.session.leases.renew_due(talk.now)
    talk.hear(encode("renewed", lease=held.lease, lease_ns=600 * SECOND))
    assert talk.session.leases.next_due() == talk.now + 300 * SECOND
    talk.session.leases.release(held, ok=True)
    assert talk.session.leases.next_due() is None


def test_a_request_that_was_given_up_is_cancelled_and_its_late_grant_given_back():
    talk = Talk()
    talk.connect()
    ticket = talk.acquire()
    ((_, request),) = [each for each in talk.open() if each[0] == "acquire"]
    talk.session.give_up(ticket)
    assert isinstance(ticket.error, DispatchUnreachableError)
    assert talk.said() == [("cancel", request)]
    talk.hear(granted(request))
    assert talk.said() == [("release", 0x10000)]
    assert ticket.lease is None


def test_a_closed_session_asks_nothing():
    talk = Talk()
    talk.session.close()
    with pytest.raises(ClientClosedError):
        talk.acquire()
