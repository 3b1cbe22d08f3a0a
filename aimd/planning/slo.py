"""Service level of a model from minute samples of its exact counters: compliance, burn rates, alerts.

The windows and thresholds are those of the Site Reliability Workbook, chapter 5, "Multiwindow, multi-burn-rate alerts",
with a minimum count, so that one bad request of two calls nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aimd.domain.slo import Burn, Compliance, Objective, Sample, Severity, Totals, Verdict

MINUTE, HOUR, DAY = 60, 3600, 86_400

# Long window, short window, burn rate that both must reach, what it calls for.
WINDOWS = (
    (HOUR, 5 * MINUTE, 14.4, Severity.PAGE),
    (6 * HOUR, 30 * MINUTE, 6.0, Severity.PAGE),
    (DAY, 2 * HOUR, 3.0, Severity.TICKET),
    (3 * DAY, 6 * HOUR, 1.0, Severity.TICKET),
)
RETENTION = 3 * DAY

# A sample speaks of throughput when something waited during at least this part of it.
BACKLOGGED = 0.5


def sample(before: Totals, after: Totals) -> Sample:
    """What was counted between two readings; a counter that went back has started again from 0 (a new core)."""
    restarted = (
        after.good < before.good
        or after.bad < before.bad
        or after.released < before.released
        or after.backlog_seconds < before.backlog_seconds
    )
    base = Totals(before.at) if restarted else before
    return Sample(
        at=after.at,
        span=after.at - before.at,
        good=after.good - base.good,
        bad=after.bad - base.bad,
        released=after.released - base.released,
        backlog_seconds=min(after.backlog_seconds - base.backlog_seconds, after.at - before.at),
    )


def retained(samples: Iterable[Sample], now: float) -> tuple[Sample, ...]:
    """The samples that a window still needs."""
    return tuple(within(samples, now, RETENTION))


def within(samples: Iterable[Sample], now: float, seconds: float) -> list[Sample]:
    """The samples that ended in the window (now - seconds, now]."""
    return [one for one in samples if now - seconds < one.at <= now]


def burn_rate(samples: Sequence[Sample], good_ratio: float) -> float | None:
    """Bad ratio over what the objective allows; None when neither good nor bad was counted."""
    bad = sum(one.bad for one in samples)
    total = bad + sum(one.good for one in samples)
    return bad / total / (1 - good_ratio) if total else None


def burns(objective: Objective, samples: Sequence[Sample], now: float) -> tuple[Burn, ...]:
    """All pairs of windows at `now`; a window that is longer than the history counts what there is."""
    found = []
    for long_seconds, short_seconds, threshold, severity in WINDOWS:
        wide, narrow = within(samples, now, long_seconds), within(samples, now, short_seconds)
        long, short = burn_rate(wide, objective.good_ratio), burn_rate(narrow, objective.good_ratio)
        counted = sum(one.good + one.bad for one in wide)
        firing = counted >= objective.minimum_requests and _reached(long, threshold) and _reached(short, threshold)
        found.append(Burn(long_seconds, short_seconds, threshold, severity, long, short, firing))
    return tuple(found)


def _reached(rate: float | None, threshold: float) -> bool:
    # 1 - 0.99 is not exactly 0.01: a rate that should equal the threshold may come out a last digit below it.
    return rate is not None and rate >= threshold * (1 - 1e-9)


def latency(objective: Objective, samples: Sequence[Sample]) -> tuple[Verdict, float | None]:
    """Whether enough of the requests were good, and their share."""
    good = sum(one.good for one in samples)
    total = good + sum(one.bad for one in samples)
    ratio = good / total if total else None
    if ratio is None or total < objective.minimum_requests:
        return Verdict.UNKNOWN, ratio
    return (Verdict.MET if ratio >= objective.good_ratio else Verdict.MISSED), ratio


def throughput(objective: Objective, samples: Sequence[Sample]) -> tuple[Verdict, float | None]:
    """Whether releases per second kept the floor in the samples with a backlog, and the rate in these."""
    busy = [one for one in samples if one.span > 0 and one.backlog_seconds >= BACKLOGGED * one.span]
    seconds = sum(one.span for one in busy)
    rate = sum(one.released for one in busy) / seconds if seconds else None
    if rate is None or objective.throughput_floor is None:
        return Verdict.UNKNOWN, rate
    return (Verdict.MET if rate >= objective.throughput_floor else Verdict.MISSED), rate


def compliance(objective: Objective, samples: Sequence[Sample], now: float, window: float = HOUR) -> Compliance:
    """The verdict on a model at `now`, with the objectives judged over the last `window` seconds."""
    recent = within(samples, now, window)
    met, ratio = latency(objective, recent)
    kept, rate = throughput(objective, recent)
    pairs = burns(objective, samples, now)
    firing = [pair.severity for pair in pairs if pair.firing]
    return Compliance(met, ratio, kept, rate, pairs, firing[0] if firing else None)
