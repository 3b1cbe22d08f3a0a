"""What the load scene did, from the records of those who did it: exact counts, and bounds where a client cannot know more.

A client measures from outside: a latency as the dispatch core counts it is at most from before the request was sent to
after the release, and at least from when it had been sent (plus SLACK for the core to read it) to before the release.
Times are of time.time(), as Prometheus has them.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from aimd.sim.activity import SMOOTHING_SECONDS
from tests.dashboards.load_cluster import Asked

SLACK_SECONDS = 0.03
LEASE_SECONDS = 3.0  # after which the scene's daemon revokes a lease
LEASE_ENDS = ("released", "failed", "revoked", "lost")


@dataclass(frozen=True)
class Request:
    """`outcome` as the client saw it: one of LEASE_ENDS, or why there was no lease."""

    model: str
    klass: str
    outcome: str
    submitted: float
    sent: float
    ended: float
    granted: float | None = None
    releasing: float | None = None
    partition: str | None = None

    @property
    def leased(self) -> bool:
        return self.granted is not None

    @property
    def over(self) -> float:
        """When it did not run any more: a lease that is revoked ends before its client gives it back."""
        return self.granted + LEASE_SECONDS if self.granted and self.outcome == "revoked" else self.ended

    def total(self) -> tuple[float, float]:
        """Bounds of the seconds from acquire to release."""
        assert self.releasing is not None
        return max(0.0, self.releasing - self.sent - SLACK_SECONDS), self.ended - self.submitted

    def wait(self) -> tuple[float, float]:
        """Bounds of the seconds from acquire to grant."""
        assert self.granted is not None
        return max(0.0, self.granted - self.sent - 2 * SLACK_SECONDS), self.granted - self.submitted


@dataclass(frozen=True)
class Busy:
    """From some instant between began and ended on, a process kept the partition busy by `share`."""

    process: str
    partition: str
    share: float
    began: float
    ended: float


@dataclass(frozen=True)
class Operation:
    """Of the control path, as the director had it done: `what` and its result in words of the metrics."""

    what: str
    outcome: str
    began: float
    ended: float
    detail: dict[str, str] = field(default_factory=dict)


@dataclass
class Truth:
    requests: list[Request] = field(default_factory=list)
    busy: list[Busy] = field(default_factory=list)
    memory: Counter[str] = field(default_factory=Counter)
    operations: list[Operation] = field(default_factory=list)
    began: float = 0.0
    ended: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)

    @classmethod
    def read(cls, paths: Iterable[Path], operations: list[Operation], began: float, ended: float) -> Truth:
        truth = cls(operations=list(operations), began=began, ended=ended)
        for path in paths:
            for line in path.read_text().splitlines():
                one = json.loads(line)
                kind = one.pop("kind")
                if kind == "request":
                    truth.requests.append(Request(**one))
                elif kind == "busy":
                    truth.busy.append(Busy(path.stem, **one))
                else:
                    truth.memory[one["partition"]] += one["bytes"]
        return truth

    def counts(self, since: float = -math.inf, until: float = math.inf) -> Counter[tuple[str, str, str]]:
        """Requests by model, class and outcome that ended in that time."""
        return Counter((r.model, r.klass, r.outcome) for r in self.requests if since < r.ended <= until)

    def of(self, model: str, *outcomes: str, since: float = -math.inf, until: float = math.inf) -> int:
        found = self.counts(since, until)
        return sum(count for (name, _, outcome), count in found.items() if name == model and outcome in outcomes)

    def leases(self, model: str, since: float = -math.inf, until: float = math.inf) -> list[Request]:
        """Those that were given back in that time, well or not."""
        ended = (r for r in self.requests if r.model == model and r.outcome in ("released", "failed"))
        return [r for r in ended if since < r.ended <= until]

    def granted(self, model: str, since: float = -math.inf, until: float = math.inf) -> list[Request]:
        return [r for r in self.requests if r.model == model and r.granted is not None and since < r.granted <= until]

    def late(self, model: str, target: float) -> tuple[int, int]:
        """At least and at most so many were released well, but after the target."""
        well = [r.total() for r in self.requests if r.model == model and r.outcome == "released"]
        return sum(low > target for low, _ in well), sum(high > target for _, high in well)

    def running(self, choose: Callable[[Request], bool], since: float, until: float) -> tuple[int, int]:
        """The least and the most leases that ran at an instant of that time."""
        return _extremes([(r.granted, r.over) for r in self.requests if r.granted and choose(r)], since, until)

    def waiting(self, choose: Callable[[Request], bool], since: float, until: float) -> tuple[int, int]:
        """The same of requests that waited."""
        return _extremes([(r.submitted, r.granted or r.ended) for r in self.requests if choose(r)], since, until)

    def slot_seconds(self, model: str, since: float, until: float) -> float:
        """Sum over that time of the model's running leases."""
        spans = [(r.granted, r.over) for r in self.requests if r.model == model and r.granted is not None]
        return sum(max(0.0, min(end, until) - max(begin, since)) for begin, end in spans)

    def utilization(self, partition: str, at: float, age: float, margin: float = 0.02) -> tuple[float, float]:
        """Bounds of what the simulated hardware told of the partition within `age` seconds before `at`."""
        instants = [at - age * step / 100 for step in range(101)]
        levels = [self._level(partition, instant) for instant in instants]
        return max(0.0, min(levels) - margin), min(1.0, max(levels) + margin)

    def _level(self, partition: str, at: float) -> float:
        """The smoothing of sim/activity.py, written down a second time."""
        processes = {one.process for one in self.busy if one.partition == partition}
        return min(1.0, sum(self._process_level(process, partition, at) for process in processes))

    def _process_level(self, process: str, partition: str, at: float) -> float:
        level = share = 0.0
        last = self.began
        for one in self.busy:
            if (one.process, one.partition) == (process, partition) and one.ended <= at:
                level = share + (level - share) * math.exp(-(one.ended - last) / SMOOTHING_SECONDS)
                share, last = one.share, one.ended
        return share + (level - share) * math.exp(-max(0.0, at - last) / SMOOTHING_SECONDS)


def _extremes(spans: list[tuple[float, float]], since: float, until: float) -> tuple[int, int]:
    instants = [since + (until - since) * step / 200 for step in range(201)]
    counts = [sum(begin <= at < end for begin, end in spans) for at in instants]
    return min(counts), max(counts)


def quantile_bounds(spans: list[tuple[float, float]], q: float, buckets: Iterable[float]) -> tuple[float, float]:
    """Where histogram_quantile may be: within the bucket that the quantile of the true values, in their bounds, is in."""
    edges = [0.0, *sorted(bound for bound in buckets if bound < math.inf)]
    rank = max(0, math.ceil(q * len(spans)) - 1)
    low, high = sorted(low for low, _ in spans)[rank], sorted(high for _, high in spans)[min(rank + 1, len(spans) - 1)]
    return max(edge for edge in edges if edge <= low), min((edge for edge in edges if edge >= high), default=edges[-1])
