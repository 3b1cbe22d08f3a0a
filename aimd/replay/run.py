"""One policy at one load, in virtual time: arrivals come from outside, ends of service from a heap."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Protocol

from aimd.replay.score import Score
from aimd.replay.workload import Request

Outcome = tuple[int, int | None]
"""Number of a request that waits no longer, and its lease; None if it was not granted."""

FOREVER = 1 << 63


class Policy(Protocol):
    """Who goes next on a partition. `now` never decreases; each outcome is told once, in the order in which it happens."""

    def arrive(self, now: int, request: Request, complete_by: int) -> list[Outcome]: ...

    def finish(self, now: int, lease: int) -> list[Outcome]: ...


class Run:
    """Feeds a policy and keeps its score. What ends at the instant of an arrival ends before it.

    Args:
        stretch: what the distances between arrivals are multiplied by.
    """

    def __init__(self, policy: Policy, stretch: float) -> None:
        self.score = Score()
        self._policy = policy
        self._stretch = stretch
        self._waiting: dict[int, tuple[Request, int]] = {}
        self._running: list[tuple[int, int]] = []  # end of service, lease

    def arrive(self, request: Request) -> None:
        now = int(request.offset_ns * self._stretch)
        self._finish(now)
        complete_by = now + request.patience_ns
        self._waiting[request.number] = request, complete_by
        self.score.arrives(request.klass)
        self._take(now, self._policy.arrive(now, request, complete_by))

    def end(self) -> None:
        """No more arrivals: what runs and waits goes on until nothing is left."""
        self._finish(FOREVER)

    def _finish(self, until: int) -> None:
        running = self._running
        while running and running[0][0] <= until:
            now, lease = heappop(running)
            self._take(now, self._policy.finish(now, lease))

    def _take(self, now: int, outcomes: list[Outcome]) -> None:
        for number, lease in outcomes:
            request, complete_by = self._waiting.pop(number)
            if lease is None:
                self.score.expires(request.klass)
            else:
                ends = now + request.service_ns
                self.score.grants(request.klass, met=ends <= complete_by)
                heappush(self._running, (ends, lease))
