"""What goes through models: counters as they were read at an instant, and what follows from several readings.

Times are seconds of CLOCK_MONOTONIC where nothing else is said. Outcomes and ends are named as the dispatch core names
them, in lower case; one that is not in a mapping has not happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from aimd.domain.claim import QosClass
from aimd.domain.partition import PartitionKey
from aimd.domain.slo import Compliance

GRANTED = "granted"
# An acquire that ended otherwise was rejected: its client still wanted the lease, and would have waited.
NOT_REJECTED = frozenset({GRANTED, "cancelled", "would_block"})
RETURNED = frozenset({"ok", "failed"})  # ends of leases that their clients gave back


class Stage(str, Enum):
    """A part of a request's life: until its grant, from there to its release, all of it."""

    QUEUE = "queue"
    SERVICE = "service"
    TOTAL = "total"

    __str__ = str.__str__


Cells = Mapping[int, int]  # how many latencies by cell of a sketch; a larger cell holds longer ones


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one class: what runs and waits now, and what was counted, since the counters began or between two readings."""

    running: int = 0
    waiting: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    ends: Mapping[str, int] = field(default_factory=dict)
    good: int = 0
    bad: int = 0

    @property
    def granted(self) -> int:
        return self.outcomes.get(GRANTED, 0)

    @property
    def rejected(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome not in NOT_REJECTED)

    @property
    def returned(self) -> int:
        return sum(count for end, count in self.ends.items() if end in RETURNED)


@dataclass(frozen=True, slots=True)
class Reading:
    """A model's counters on one partition.

    Attributes:
        at: when they were read.
        begun: when they were 0; a core that forgot a model in between begins anew.
        backlog_seconds: time with something waiting.
        cells: latencies, by stage and class.
        slots: of the partition.
    """

    at: float
    begun: float
    classes: Mapping[QosClass, Counts]
    backlog_seconds: float = 0.0
    cells: Mapping[tuple[Stage, QosClass], Cells] = field(default_factory=dict)
    slots: int = 0


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of `count` latencies, in seconds; None without any."""

    count: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """Counts since the history began; rates (per second) and latencies over its recent window."""

    counts: Counts
    grants_per_second: float
    rejected_per_second: float
    latencies: Mapping[Stage, Quantiles]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is known of a model, on a partition or on all that it is on.

    Attributes:
        since: wall-clock time (seconds since the epoch) from which on it was counted.
        slots: of the partition, or of all of them; other models there share them.
    """

    since: float
    slots: int
    whole: Flow
    classes: Mapping[QosClass, Flow]
    compliance: Compliance | None


@dataclass(frozen=True, slots=True)
class ModelTraffic:
    """A model, and its part on each partition that it has been seen on; `whole` has those that are gone, too."""

    whole: Traffic
    places: Mapping[PartitionKey, Traffic]


@dataclass(frozen=True, slots=True)
class TrafficBoard:
    """All models at one instant; a model or a partition that was not read yet is not there.

    Attributes:
        number: grows with every board, across restarts of the daemon too.
        window_seconds: what rates and latencies are of; less where less was seen.
    """

    number: int
    window_seconds: float
    models: Mapping[str, ModelTraffic] = field(default_factory=dict)
