"""Counts of requests, kept by many threads and read as a whole."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter

from aimd.domain.cluster import DURATION_BOUNDS_SECONDS, Durations


class RequestCounts:
    """Every request that was sent, answered or not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._durations: dict[tuple[str, str], tuple[list[int], float]] = {}

    def add(self, verb: str, resource: str, code: str, seconds: float) -> None:
        """`code` is HTTP's, or what kept an answer from coming."""
        with self._lock:
            self._requests[verb, resource, code] += 1
            counts, total = self._durations.get((verb, resource)) or ([0] * (len(DURATION_BOUNDS_SECONDS) + 1), 0.0)
            counts[bisect_left(DURATION_BOUNDS_SECONDS, seconds)] += 1
            self._durations[verb, resource] = counts, total + seconds

    def requests(self) -> dict[tuple[str, str, str], int]:
        """By verb, resource and code."""
        with self._lock:
            return dict(self._requests)

    def durations(self) -> dict[tuple[str, str], Durations]:
        """By verb and resource."""
        with self._lock:
            return {key: Durations(tuple(counts), total) for key, (counts, total) in self._durations.items()}
