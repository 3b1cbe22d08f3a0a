"""Families of the node's part in its cluster: watches, requests, writes, what stands in the way. Pure.

All counts are of this daemon's life; without a configured cluster there is none of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from aimd.adapters.metrics.family import Descriptor, Family
from aimd.domain.cluster import (
    DURATION_BOUNDS_SECONDS,
    ClusterStanding,
    Durations,
    KubeStatistics,
    WatchStatistics,
    WriteStatistics,
)
from aimd.domain.metering import Histogram

ALONE = "Absent without a cluster."
RESOURCE, KIND = ("resource",), ("kind",)
CONNECTED = Descriptor(
    "aim_kube_watch_connected",
    "gauge",
    "1 if the API server tells of changes of the resource; a watch that it ends in its time and that goes on at once"
    f" counts, too. {ALONE}",
    RESOURCE,
)
SYNCED = Descriptor(
    "aim_kube_synced",
    "gauge",
    f"1 if the resource was listed since the daemon began, and is not missing. {ALONE}",
    RESOURCE,
)
MISSING = Descriptor(
    "aim_kube_resource_missing",
    "gauge",
    f"1 if the API server says that there is no such resource: its CRD is not installed. {ALONE}",
    RESOURCE,
)
TOLD = Descriptor(
    "aim_kube_last_word_timestamp_seconds",
    "gauge",
    "Seconds since the epoch at which the API server last said anything of the resource (list, event, or the bookmark of"
    " each minute). Absent before, and without a cluster.",
    RESOURCE,
)
OBJECTS = Descriptor(
    "aim_kube_objects", "gauge", f"Objects of the resource that the daemon knows: of its node alone. {ALONE}", RESOURCE
)
EVENTS = Descriptor(
    "aim_kube_watch_events",
    "counter",
    f"Events that watches were told, bookmarks and late ones included. {ALONE}",
    RESOURCE,
)
LISTS = Descriptor(
    "aim_kube_lists",
    "counter",
    "Lists that succeeded, by why they were made: first, or why the watch before could not go on (gone: 410, not_found,"
    " watch_error). Absent: it has not happened, or no cluster.",
    ("resource", "reason"),
)
ENDS = Descriptor(
    "aim_kube_watch_ends",
    "counter",
    "Watches that ended, and lists that failed, by reason: ended (in its time, goes on at once), ended_early, timed_out"
    " (silent for two minutes: half-open), cut, gone (410), unauthenticated (401), throttled (429), server_error,"
    " unreachable, untrusted, denied, not_found, garbled, watch_error. Absent: it has not happened, or no cluster.",
    ("resource", "reason"),
)
PAUSES = Descriptor(
    "aim_kube_backoff_seconds",
    "counter",
    "Seconds of the pauses that were made after failures, by what waited: the watch of a resource, writes, reads."
    f" {ALONE}",
    ("part",),
)
RUNNING = Descriptor(
    "aim_kube_thread_running",
    "gauge",
    "1 if the thread that watches a resource, writes or reads runs; one that has ended by a defect begins again with the"
    f" daemon only. {ALONE}",
    ("part",),
)
REQUESTS = Descriptor(
    "aim_kube_requests",
    "counter",
    "Requests to the API server by verb, resource, and HTTP status or what kept an answer from coming (unreachable,"
    " timed_out, cut, untrusted). Absent: it has not happened, or no cluster.",
    ("verb", "resource", "code"),
)
REQUEST_SECONDS = Descriptor(
    "aim_kube_request_duration_seconds",
    "histogram",
    "Seconds of requests to the API server until the answer was read, of watches until they began. Absent as the requests.",
    ("verb", "resource"),
    DURATION_BOUNDS_SECONDS,
)
RELOADS = Descriptor(
    "aim_kube_credential_reloads",
    "counter",
    f"How often credentials were read again after a 401 or a certificate that does not fit, by result. {ALONE}",
    ("result",),
)
WAITING = Descriptor(
    "aim_kube_writes_waiting",
    "gauge",
    "What is to be written by kind: event, node (its NodePartitions), service (status of an InferenceService); what is"
    f" being written counts. {ALONE}",
    KIND,
)
FAILING = Descriptor(
    "aim_kube_writes_failing", "gauge", f"What is to be written, and could not be at the last attempt. {ALONE}", KIND
)
WRITES = Descriptor(
    "aim_kube_writes",
    "counter",
    f"Writes that succeeded; a status that is as it should be counts, too, and costs a read alone. {ALONE}",
    KIND,
)
DROPPED = Descriptor(
    "aim_kube_writes_dropped",
    "counter",
    "Writes that were given up, by reason: invalid (the API server refuses it), not_found (its object is gone), full (no"
    " room), stumbled (an object is not as agreed), of Events any after five attempts. Absent: it has not happened, or"
    " no cluster.",
    ("kind", "reason"),
)
RETRIES = Descriptor(
    "aim_kube_write_retries",
    "counter",
    "Attempts to write that have to be repeated, by reason (conflict: another was faster). Absent: it has not happened, or"
    " no cluster.",
    ("kind", "reason"),
)
WRITE_SECONDS = Descriptor(
    "aim_kube_write_duration_seconds",
    "histogram",
    f"Seconds from when there was something to write until it was written, attempts and pauses included. {ALONE}",
    KIND,
    DURATION_BOUNDS_SECONDS,
)
WRITTEN = Descriptor(
    "aim_kube_last_write_timestamp_seconds",
    "gauge",
    "Seconds since the epoch of the last write that succeeded. Absent before, and without a cluster.",
    KIND,
)
HELD_BACK = Descriptor(
    "aim_kube_events_held_back",
    "counter",
    f"Events that were not sent since their object had too many; what is told again later counts them. {ALONE}",
)
READS_WAITING = Descriptor(
    "aim_kube_reads_waiting",
    "gauge",
    f"Objects that are to be read beside the watches: InferenceServices of pods, the Node. {ALONE}",
)
READS_FAILING = Descriptor(
    "aim_kube_reads_failing", "gauge", f"Those of them that could not be read at the last attempt. {ALONE}"
)
IDLE = Descriptor(
    "aim_kube_turn_idle_seconds",
    "gauge",
    f"Seconds since the part of the daemon that follows the cluster has last turned, which it does each second. {ALONE}",
)
FAILURES = Descriptor(
    "aim_kube_turn_failures",
    "counter",
    f"Turns of that part that have ended by a defect; the next one comes later, and the log says why. {ALONE}",
)
RIVALS = Descriptor(
    "aim_kube_conflicting_managers",
    "gauge",
    "Other managers of partitions that were found on the node: no mode is changed. aimctl doctor names them. Absent while"
    " it is not known, and without a cluster.",
)
REFUSED = Descriptor(
    "aim_kube_spec_refused",
    "gauge",
    f"1 if the spec of the node's NodePartitions is not carried out; its condition says why. {ALONE}",
)
PODS_REFUSED = Descriptor(
    "aim_kube_pods_refused",
    "gauge",
    f"Pods that ask for what cannot be; their Events say why. {ALONE}",
)


def families(standing: ClusterStanding) -> Iterator[Family]:
    """All of the cluster."""
    found = standing.statistics
    yield from _watches(found.watches)
    yield from _requests(found)
    yield from _writes(found.writes)
    yield READS_WAITING.of([((), found.reads.waiting)])
    yield READS_FAILING.of([((), found.reads.failing)])
    threads = [(watch.resource, watch.running, watch.pause_seconds) for watch in found.watches]
    threads += [
        (name, one.running, one.pause_seconds) for name, one in (("writes", found.writes), ("reads", found.reads))
    ]
    yield RUNNING.of([((name,), int(running)) for name, running, _ in threads])
    yield PAUSES.of([((name,), seconds) for name, _, seconds in threads])
    yield IDLE.of([((), standing.idle_seconds)])
    yield FAILURES.of([((), standing.failures)])
    yield RIVALS.of([((), len(standing.rivals))] if standing.rivals is not None else [])
    yield REFUSED.of([((), int(standing.refused is not None))])
    yield PODS_REFUSED.of([((), len(standing.pods_refused))])


def _watches(watches: Iterable[WatchStatistics]) -> Iterator[Family]:
    every = [((watch.resource,), watch) for watch in watches]
    yield CONNECTED.of([(name, int(watch.connected)) for name, watch in every])
    yield SYNCED.of([(name, int(watch.synced)) for name, watch in every])
    yield MISSING.of([(name, int(watch.missing)) for name, watch in every])
    yield TOLD.of([(name, watch.told_at) for name, watch in every if watch.told_at is not None])
    yield OBJECTS.of([(name, watch.objects) for name, watch in every])
    yield EVENTS.of([(name, watch.events) for name, watch in every])
    yield LISTS.of([(name, count) for watch in watches for name, count in _by(watch.resource, watch.lists)])
    yield ENDS.of([(name, count) for watch in watches for name, count in _by(watch.resource, watch.restarts)])


def _requests(found: KubeStatistics) -> Iterator[Family]:
    yield REQUESTS.of(sorted(found.requests.items()))
    yield REQUEST_SECONDS.histograms([(name, _histogram(one)) for name, one in sorted(found.durations.items())])
    yield RELOADS.of([((result,), count) for result, count in sorted(found.reloads.items())])


def _writes(writes: WriteStatistics) -> Iterator[Family]:
    every = [((kind,), one) for kind, one in sorted(writes.kinds.items())]
    yield WAITING.of([(name, one.waiting) for name, one in every])
    yield FAILING.of([(name, one.failing) for name, one in every])
    yield WRITES.of([(name, one.done) for name, one in every])
    yield DROPPED.of([(name, count) for (kind,), one in every for name, count in _by(kind, one.dropped)])
    yield RETRIES.of([(name, count) for (kind,), one in every for name, count in _by(kind, one.retries)])
    yield WRITE_SECONDS.histograms([(name, _histogram(one.durations)) for name, one in every])
    yield WRITTEN.of([(name, one.done_at) for name, one in every if one.done_at is not None])
    yield HELD_BACK.of([((), writes.events_held_back)])


def _by(what: str, counts: Mapping[str, int]) -> list[tuple[tuple[str, str], int]]:
    return [((what, reason), count) for reason, count in sorted(counts.items())]


def _histogram(durations: Durations) -> Histogram:
    """As Prometheus counts: each bucket has those below it, too."""
    return Histogram(tuple(accumulate(durations.counts)), durations.sum_seconds)
