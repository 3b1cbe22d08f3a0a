"""Reads the dispatch core for a page of metrics. Nothing is done per request: the core counts, this reads."""

from __future__ import annotations

from collections.abc import Callable

from aimd.daemon.dispatch_served import CLASSES
from aimd.daemon.dispatch_service import DispatchService
from aimd.daemon.totals import COMMON, AcquireTotals
from aimd.dispatch.core import ModelHistograms, RawHistogram
from aimd.dispatch.values import SECOND, End, ModelSnapshot, Outcome, PartitionSnapshot
from aimd.domain.budget import LATE
from aimd.domain.claim import QosClass
from aimd.domain.metering import (
    NO_LATENCIES,
    ClassMeter,
    DispatchReading,
    Histogram,
    ModelMeter,
    PartitionMeter,
)
from aimd.domain.node import NodeSnapshot
from aimd.domain.partition import PartitionKey

RARE = frozenset(one.name.lower() for one in Outcome if one not in COMMON)
ENDED = {End.FAILED: "failed", End.REVOKED: "revoked", End.LOST: "lost"}


class DispatchMeter:
    """Reads of a DispatchService that has begun.

    Args:
        totals: what outlives partitions; those who read the core elsewhere add to it, too.
    """

    def __init__(self, service: DispatchService, snapshot: Callable[[], NodeSnapshot], totals: AcquireTotals) -> None:
        self._service = service
        self._snapshot = snapshot
        self._totals = totals

    def begin(self) -> Callable[[], DispatchReading]:
        """On the event loop; the reading is done by what is returned, which blocks for some milliseconds."""
        served, claims = self._service.served(), self._snapshot().claims
        keys = self._service.partitions()
        own = {claim.name: claim.spec.qos for claim in claims}
        names = {numbers: name for numbers, (_, name) in served.items()}
        made = [(claim.name, claim.created_at) for claim in claims]
        cap, denied = self._service.queue_cap, dict(self._service.denied)

        def read() -> DispatchReading:
            counters, histograms, socket = self._service.metered()
            self._totals.read(counters, names, made)
            found = {(each.partition, each.model): each for each in histograms}
            partitions, models = [], []
            for partition in counters.partitions:
                key = keys.get(partition.partition)
                if key is None or partition.removed:
                    continue
                partitions.append(_partition(key, partition, cap))
                for model in partition.models:
                    numbers = (partition.partition, model.model)
                    if numbers in served and not model.removed and numbers in found:
                        name = served[numbers][1]
                        models.append(meter_of(key, name, own.get(name), model, found[numbers]))
            acquires, rejected = self._totals.acquires(), self._totals.rejected()
            return DispatchReading(tuple(partitions), tuple(models), acquires, rejected, socket, denied)

        return read


def _partition(key: PartitionKey, partition: PartitionSnapshot, cap: int) -> PartitionMeter:
    return PartitionMeter(key, partition.capacity, partition.running, partition.waiting, cap, partition.draining)


def meter_of(
    key: PartitionKey, name: str, own: QosClass | None, model: ModelSnapshot, latencies: ModelHistograms
) -> ModelMeter:
    """The meter of a model; `own` is its claim's class, which has a series from the beginning: a rate needs one."""
    classes = {}
    for qos, number in CLASSES.items():
        used = any(model.outcomes[number]) or any(model.ends[number]) or model.running[number] or model.waiting[number]
        if used or qos is own:
            classes[qos] = ClassMeter(
                model.running[number],
                model.waiting[number],
                ended_of(model, number),
                _histogram(latencies.queue[number]),
                _histogram(latencies.total[number]),
            )
    reclaim = _histogram(latencies.reclaim)
    return ModelMeter(key, name, classes, model.running_ns / SECOND, model.backlog_ns / SECOND, reclaim)


def ended_of(model: ModelSnapshot, number: int) -> dict[str, int]:
    """Requests of a class by how they ended. Released are the good ones; those that came back well but late are not."""
    outcomes, ends, good = model.outcomes[number], model.ends[number], model.good[number]
    found = {"released": good, LATE: ends[End.OK] - good}
    found |= {label: ends[end] for end, label in ENDED.items()}
    found |= {one.name.lower(): outcomes[one] for one in Outcome if one is not Outcome.GRANTED}
    # What there may well be is told from the beginning: a rate over the first of them needs the 0 before.
    return {label: count for label, count in found.items() if count or label not in RARE}


def _histogram(raw: RawHistogram | None) -> Histogram:
    return NO_LATENCIES if raw is None else Histogram(raw[1], raw[0] / SECOND)
