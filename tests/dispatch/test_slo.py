"""Compliance, burn rates over the four pairs of windows, and what a few requests may not do."""

import pytest

from aimd.domain.slo import Objective, Sample, Severity, Totals, Verdict
from aimd.errors import InvalidInputError
from aimd.planning.slo import DAY, HOUR, MINUTE, WINDOWS, burns, compliance, retained, sample

OBJECTIVE = Objective(good_ratio=0.99)


def minutes(count, good=100, bad=0, released=None, backlog=0.0, end=0.0):
    """Samples of a minute each, the last one at `end`."""
    released = good if released is None else released
    return [Sample(end - MINUTE * index, MINUTE, good, bad, released, backlog) for index in range(count)][::-1]


@pytest.mark.parametrize(
    ("bad", "firing", "alert"),
    [
        (0, [False, False, False, False], None),
        (1, [False, False, False, True], Severity.TICKET),  # 1 % of 100 requests: budget used up exactly
        (3, [False, False, True, True], Severity.TICKET),
        (6, [False, True, True, True], Severity.PAGE),
        (14, [False, True, True, True], Severity.PAGE),
        (15, [True, True, True, True], Severity.PAGE),
    ],
)
def test_steady_burn_fires_the_pairs_whose_threshold_it_reaches(bad, firing, alert):
    found = compliance(OBJECTIVE, minutes(3 * 1440, good=100 - bad, bad=bad), now=0)
    assert [pair.firing for pair in found.burns] == firing
    assert found.alert == alert


@pytest.mark.parametrize(("long", "short", "threshold", "severity"), WINDOWS)
def test_pair_needs_both_windows(long, short, threshold, severity):
    share = threshold * 1.01  # percent of bad ones
    burning = dict.fromkeys(("good", "bad"), 0) | {"good": int(10_000 - share * 100), "bad": int(share * 100) + 1}

    def pair_of(samples):
        return next(pair for pair in burns(OBJECTIVE, samples, now=0) if pair.threshold == threshold)

    over = minutes(long // MINUTE - short // MINUTE, **burning, end=-float(short)) + minutes(short // MINUTE)
    assert pair_of(over).short == 0
    assert not pair_of(over).firing  # it has ended
    just_begun = minutes(long // MINUTE - short // MINUTE, 10_000, end=-float(short)) + minutes(
        short // MINUTE, **burning
    )
    assert pair_of(just_begun).long < threshold
    assert not pair_of(just_begun).firing  # it does not matter yet
    throughout = pair_of(minutes(long // MINUTE, **burning))
    assert throughout.firing
    assert throughout.severity == severity


def test_windows_end_where_they_should():
    [page, *_] = burns(OBJECTIVE, minutes(1, 0, 100, end=-HOUR) + minutes(1, 100, end=-5 * MINUTE), now=0)
    assert (page.long, page.short) == (0, None)
    [page, *_] = burns(OBJECTIVE, minutes(1, 0, 100, end=1.0 - HOUR) + minutes(1, 100, end=1.0 - 5 * MINUTE), now=0)
    assert page.long == pytest.approx(50)
    assert page.short == 0


def test_one_bad_of_two_calls_nobody():
    few = minutes(1, good=1, bad=1)
    found = compliance(OBJECTIVE, few, now=0)
    assert found.burns[0].long == pytest.approx(50)
    assert (found.alert, found.latency) == (None, Verdict.UNKNOWN)
    assert compliance(Objective(0.99, minimum_requests=2), few, now=0).alert == Severity.PAGE


@pytest.mark.parametrize(("bad", "verdict"), [(0, Verdict.MET), (1, Verdict.MET), (2, Verdict.MISSED)])
def test_latency_over_the_window(bad, verdict):
    found = compliance(OBJECTIVE, minutes(100, good=0, bad=50, end=-HOUR) + minutes(60, 100 - bad, bad), now=0)
    assert (found.latency, found.good_ratio) == (verdict, (100 - bad) / 100)


@pytest.mark.parametrize(
    ("released", "backlog", "verdict", "rate"),
    [
        (60, 60.0, Verdict.MISSED, 1.0),
        (120, 60.0, Verdict.MET, 2.0),
        (60, 30.0, Verdict.MISSED, 1.0),
        (0, 29.0, Verdict.UNKNOWN, None),  # idle is no breach
        (0, 0.0, Verdict.UNKNOWN, None),
    ],
)
def test_throughput_counts_while_something_waits(released, backlog, verdict, rate):
    objective = Objective(throughput_floor=2.0)
    found = compliance(objective, minutes(10, 0, 0, released, backlog), now=0)
    assert (found.throughput, found.released_per_second) == (verdict, rate)


def test_idle_minutes_do_not_thin_out_the_rate():
    samples = minutes(30, 0, 0, 0, 0.0, end=-30.0 * MINUTE) + minutes(30, 0, 0, 180, 60.0)
    assert compliance(Objective(throughput_floor=3.0), samples, now=0).throughput == Verdict.MET


def test_without_a_floor_the_rate_is_told_and_not_judged():
    found = compliance(OBJECTIVE, minutes(1, 60, 0, 60, 60.0), now=0)
    assert (found.throughput, found.released_per_second) == (Verdict.UNKNOWN, 1.0)


def test_nothing_counted_says_nothing():
    found = compliance(OBJECTIVE, (), now=0)
    assert (found.latency, found.good_ratio, found.throughput, found.alert) == (
        Verdict.UNKNOWN,
        None,
        Verdict.UNKNOWN,
        None,
    )
    assert all(pair.long is None for pair in found.burns)


def test_sample_is_the_difference_of_readings():
    before, after = Totals(60.0, 10, 2, 11, 30.0), Totals(120.0, 15, 2, 17, 45.0)
    assert sample(before, after) == Sample(120.0, 60.0, good=5, bad=0, released=6, backlog_seconds=15.0)


def test_counters_that_went_back_began_again():
    before, after = Totals(60.0, 10, 2, 11, 30.0), Totals(120.0, 12, 1, 13, 70.0)
    assert sample(before, after) == Sample(120.0, 60.0, good=12, bad=1, released=13, backlog_seconds=60.0)


def test_three_days_are_retained():
    samples = minutes(4 * 1440)
    assert retained(samples, now=0) == tuple(samples[-3 * 1440 :])
    assert burns(OBJECTIVE, samples, 0) == burns(OBJECTIVE, retained(samples, 0), 0)
    assert WINDOWS[-1][0] == DAY * 3


@pytest.mark.parametrize(
    "wrong", [{"good_ratio": 0.0}, {"good_ratio": 1.0}, {"throughput_floor": 0.0}, {"minimum_requests": 0}]
)
def test_impossible_objective_is_refused(wrong):
    with pytest.raises(InvalidInputError, match="objective"):
        Objective(**wrong)
