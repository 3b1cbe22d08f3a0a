"""Expiry is exact to the nanosecond over all levels of the wheel; leases end at their deadline likewise."""

import random

import pytest

from aimd.dispatch.core import NativeCore
from aimd.dispatch.values import Kind, Limits, ModelConfig, Outcome, PartitionConfig

MS = 1_000_000
HORIZON = 64**5 * MS  # of the wheel, about 12 days
END = 2**63 - 1
LIMITS = Limits(partitions=1, models=2, requests=5000, leases=64, connections=4, requests_per_connection=5000)


def full_core(slots=1, **kwargs):
    """A core whose slots are all taken for good, so that requests wait until they expire; and a connection."""
    core = NativeCore(LIMITS)
    model = ModelConfig(0, queue_cap=4000)
    core.configure(0, 0, PartitionConfig((model,), slots, queue_cap=4000, **{"lease_max_ns": 1 << 62, **kwargs}))
    connection = core.open(1)
    for slot in range(slots):
        core.acquire(0, connection, 10**9 + slot, 0, 0, start_by=END)
    return core, connection


def expired(events):
    assert all(event[0] == Kind.ENDED and event[3] == Outcome.EXPIRED for event in events)
    return {event[2] for event in events}


@pytest.mark.parametrize("seed", range(40))
def test_random_deadlines_of_all_sizes(seed):
    dice = random.Random(seed)
    core, connection = full_core()
    now, number, waiting = 0, 0, {}
    for step in range(300):
        for _ in range(dice.randrange(6)):
            start_by = now + 1 + dice.randrange(10 ** dice.randint(1, 17))
            if dice.random() < 0.3:
                start_by = max(now + 1, start_by // MS * MS)
            core.acquire(now, connection, number, 0, 0, start_by=start_by)
            waiting[number] = start_by
            number += 1
        if waiting and dice.random() < 0.5:
            one = dice.choice(sorted(waiting))
            core.cancel(now, connection, one)
            del waiting[one]
        now += dice.randrange(10 ** dice.randint(1, 16))
        if waiting and dice.random() < 0.4:
            now = max(now, min(waiting.values()) - dice.randint(0, 1))  # the very instant, or one before
        due = {one for one, start_by in waiting.items() if start_by <= now}
        assert min(waiting.values(), default=END) >= core.next_due or due
        assert expired(core.advance(now)) == due
        for one in due:
            del waiting[one]
        if step % 10 == 0:
            core._check()


@pytest.mark.parametrize("level", range(7))
@pytest.mark.parametrize("aside", [-MS - 1, -1, 0, 1, MS])
def test_edges_of_buckets(level, aside):
    """Around the first and last bucket of each level, from a time that is itself at an edge."""
    for start in (0, 63 * MS, 64 * MS - 1, 64**2 * MS - 1, 64**3 * MS, HORIZON - 1):
        core, connection = full_core()
        core.advance(start)
        start_by = max(start + 1, start + 64**level * MS + aside)
        core.acquire(start, connection, 1, 0, 0, start_by=start_by)
        core.acquire(start, connection, 2, 0, 0, start_by=start_by + 1)
        core._check()
        assert expired(core.advance(start_by - 1)) == set()
        core._check()
        assert expired(core.advance(start_by)) == {1}
        assert expired(core.advance(start_by + 1)) == {2}


def test_very_many_in_one_tick():
    core, connection = full_core()
    for number in range(3000):
        core.acquire(0, connection, number, 0, 0, start_by=50 * MS + number * 7 % 3000)
    core.advance(50 * MS - 1)
    for instant in range(0, 3000, 11):
        events = core.advance(50 * MS + instant)
        assert len(events) == (1 if instant == 0 else 11)
    core._check()


def test_never_and_almost_never():
    core, connection = full_core()
    core.acquire(0, connection, 1, 0, 0, start_by=END)
    core.acquire(0, connection, 2, 0, 0, start_by=END - 1)
    (lease,) = core.leases()
    assert core.renew(2**62 - 1, connection, lease.lease)[0][2] == END
    core._check()
    assert expired(core.advance(END - 2)) == set()
    core._check()
    assert expired(core.advance(END - 1)) == {2}
    assert core.renew(END - 1, connection, lease.lease)[0][2] == END  # not beyond what fits
    assert {event[0] for event in core.advance(END)} == {Kind.REVOKED, Kind.ENDED}


def test_next_due_lets_nothing_be_late_and_wakes_seldom():
    """Whoever sleeps until next_due wakes a few times per deadline, not per tick, and on time."""
    core, connection = full_core()
    dice = random.Random(3)
    deadlines = {number: dice.randrange(1, 10**11) for number in range(100)}
    for number, start_by in deadlines.items():
        core.acquire(0, connection, number, 0, 0, start_by=start_by)
    wakes = 0
    while deadlines:
        now = core.next_due
        assert now <= min(deadlines.values())
        for number in expired(core.advance(now)):
            assert deadlines.pop(number) == now
        wakes += 1
    assert wakes < 600
    assert core.next_due > 10**11


@pytest.mark.parametrize("seed", range(10))
def test_leases_end_at_their_deadline(seed):
    dice = random.Random(seed)
    life = 10 ** dice.randint(3, 15)
    core, connection = full_core(slots=32, lease_max_ns=life)
    due = {lease.lease: life for lease in core.leases()}
    now = 0
    for _ in range(200):
        now += dice.randrange(max(1, life // 10))
        if dice.random() < 0.2:
            now = max(now, min(due.values(), default=now) - 1)
        events = core.advance(now)
        assert {event[1] for event in events} == {lease for lease, deadline in due.items() if deadline <= now}
        due = {lease: deadline for lease, deadline in due.items() if deadline > now}
        for lease in dice.sample(sorted(due), len(due) // 4):
            core.renew(now, connection, lease)
            due[lease] = now + life
        core._check()
        events = core.acquire(now, connection, 5, 0, 0, no_wait=True)
        if events[0][0] == Kind.GRANTED:
            due[events[0][3]] = now + life
