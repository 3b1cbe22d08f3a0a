"""Service level of a model from minute samples of its exact counters: compliance, burn rates, alerts.

The windows and thresholds are those of the Site Reliability Workbook, chapter 5, "Multiwindow, multi-burn-rate alerts",
with a minimum count, so that one bad request of two calls nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from aimd.domain.claim import NO_SLO, Slo
from aimd.domain.slo import Burn, Compliance, Counted, Objective, Sample, Severity, Totals, Verdict

MINUTE, HOUR, DAY = 60, 3600, 86_400

# Long window, short window, burn rate that both must reach, what it calls for.
WINDOWS = (
    (HOUR, 5 * MINUTE, 14.4, Severity.PAGE),
    (6 * HOUR, 30 * MINUTE, 6.0, Severity.PAGE),
    (DAY, 2 * HOUR, 3.0, Severity.TICKET),
    (3 * DAY, 6 * HOUR, 1.0, Severity.TICKET),
)
RETENTION = 3 * DAY

WindowOf = Callable[[float], Counted]  # what was counted in the last so many seconds

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


def backlogged(one: Sample) -> bool:
    """Whether the sample speaks of throughput."""
    return one.span > 0 and one.backlog_seconds >= BACKLOGGED * one.span


def counted(samples: Iterable[Sample]) -> Counted:
    """The sum of samples."""
    every = tuple(samples)
    busy = [one for one in every if backlogged(one)]
    return Counted(
        good=sum(one.good for one in every),
        bad=sum(one.bad for one in every),
        released=sum(one.released for one in busy),
        backlogged_seconds=sum(one.span for one in busy),
    )


def burn_rate(window: Counted, good_ratio: float) -> float | None:
    """Bad ratio over what the objective allows; None when neither good nor bad was counted."""
    total = window.good + window.bad
    return window.bad / total / (1 - good_ratio) if total else None


def burns(objective: Objective, samples: Sequence[Sample], now: float) -> tuple[Burn, ...]:
    """All pairs of windows at `now`; a window that is longer than the history counts what there is."""
    return burns_of(objective, lambda seconds: counted(within(samples, now, seconds)))


def burns_of(objective: Objective, window_of: WindowOf) -> tuple[Burn, ...]:
    """All pairs of windows."""
    found = []
    for long_seconds, short_seconds, threshold, severity in WINDOWS:
        wide = window_of(long_seconds)
        long, short = (burn_rate(one, objective.good_ratio) for one in (wide, window_of(short_seconds)))
        enough = wide.good + wide.bad >= objective.minimum_requests
        firing = enough and _reached(long, threshold) and _reached(short, threshold)
        found.append(Burn(long_seconds, short_seconds, threshold, severity, long, short, firing))
    return tuple(found)


def _reached(rate: float | None, threshold: float) -> bool:
    # 1 - 0.99 is not exactly 0.01: a rate that should equal the threshold may come out a last digit below it.
    return rate is not None and rate >= threshold * (1 - 1e-9)


def latency(objective: Objective, window: Counted) -> tuple[Verdict, float | None]:
    """Whether enough of the requests were good, and their share."""
    total = window.good + window.bad
    ratio = window.good / total if total else None
    if ratio is None or total < objective.minimum_requests:
        return Verdict.UNKNOWN, ratio
    return (Verdict.MET if ratio >= objective.good_ratio else Verdict.MISSED), ratio


def throughput(objective: Objective, window: Counted) -> tuple[Verdict, float | None]:
    """Whether releases per second kept the floor in the samples with a backlog, and the rate in these."""
    rate = window.released / window.backlogged_seconds if window.backlogged_seconds else None
    if rate is None or objective.throughput_floor is None:
        return Verdict.UNKNOWN, rate
    return (Verdict.MET if rate >= objective.throughput_floor else Verdict.MISSED), rate


def compliance(objective: Objective, samples: Sequence[Sample], now: float, window: float = HOUR) -> Compliance:
    """The verdict on a model at `now`, with the objectives judged over the last `window` seconds."""
    return compliance_of(objective, lambda seconds: counted(within(samples, now, seconds)), window)


def compliance_of(objective: Objective, window_of: WindowOf, window: float = HOUR) -> Compliance:
    """The verdict from what was counted in the last seconds."""
    recent = window_of(window)
    met, ratio = latency(objective, recent)
    kept, rate = throughput(objective, recent)
    pairs = burns_of(objective, window_of)
    firing = [pair.severity for pair in pairs if pair.firing]
    return Compliance(met, ratio, kept, rate, pairs, firing[0] if firing else None)


def objective_of(slo: Slo) -> Objective | None:
    """What a claim asks for; None if it asks for nothing. Without a ratio, that of Objective is meant."""
    if slo == NO_SLO:
        return None
    ratio = Objective().good_ratio if slo.objective is None else slo.objective
    return Objective(good_ratio=ratio, throughput_floor=slo.throughput_floor)
