"""Sums over days in bounded memory agree with the samples that they are made of."""

from __future__ import annotations

import random

import pytest

from aimd.domain.slo import Objective, Sample
from aimd.planning.slo import DAY, HOUR, MINUTE, burns, burns_of, compliance, compliance_of, counted, within
from aimd.planning.tally import COARSE_SECONDS, FINE_SECONDS, Tally

SHORT = [5 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 6 * HOUR]


def minutes(count, seed=1):
    """Samples of a minute each from 0 on, some of them without anything."""
    rng = random.Random(seed)
    samples = []
    for index in range(count):
        idle = rng.random() < 0.3
        good, bad = (0, 0) if idle else (rng.randrange(200), rng.randrange(5))
        backlog = 0.0 if idle else rng.choice([0.0, 20.0, 40.0, 60.0])
        samples.append(Sample((index + 1.0) * MINUTE, MINUTE, good, bad, good + bad, backlog))
    return samples


def tally_of(samples, begun=0.0):
    tally = Tally(begun)
    for one in samples:
        tally.add(one)
    return tally


@pytest.mark.parametrize("count", [1, 4, 59, 60, 61, 400, 2000])
@pytest.mark.parametrize("seconds", SHORT)
def test_shorter_windows_are_exact(count, seconds):
    samples = minutes(count)
    now = samples[-1].at
    assert tally_of(samples).since(now, seconds) == counted(within(samples, now, seconds))


@pytest.mark.parametrize("seconds", [DAY, 3 * DAY])
@pytest.mark.parametrize("count", [1000, 1500, 4400, 6000])
def test_longer_windows_begin_at_most_ten_minutes_early(count, seconds):
    samples = minutes(count)
    now = samples[-1].at
    got = tally_of(samples).since(now, seconds)
    least, most = (counted(within(samples, now, seconds + more)) for more in (0, COARSE_SECONDS + MINUTE))
    for name in ("good", "bad", "released", "backlogged_seconds"):
        assert getattr(least, name) <= getattr(got, name) <= getattr(most, name)


def test_verdict_is_that_of_the_samples():
    samples, objective = minutes(300), Objective(0.99, throughput_floor=1.0)
    now, tally = samples[-1].at, tally_of(samples)
    assert compliance_of(objective, lambda s: tally.since(now, s)) == compliance(objective, samples, now)
    assert burns_of(objective, lambda s: tally.since(now, s)) == burns(objective, samples, now)


def test_memory_is_bounded():
    tally = Tally(0.0)
    for index in range(5 * 1440):
        tally.add(Sample((index + 1.0) * MINUTE, MINUTE, 1, 0, 1, 0.0))
    bound = FINE_SECONDS / MINUTE + (3 * DAY - FINE_SECONDS) / COARSE_SECONDS + 4
    assert bound - 10 <= len(tally) <= bound
    for index in range(1440):
        tally.add(Sample((5 * 1440 + index + 1.0) * MINUTE, MINUTE, 0, 0, 0, 0.0))
    assert tally.since(6 * DAY, HOUR).good == 0
    assert tally.since(6 * DAY, DAY + HOUR).good == pytest.approx(60, abs=11)


def test_idle_minutes_leave_no_points():
    tally = Tally(0.0)
    for index in range(100):
        tally.add(Sample((index + 1.0) * MINUTE, MINUTE, 1 if index < 10 else 0, 0, 0, 0.0))
    assert len(tally) == 11


def test_seconds_make_minutes():
    """Samples of two seconds: sums are told at once, throughput and beginnings of windows by the minute."""
    tally = Tally(0.0)
    for index in range(150):  # five minutes
        tally.add(Sample((index + 1) * 2.0, 2.0, 1, 0, 1, 2.0))
    tally.add(Sample(302.0, 2.0, 0, 3, 0, 0.0))
    assert tally.since(302.0, HOUR).bad == 3
    assert tally.since(302.0, HOUR).backlogged_seconds == 300.0
    assert tally.since(302.0, MINUTE + 2).good == 30
    assert len(tally) == 6


def test_half_a_minute_of_backlog_is_needed_in_the_whole_minute():
    tally = Tally(0.0)
    for index in range(30):
        tally.add(Sample((index + 1) * 2.0, 2.0, 0, 0, 1, 2.0 if index < 14 else 0.0))
    assert tally.since(60.0, HOUR).backlogged_seconds == 0
    for index in range(30):
        tally.add(Sample(60 + (index + 1) * 2.0, 2.0, 0, 0, 1, 2.0 if index < 15 else 0.0))
    found = tally.since(120.0, HOUR)
    assert (found.released, found.backlogged_seconds) == (30, 60.0)
