"""What is known of the cluster beside its pods: how the connection to it is, and names of objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

WRITE_KINDS = ("event", "node", "service")  # what is written: Events, the node's own record, status of services
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
        connected: the API server tells of changes now, or has ended a watch in its time and is asked to go on.
        synced: it has been listed at least once, and is not missing.
        missing: the API server says that there is no such resource: its CRD is not installed.
        told_at: seconds since the epoch when the API server last said anything here (list, event, bookmark); None if never.
        objects: how many there are.
        lists: lists that succeeded, by why they were made: `first`, else why the watch before could not go on.
        events: events that were told, bookmarks and late ones included.
        restarts: how often the watch had to begin again, by reason (`ended`: in its time, with no pause).
        pause_seconds: sum of the pauses after failures.
        problem: why it is not connected, a sentence.
        running: its thread is; one that has ended by a defect does not begin again by itself.
    """

    resource: str
    connected: bool = False
    synced: bool = False
    missing: bool = False
    told_at: float | None = None
    objects: int = 0
    lists: Mapping[str, int] = field(default_factory=dict)
    events: int = 0
    restarts: Mapping[str, int] = field(default_factory=dict)
    pause_seconds: float = 0.0
    problem: str | None = None
    running: bool = False


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram: `counts` has one more entry than DURATION_BOUNDS_SECONDS, each of its own interval."""

    counts: tuple[int, ...] = (0,) * (len(DURATION_BOUNDS_SECONDS) + 1)
    sum_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class KindStatistics:
    """Writes of one kind.

    Attributes:
        waiting: what is to be written, with what is being written now; failing: of these, the last attempt failed.
        done: writes that succeeded; done_at: seconds since the epoch of the last one.
        dropped: writes that were given up, by reason.
        retries: attempts that have to be repeated, by reason.
        durations: of those that succeeded, from when there was something to write.
    """

    waiting: int = 0
    failing: int = 0
    done: int = 0
    done_at: float | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)
    durations: Durations = field(default_factory=Durations)


@dataclass(frozen=True, slots=True)
class WriteStatistics:
    """What is to be written, and what became of it.

    Attributes:
        kinds: by kind, of WRITE_KINDS.
        events_held_back: Events that a limit kept from being sent.
        pause_seconds: sum of the pauses after failures of the API server.
        problem: what the last attempt failed by; None if it succeeded.
        running: as of a watch.
    """

    kinds: Mapping[str, KindStatistics] = field(default_factory=dict)
    events_held_back: int = 0
    pause_seconds: float = 0.0
    problem: str | None = None
    running: bool = False

    @property
    def waiting(self) -> int:
        """Of all kinds, as those that follow."""
        return sum(kind.waiting for kind in self.kinds.values())

    @property
    def failing(self) -> int:
        return sum(kind.failing for kind in self.kinds.values())

    @property
    def done(self) -> int:
        return sum(kind.done for kind in self.kinds.values())

    @property
    def dropped(self) -> int:
        return sum(sum(kind.dropped.values()) for kind in self.kinds.values())

    @property
    def retries(self) -> dict[str, int]:
        found: Counter[str] = Counter()
        for kind in self.kinds.values():
            found.update(kind.retries)
        return dict(found)


@dataclass(frozen=True, slots=True)
class KubeStatistics:
    """The connection to the cluster.

    Attributes:
        server: URL of the API server.
        reads: as `writes`, of what is read beside the watches; kinds are others.
        requests: by verb, resource and code (`get`, `inferenceservices/status`, `200`; `unreachable` where none came).
        durations: by verb and resource, until the answer was read; of watches until it began.
        reloads: how often credentials were read again, by whether they could be (`ok`, `error`).
    """

    watches: tuple[WatchStatistics, ...] = ()
    writes: WriteStatistics = field(default_factory=WriteStatistics)
    requests: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    durations: Mapping[tuple[str, str], Durations] = field(default_factory=dict)
    reloads: Mapping[str, int] = field(default_factory=dict)
    server: str = ""
    reads: WriteStatistics = field(default_factory=WriteStatistics)


@dataclass(frozen=True, slots=True)
class ClusterStanding:
    """How the node takes part in its cluster.

    Attributes:
        node: name of its Node.
        rivals: other managers of partitions on the node, a sentence each; None while it is not known.
        refused: why the spec of the node's record is not carried out; None if it is, or there is none.
        pods_refused: pods (`namespace/name`) whose annotations or service ask for what cannot be, and why.
        idle_seconds: since node and cluster have been compared, or could not be for want of either.
        failures: how often that has ended by a defect.
    """

    node: str
    statistics: KubeStatistics = field(default_factory=KubeStatistics)
    rivals: tuple[str, ...] | None = None
    refused: str | None = None
    pods_refused: Mapping[str, str] = field(default_factory=dict)
    idle_seconds: float = 0.0
    failures: int = 0
