"""Messages about the node's part in its cluster. Times are seconds since the epoch; null is "unknown" or "never"."""

from __future__ import annotations

import msgspec

from aimd.domain.cluster import ClusterStanding, KindStatistics, WatchStatistics
from aimd.protocol.messages import Message


class ClusterWatchMessage(Message, frozen=True):
    """A resource that the API server is asked for, of this node alone.

    `connected`: the API server tells of changes now. `synced`: it was listed since the daemon began. `missing`: the API
    server says that there is no such resource. `told_at` is its last word, a bookmark each minute included. `running`: the
    thread that watches runs. `problem` is why it is not connected, as the last attempt failed.
    """

    resource: str
    connected: bool
    synced: bool
    missing: bool
    told_at: float | None
    objects: int
    running: bool
    problem: str | None


class ClusterWritesMessage(Message, frozen=True):
    """Writes of a `kind`: `node` (the node's record), `service` (status of InferenceServices), `event`.

    Of what is `waiting`, the last attempt of `failing` failed. `done` and `dropped` (given up) are counts since the daemon
    began; `done_at` is the last write that succeeded.
    """

    kind: str
    waiting: int
    failing: int
    done: int
    done_at: float | None
    dropped: int


class ClusterMessage(Message, frozen=True):
    """Answer of `GET /v1/cluster`; without a configured cluster `enabled` is false and all else is empty.

    `conflicting_managers` are other managers of partitions on the node, a sentence each; null while it is not known.
    `spec_refused` is why the spec of the node's NodePartitions is not carried out. `pods_refused` are pods
    (`namespace/name`) that ask for what cannot be, and why. `idle_seconds` is the time since node and cluster have been
    compared, `failures` how often that has ended by a defect. `problem` is what the last write or read failed by;
    `running` is false when the thread of writes or that of reads has ended.
    """

    enabled: bool
    node: str | None = None
    server: str | None = None
    watches: list[ClusterWatchMessage] = msgspec.field(default_factory=list)
    writes: list[ClusterWritesMessage] = msgspec.field(default_factory=list)
    conflicting_managers: list[str] | None = None
    spec_refused: str | None = None
    pods_refused: dict[str, str] = msgspec.field(default_factory=dict)
    idle_seconds: float | None = None
    failures: int = 0
    problem: str | None = None
    running: bool = False


def cluster_message(standing: ClusterStanding | None) -> ClusterMessage:
    """How the node takes part; None: it does not."""
    if standing is None:
        return ClusterMessage(enabled=False)
    found = standing.statistics
    return ClusterMessage(
        enabled=True,
        node=standing.node,
        server=found.server,
        watches=[_watch(each) for each in found.watches],
        writes=[_writes(kind, each) for kind, each in sorted(found.writes.kinds.items())],
        conflicting_managers=None if standing.rivals is None else list(standing.rivals),
        spec_refused=standing.refused,
        pods_refused=dict(standing.pods_refused),
        idle_seconds=round(standing.idle_seconds, 3),
        failures=standing.failures,
        problem=found.writes.problem or found.reads.problem,
        running=found.writes.running and found.reads.running,
    )


def _watch(watch: WatchStatistics) -> ClusterWatchMessage:
    return ClusterWatchMessage(
        resource=watch.resource,
        connected=watch.connected,
        synced=watch.synced,
        missing=watch.missing,
        told_at=watch.told_at,
        objects=watch.objects,
        running=watch.running,
        problem=watch.problem,
    )


def _writes(kind: str, writes: KindStatistics) -> ClusterWritesMessage:
    return ClusterWritesMessage(
        kind=kind,
        waiting=writes.waiting,
        failing=writes.failing,
        done=writes.done,
        done_at=writes.done_at,
        dropped=sum(writes.dropped.values()),
    )
