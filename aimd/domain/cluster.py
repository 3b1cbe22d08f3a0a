"""What is known of the cluster beside its pods: how the connection to it is, and names of objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DURATION_BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object of the cluster that an Event can tell of; `namespace` is empty for those of the whole cluster."""

    api_version: str
    kind: str
    name: str
    uid: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class WatchStatistics:
    """How one watch is. All counts are of this process.

    Attributes:
        resource: what is watched (`pods`, `nodepartitions`).
        connected: the API server tells of changes now.
        synced: it has been listed at least once.
        told_at: seconds since the epoch when the API server last said anything here (list, event, bookmark); None if never.
        objects: how many there are.
        lists: lists that succeeded.
        events: events that were told, bookmarks and late ones included.
        restarts: how often the watch had to begin again, by reason.
        problem: why it is not connected, a sentence.
    """

    resource: str
    connected: bool = False
    synced: bool = False
    told_at: float | None = None
    objects: int = 0
    lists: int = 0
    events: int = 0
    restarts: Mapping[str, int] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram: `counts` has one more entry than DURATION_BOUNDS_SECONDS, each of its own interval."""

    counts: tuple[int, ...]
    sum_seconds: float


@dataclass(frozen=True, slots=True)
class WriteStatistics:
    """What is to be written, and what became of it.

    Attributes:
        waiting: keys in the queue.
        done, dropped: works that succeeded, and that were given up.
        retries: attempts that have to be repeated, by reason.
        events_held_back: Events that a limit kept from being sent.
        problem: what the last attempt failed by; None if it succeeded.
    """

    waiting: int = 0
    done: int = 0
    dropped: int = 0
    retries: Mapping[str, int] = field(default_factory=dict)
    events_held_back: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class KubeStatistics:
    """The connection to the cluster.

    Attributes:
        requests: by verb, resource and code (`get`, `inferenceservices/status`, `200`; `unreachable` where none came).
        durations: by verb and resource, until the answer was read; of watches until it began.
    """

    watches: tuple[WatchStatistics, ...] = ()
    writes: WriteStatistics = field(default_factory=WriteStatistics)
    requests: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    durations: Mapping[tuple[str, str], Durations] = field(default_factory=dict)
