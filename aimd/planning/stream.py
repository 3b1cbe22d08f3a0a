"""What went through one model, on a partition or on all: counts since a beginning, rates and latencies of the last minute,
and the service level over days. Fed with what was counted from one reading to the next; nothing here knows counters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from aimd.domain.claim import QosClass
from aimd.domain.slo import Objective, Sample
from aimd.domain.traffic import Cells, Counts, Flow, Stage, Traffic
from aimd.planning.latency_window import LatencyWindow, SecondsOf, added, quantiles
from aimd.planning.slo import MINUTE, compliance_of
from aimd.planning.tally import Tally

WINDOW_SECONDS = 60.0
NOTHING = Counts()


@dataclass(frozen=True, slots=True)
class Growth:
    """What was counted in the `span` seconds up to `at`; `running` and `waiting` of the counts are of that instant."""

    at: float
    span: float
    classes: Mapping[QosClass, Counts]
    backlog_seconds: float = 0.0
    cells: Mapping[tuple[Stage, QosClass], Cells] = field(default_factory=dict)
    slots: int = 0


def plus(one: Counts, other: Counts) -> Counts:
    """Both together."""
    return Counts(
        one.running + other.running,
        one.waiting + other.waiting,
        _sum(one.outcomes, other.outcomes),
        _sum(one.ends, other.ends),
        one.good + other.good,
        one.bad + other.bad,
    )


def together(parts: Iterable[Growth], at: float, span: float) -> Growth:
    """The growth of a model from those of its partitions: backlogged where one of them was."""
    parts = list(parts)
    classes: dict[QosClass, Counts] = {}
    cells: dict[tuple[Stage, QosClass], list[Cells]] = {}
    for part in parts:
        for qos, counts in part.classes.items():
            classes[qos] = plus(classes.get(qos, NOTHING), counts)
        for key, several in part.cells.items():
            cells.setdefault(key, []).append(several)
    backlog_seconds = min(span, max((part.backlog_seconds for part in parts), default=0.0))
    merged = {key: several[0] if len(several) == 1 else added(several) for key, several in cells.items()}
    return Growth(at, span, classes, backlog_seconds, merged, sum(part.slots for part in parts))


class _Told(NamedTuple):
    """The answer to an earlier question. `idle`: nothing had changed in the whole window of rates and latencies."""

    at: float
    idle: bool
    objective: Objective | None
    traffic: Traffic


class Stream:
    """Takes growths in the order of time.

    Args:
        begun: when nothing had been counted yet.
        since: the same as wall-clock time, seconds since the epoch; told, not used.
        seconds_of: what the latencies in a cell are told as.
    """

    def __init__(self, begun: float, since: float, seconds_of: SecondsOf) -> None:
        self._at = self._changed_at = begun
        self._told: _Told | None = None
        self._since = since
        self._seconds_of = seconds_of
        self._slots = 0
        self._classes: dict[QosClass, Counts] = {}
        self._recent: deque[Growth] = deque()
        self._latencies: dict[tuple[Stage, QosClass], LatencyWindow] = {}
        self._tally = Tally(begun)

    @property
    def at(self) -> float:
        """Until when it has counted."""
        return self._at

    def add(self, growth: Growth) -> None:
        classes = {qos: _grown(self._classes.get(qos), growth.classes.get(qos)) for qos in QosClass}
        if classes != self._classes or growth.slots != self._slots:
            self._changed_at = growth.at
        self._at, self._slots, self._classes = growth.at, growth.slots, classes
        self._recent.append(replace(growth, cells={}))
        while self._recent[0].at <= growth.at - WINDOW_SECONDS:
            self._recent.popleft()
        for key, cells in growth.cells.items():
            if cells and key not in self._latencies:
                self._latencies[key] = LatencyWindow(WINDOW_SECONDS)
        for key, window in self._latencies.items():
            window.add(growth.at, growth.cells.get(key, {}))
        every = growth.classes.values()
        self._tally.add(
            Sample(
                growth.at,
                growth.span,
                good=sum(one.good for one in every),
                bad=sum(one.bad for one in every),
                released=sum(one.returned for one in every),
                backlog_seconds=growth.backlog_seconds,
            )
        )

    def traffic(self, objective: Objective | None) -> Traffic:
        """All that it knows, at the time of the last growth; of one that is idle its windows are looked at by the minute."""
        told = self._told
        idle = self._at - self._changed_at > WINDOW_SECONDS
        if told is None or not (idle and told.idle) or told.objective != objective or self._at - told.at >= MINUTE:
            told = self._told = _Told(self._at, idle, objective, self._traffic(objective))
        return told.traffic

    def _traffic(self, objective: Objective | None) -> Traffic:
        classes = {qos: self._flow([qos]) for qos in QosClass}
        compliance = None
        if objective is not None:
            compliance = compliance_of(objective, lambda seconds: self._tally.since(self._at, seconds))
        return Traffic(self._since, self._slots, self._flow(list(QosClass)), classes, compliance)

    def _flow(self, classes: list[QosClass]) -> Flow:
        whole = NOTHING
        for qos in classes:
            whole = plus(whole, self._classes.get(qos, NOTHING))
        recent = [growth.classes[qos] for growth in self._recent for qos in classes if qos in growth.classes]
        seconds = sum(growth.span for growth in self._recent)
        latencies = {}
        for stage in Stage:
            cells = [self._latencies[stage, qos].cells for qos in classes if (stage, qos) in self._latencies]
            latencies[stage] = quantiles(cells[0] if len(cells) == 1 else added(list(cells)), self._seconds_of)
        return Flow(
            whole,
            sum(one.granted for one in recent) / seconds if seconds > 0 else 0.0,
            sum(one.rejected for one in recent) / seconds if seconds > 0 else 0.0,
            latencies,
        )


def _grown(before: Counts | None, growth: Counts | None) -> Counts:
    before = before or NOTHING
    now = growth or NOTHING
    return Counts(
        now.running,
        now.waiting,
        _sum(before.outcomes, now.outcomes),
        _sum(before.ends, now.ends),
        before.good + now.good,
        before.bad + now.bad,
    )


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    if not other:
        return dict(one)
    sums = dict(one)
    for name, count in other.items():
        sums[name] = sums.get(name, 0) + count
    return sums
