"""Counts of requests and writes, kept by many threads and read as a whole."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable

from aimd.domain.cluster import DURATION_BOUNDS_SECONDS, WRITE_KINDS, Durations, KindStatistics


class _Durations:
    def __init__(self) -> None:
        self._counts = [0] * (len(DURATION_BOUNDS_SECONDS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(DURATION_BOUNDS_SECONDS, seconds)] += 1
        self._sum += seconds

    def read(self) -> Durations:
        return Durations(tuple(self._counts), self._sum)


class RequestCounts:
    """Every request that was sent, answered or not, and every look for other credentials."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._durations: defaultdict[tuple[str, str], _Durations] = defaultdict(_Durations)
        self._reloads = Counter({"ok": 0, "error": 0})

    def add(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """`code` is HTTP's, or what kept an answer from coming."""
        with self._lock:
            self._requests[verb, resource, code] += 1
            self._durations[verb, resource].add(seconds)

    def reloaded(self, *, ok: bool) -> None:
        with self._lock:
            self._reloads["ok" if ok else "error"] += 1

    def requests(self) -> dict[tuple[str, str, str], int]:
        """By verb, resource and code."""
        with self._lock:
            return dict(self._requests)

    def durations(self) -> dict[tuple[str, str], Durations]:
        """By verb and resource."""
        with self._lock:
            return {key: found.read() for key, found in self._durations.items()}

    def reloads(self) -> dict[str, int]:
        """By result, ok or error."""
        with self._lock:
            return dict(self._reloads)


class WriteCounts:
    """What became of writes, by kind: the first word of their keys. It has no lock: the writer's guards it."""

    def __init__(self) -> None:
        self._done: dict[str, tuple[int, float]] = {}
        self._dropped: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._retries: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._durations: defaultdict[str, _Durations] = defaultdict(_Durations)

    def done(self, key: str, seconds: float, now: float) -> None:
        """After so many seconds from when there was something to write; `now` is seconds since the epoch."""
        kind = kind_of(key)
        self._done[kind] = self._done.get(kind, (0, 0.0))[0] + 1, now
        self._durations[kind].add(seconds)

    def dropped(self, key: str, reason: str) -> None:
        self._dropped[kind_of(key)][reason] += 1

    def retried(self, key: str, reason: str) -> None:
        self._retries[kind_of(key)][reason] += 1

    def read(self, queue: Iterable[tuple[str, bool]]) -> dict[str, KindStatistics]:
        """All kinds, those of WRITE_KINDS in any case; `queue`: keys that wait, and whether their last attempt failed."""
        waiting: Counter[str] = Counter()
        failing: Counter[str] = Counter()
        for key, failed in queue:
            waiting[kind_of(key)] += 1
            failing[kind_of(key)] += failed
        kinds = sorted({*WRITE_KINDS, *waiting, *self._done, *self._dropped, *self._retries})
        return {kind: self._kind(kind, waiting[kind], failing[kind]) for kind in kinds}

    def _kind(self, kind: str, waiting: int, failing: int) -> KindStatistics:
        done, done_at = self._done.get(kind) or (0, None)
        dropped, retries = dict(self._dropped[kind]), dict(self._retries[kind])
        return KindStatistics(waiting, failing, done, done_at, dropped, retries, self._durations[kind].read())


def kind_of(key: str) -> str:
    """What is written: the first word of the key."""
    return key.partition(" ")[0]
