"""The traffic of all models over time, from readings of the dispatch core's counters. Pure: time is an argument.

The core counts from its start, or from when it first heard of a model on a partition; a model that it forgets and hears
of again begins at 0. Here every reading becomes what was counted since the one before. A model's history lasts as long
as its claim, on whatever partitions; a partition's part lasts as long as the model is there. Nothing outlives the daemon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aimd.domain.claim import Claim
from aimd.domain.partition import PartitionKey
from aimd.domain.traffic import Counts, ModelTraffic, Reading, TrafficBoard
from aimd.planning.latency_window import SecondsOf, grown
from aimd.planning.slo import objective_of
from aimd.planning.stream import NOTHING, WINDOW_SECONDS, Growth, Stream, together

# Readings tell when their counters were 0; one count's beginnings are equal but for the rounding of seconds.
SAME_BEGINNING_SECONDS = 0.001


def counted_between(before: Reading | None, after: Reading) -> Growth:
    """What was counted from one reading to the next; all of it if the counters began in between."""
    if before is not None and after.begun > before.begun + SAME_BEGINNING_SECONDS:
        before = None
    since = after.begun if before is None else before.at
    classes = {qos: _between(before.classes.get(qos) if before else None, now) for qos, now in after.classes.items()}
    backlog_seconds = after.backlog_seconds - (before.backlog_seconds if before else 0.0)
    cells = {key: grown(before.cells.get(key, {}) if before else {}, now) for key, now in after.cells.items()}
    return Growth(after.at, max(0.0, after.at - since), classes, backlog_seconds, cells, after.slots)


def _between(before: Counts | None, after: Counts) -> Counts:
    before = before or NOTHING
    return Counts(
        after.running,
        after.waiting,
        _less(after.outcomes, before.outcomes),
        _less(after.ends, before.ends),
        after.good - before.good,
        after.bad - before.bad,
    )


def _less(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    if after == before:
        return {}
    return {name: count - was for name, count in after.items() if (was := before.get(name, 0)) != count}


class _Place:
    """A model on one partition."""

    def __init__(self, reading: Reading, wall: float, seconds_of: SecondsOf) -> None:
        self._last: Reading | None = None
        self.stream = Stream(reading.begun, wall - (reading.at - reading.begun), seconds_of)

    def read(self, reading: Reading) -> Growth:
        growth = counted_between(self._last, reading)
        self._last = reading
        self.stream.add(growth)
        return growth


class _Model:
    """A claim's model on all its partitions. `claimed_at` tells it from an earlier claim of the same name."""

    def __init__(self, claimed_at: float, seconds_of: SecondsOf) -> None:
        self.claimed_at = claimed_at
        self._seconds_of = seconds_of
        self.places: dict[PartitionKey, _Place] = {}
        self.stream: Stream | None = None

    def read(self, readings: Mapping[PartitionKey, Reading], at: float, wall: float) -> None:
        for gone in self.places.keys() - readings.keys():
            del self.places[gone]
        growths = []
        for key, reading in readings.items():
            place = self.places.get(key)
            if place is None:
                place = self.places[key] = _Place(reading, wall, self._seconds_of)
            growths.append(place.read(reading))
        if self.stream is None and readings:
            begun = min(reading.begun for reading in readings.values())
            self.stream = Stream(begun, wall - (at - begun), self._seconds_of)
        if self.stream is not None:
            self.stream.add(together(growths, at, at - self.stream.at))


class TrafficHistory:
    """Takes the readings of all models at one time, again and again.

    Args:
        seconds_of: what the latencies in a cell of the readings are told as.
        first_number: of boards; above all that an earlier daemon has told.
    """

    def __init__(self, seconds_of: SecondsOf, first_number: int = 0) -> None:
        self._seconds_of = seconds_of
        self._number = first_number
        self._at: float | None = None
        self._models: dict[str, _Model] = {}

    def read(
        self,
        claims: Iterable[Claim],
        readings: Mapping[str, Mapping[PartitionKey, Reading]],
        at: float,
        wall: float,
    ) -> TrafficBoard:
        """The board after these readings.

        Args:
            claims: all of the node; readings of other models are passed over.
            readings: by model and partition.
            at: when they were read. At a time before the last one everything begins anew.
            wall: the same as seconds since the epoch.
        """
        if self._at is not None and at < self._at:
            self._models.clear()
        self._at = at
        claims = list(claims)
        kept = {claim.name: claim.created_at for claim in claims}
        self._models = {name: one for name, one in self._models.items() if kept.get(name) == one.claimed_at}
        for claim in claims:
            model = self._models.setdefault(claim.name, _Model(claim.created_at, self._seconds_of))
            model.read(readings.get(claim.name, {}), at, wall)
        self._number += 1
        return TrafficBoard(self._number, WINDOW_SECONDS, {c.name: t for c in claims if (t := self._traffic(c))})

    def _traffic(self, claim: Claim) -> ModelTraffic | None:
        model, objective = self._models[claim.name], objective_of(claim.spec.slo)
        if model.stream is None:
            return None
        places = {key: place.stream.traffic(objective) for key, place in model.places.items()}
        return ModelTraffic(model.stream.traffic(objective), places)
