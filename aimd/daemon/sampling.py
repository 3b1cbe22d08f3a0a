"""Watches the dispatch core: every few seconds its counters become the traffic that API and metrics show.

The work is done in a thread beside the loop; the dispatch thread only copies counters aside, a little between requests.
With 64 partitions of four models each a sample takes 0.2 s of a processor while all are used, 25 ms while none is; the read
of the latencies alone keeps the interpreter for 20 to 50 ms of that, in which the loop stands still.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

from aimd.daemon.dispatch_served import CLASSES
from aimd.daemon.dispatch_service import DispatchService
from aimd.daemon.published import Published
from aimd.daemon.totals import AcquireTotals
from aimd.dispatch.core import ModelCells, cell_value
from aimd.dispatch.values import SECOND, CoreSnapshot, End, ModelSnapshot, Outcome
from aimd.domain.claim import Claim, QosClass
from aimd.domain.node import NodeSnapshot
from aimd.domain.partition import PartitionKey
from aimd.domain.traffic import Counts, Reading, Stage, TrafficBoard
from aimd.planning.history import TrafficHistory

log = logging.getLogger("aimd.dispatch")

SAMPLE_SECONDS = 2.0
IDLE_SHARE = 24  # times as long as a sample took it is left alone: at most 4 % of a processor
OUTCOMES = tuple((outcome.name.lower(), outcome.value) for outcome in Outcome)
ENDS = tuple((end.name.lower(), end.value) for end in End)

Served = Mapping[tuple[int, int], tuple[PartitionKey, str]]
Readings = dict[str, dict[PartitionKey, Reading]]


class Observer:
    """ports.TrafficSource over a DispatchService.

    Args:
        service: begun.
        snapshot: the node as published last.
        first_number: of boards; above those of an earlier daemon.
        totals: are told of every sample, too.
    """

    def __init__(
        self,
        service: DispatchService,
        snapshot: Callable[[], NodeSnapshot],
        first_number: int,
        totals: AcquireTotals | None = None,
    ) -> None:
        self._totals = totals or AcquireTotals()
        self._service = service
        self._snapshot = snapshot
        self._history = TrafficHistory(lru_cache(None)(lambda cell: cell_value(cell) / SECOND), first_number)
        self._counted: Sequence[object] = []
        self._cells: tuple[ModelCells, ...] = ()
        self._boards = Published[TrafficBoard | None](None, lambda board: -1 if board is None else board.number)

    @property
    def board(self) -> TrafficBoard | None:
        return self._boards.latest()

    async def newer(self, number: int, timeout: float) -> TrafficBoard | None:
        return await self._boards.newer(number, timeout)

    def begin(self) -> asyncio.Task[None]:
        """Sample until the task is cancelled; it is over when no thread uses the core any more."""
        task = asyncio.create_task(self._run())
        task.add_done_callback(_report)
        return task

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            await self.sample()
            await asyncio.sleep(max(SAMPLE_SECONDS, IDLE_SHARE * (time.monotonic() - began)))

    async def sample(self) -> None:
        """Take one sample and publish the board. When cancelled, it still ends first: its thread uses the core."""
        served, claims = self._service.served(), self._snapshot().claims
        working = asyncio.get_running_loop().run_in_executor(None, self._read, served, claims)
        try:
            self._boards.publish(await asyncio.shield(working))
        except asyncio.CancelledError:
            await asyncio.wait([working])
            raise

    def _read(self, served: Served, claims: Iterable[Claim]) -> TrafficBoard:
        counters = self._service.counters()
        names = {numbers: name for numbers, (_, name) in served.items()}
        self._totals.read(counters, names, ((claim.name, claim.created_at) for claim in claims))
        counted = [
            (partition.partition, model.model, model.outcomes, model.ends)
            for partition in counters.partitions
            for model in partition.models
        ]
        if counted != self._counted:  # else there are no new latencies: an idle node pays nothing for them
            self._counted, self._cells = counted, self._service.cells()
        readings = readings_of(served, counters, self._cells)
        return self._history.read(claims, readings, counters.now / SECOND, time.time())


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the traffic of models is not observed any more; restart the daemon", exc_info=error)


def readings_of(served: Served, counters: CoreSnapshot, cells: Iterable[ModelCells]) -> Readings:
    """What was read of the served models, by model and partition."""
    latencies = {(each.partition, each.model): each for each in cells}
    readings: Readings = {}
    for partition in counters.partitions:
        for model in partition.models:
            numbers = (partition.partition, model.model)
            if numbers in served and not model.removed:
                key, name = served[numbers]
                readings.setdefault(name, {})[key] = _reading(
                    counters.now, partition.capacity, model, latencies.get(numbers)
                )
    return readings


def _reading(now: int, slots: int, model: ModelSnapshot, latencies: ModelCells | None) -> Reading:
    cells: dict[tuple[Stage, QosClass], Mapping[int, int]] = {}
    if latencies is not None:
        for qos, number in CLASSES.items():
            cells[Stage.QUEUE, qos] = latencies.queue[number]
            cells[Stage.SERVICE, qos] = latencies.service[number]
            cells[Stage.TOTAL, qos] = latencies.total[number]
    classes = {qos: _counts(model, number) for qos, number in CLASSES.items()}
    # A model is green, yellow or red at any time: these times together are the age of its counters.
    begun = (now - sum(model.colour_ns)) / SECOND
    return Reading(now / SECOND, begun, classes, model.backlog_ns / SECOND, cells, slots)


def _counts(model: ModelSnapshot, number: int) -> Counts:
    outcomes, ends = model.outcomes[number], model.ends[number]
    return Counts(
        model.running[number],
        model.waiting[number],
        {name: outcomes[place] for name, place in OUTCOMES if outcomes[place]},
        {name: ends[place] for name, place in ENDS if ends[place]},
        model.good[number],
        model.bad[number],
    )
