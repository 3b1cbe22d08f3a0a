"""Simpler policies to compare with: a queue or a queue per class, an order, and what is dropped. Heaps, no more.

They know no models: limits and weights are the core's. Their queues have no bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from heapq import heappop, heappush

from aimd.dispatch.values import Class
from aimd.replay.run import Outcome
from aimd.replay.workload import Request


class By(Enum):
    """What a queue is ordered by, and when a waiting request is dropped."""

    ARRIVAL = auto()
    COMPLETION = auto()
    """the instant by which the request has to be complete"""
    START = auto()
    """the last instant at which a grant is of use: completion less service time"""
    NEVER = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """Who goes next.

    Attributes:
        by_class: whether a request of a higher class always goes first.
        order: within a class, or of all.
        dropped: when a waiting request is; at the instant itself it is gone.
    """

    by_class: bool
    order: By
    dropped: By


class Baseline:
    """A partition whose waiting requests follow a Rule."""

    def __init__(self, rule: Rule, capacity: int) -> None:
        self._rule = rule
        self._free = capacity
        self._lanes: list[list[tuple[int, int]]] = [[] for _ in (Class if rule.by_class else range(1))]
        self._drops: list[tuple[int, int]] = []
        self._waiting: set[int] = set()  # the heaps keep numbers of requests that have gone, until these come up

    def arrive(self, now: int, request: Request, complete_by: int) -> list[Outcome]:
        number = request.number
        instants = {By.ARRIVAL: now, By.COMPLETION: complete_by, By.START: complete_by - request.service_ns}
        heappush(self._lanes[request.klass if self._rule.by_class else 0], (instants[self._rule.order], number))
        if self._rule.dropped is not By.NEVER:
            heappush(self._drops, (instants[self._rule.dropped], number))
        self._waiting.add(number)
        return self._serve(now)

    def finish(self, now: int, lease: int) -> list[Outcome]:
        del lease  # slots are all alike here
        self._free += 1
        return self._serve(now)

    def _serve(self, now: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        while self._drops and self._drops[0][0] <= now:
            _, number = heappop(self._drops)
            if number in self._waiting:
                self._waiting.remove(number)
                outcomes.append((number, None))
        while self._free and self._waiting:
            number = self._next()
            self._waiting.remove(number)
            self._free -= 1
            outcomes.append((number, number))
        return outcomes

    def _next(self) -> int:
        """The request whose turn it is; one waits."""
        for lane in self._lanes:
            while lane:
                _, number = heappop(lane)
                if number in self._waiting:
                    return number
        raise AssertionError("what waits is in a lane")
