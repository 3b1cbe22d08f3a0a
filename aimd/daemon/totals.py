"""Counts of acquires that outlive what counted them: the core forgets a partition, its claims and the node go on."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping

from aimd.dispatch.values import CoreSnapshot, Outcome
from aimd.domain.traffic import NOT_REJECTED

Numbers = tuple[int, int]  # partition and model in the core
Names = tuple[str, float]  # a claim: its name, and when it was made
Counts = tuple[int, ...]  # by Outcome
NOTHING: Counts = (0,) * len(Outcome)
COMMON = frozenset({Outcome.EXPIRED, Outcome.SHED, Outcome.QUEUE_FULL_MODEL, Outcome.QUEUE_FULL_PARTITION})
LABELS = tuple(outcome.name.lower() for outcome in Outcome)
REJECTIONS = tuple(outcome for outcome in Outcome if LABELS[outcome] not in NOT_REJECTED)


class AcquireTotals:
    """Sums of acquires by outcome, of the node and of each claim; they never decrease. For any thread.

    What a core counted between the last reading and its forgetting is lost: read often.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[Numbers, Counts] = {}
        self._names: dict[Numbers, str] = {}  # also of models that are not served any more, while they are counted
        self._claims: dict[str, tuple[float, Counter[int]]] = {}
        self._node: Counter[int] = Counter(dict.fromkeys(Outcome, 0))
        self._unrouted: Counts = NOTHING

    def read(self, counters: CoreSnapshot, names: Mapping[Numbers, str], claims: Iterable[Names]) -> None:
        """Take what has been counted since the last time."""
        with self._lock:
            present = dict(claims)
            self._claims = {name: one for name, one in self._claims.items() if present.get(name) == one[0]}
            for name, made_at in present.items():
                self._claims.setdefault(name, (made_at, Counter()))
            last: dict[Numbers, Counts] = {}
            self._names |= names
            for partition in counters.partitions:
                for model in partition.models:
                    numbers = (partition.partition, model.model)
                    now = last[numbers] = tuple(map(sum, zip(*model.outcomes, strict=True)))
                    self._add(_grown(self._last.get(numbers, NOTHING), now), self._names.get(numbers))
            self._last = last
            self._names = {numbers: name for numbers, name in self._names.items() if numbers in last}
            self._add(_grown(self._unrouted, counters.unrouted), None)
            self._unrouted = counters.unrouted

    def _add(self, growth: Counts, name: str | None) -> None:
        if not any(growth):
            return
        claim = self._claims.get(name) if name is not None else None
        for outcome, count in enumerate(growth):
            self._node[outcome] += count
            if claim is not None and count:
                claim[1][outcome] += count

    def acquires(self) -> dict[str, int]:
        """Of the node, every outcome."""
        with self._lock:
            return {label: self._node[outcome] for outcome, label in enumerate(LABELS)}

    def rejected(self) -> dict[str, dict[str, int]]:
        """Of each claim, what ended without a lease against its client's will; the common ones in any case."""
        with self._lock:
            return {
                name: {LABELS[one]: counts[one] for one in REJECTIONS if counts[one] or one in COMMON}
                for name, (_, counts) in self._claims.items()
            }


def _grown(before: Counts, now: Counts) -> Counts:
    """A core that forgot the model meanwhile has begun anew, with 0."""
    if any(one < was for one, was in zip(now, before, strict=True)):
        return now
    return tuple(one - was for one, was in zip(now, before, strict=True))
