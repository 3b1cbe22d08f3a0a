"""NativeCore: the compiled dispatch core with the values of the contract; and what it alone can tell, latencies.

The calls of the request path (`acquire`, `release`, ...) are the compiled ones; here configurations are checked and
what is read becomes values. The daemon's own dispatch goes past all this, native to native; tests and the control path
come through here. There is no core without the compiled one: its import fails loudly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from aimd._native.core import RawCore
from aimd._native.sketch import LatencySketch
from aimd.dispatch.bounds import check_numbers
from aimd.dispatch.policy import check_partition, check_record
from aimd.dispatch.values import (
    Class,
    CoreSnapshot,
    LeaseRecord,
    ModelConfig,
    ModelSnapshot,
    PartitionConfig,
    PartitionSnapshot,
)

Event = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelLatencies:
    """Latencies of a model in nanoseconds, as sketches; tuples of three are by class.

    Attributes:
        queue: from acquire to grant.
        service: from grant to release, well or not.
        total: from acquire to release.
        reclaim: from the instant at which it waits below its guarantee to the grant that ends this.
    """

    partition: int
    model: int
    queue: tuple[LatencySketch, ...]
    service: tuple[LatencySketch, ...]
    total: tuple[LatencySketch, ...]
    reclaim: LatencySketch


@dataclass(frozen=True, slots=True)
class ModelCells:
    """Latencies of a model as counts by cell of a sketch, by class; `cell_value` tells what a cell stands for."""

    partition: int
    model: int
    queue: tuple[dict[int, int], ...]
    service: tuple[dict[int, int], ...]
    total: tuple[dict[int, int], ...]


RawHistogram = tuple[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class ModelHistograms:
    """Latencies of a model up to given bounds; tuples are by class.

    Each is None if nothing was counted, else the sum in nanoseconds and how many were of at most each bound, and in all.
    """

    partition: int
    model: int
    queue: tuple[RawHistogram | None, ...]
    total: tuple[RawHistogram | None, ...]
    reclaim: RawHistogram | None


class NativeSnapshot:
    """Implements `aimd.dispatch.face.SteppedSnapshot`; made by `NativeCore.begin_snapshot`."""

    __slots__ = ("_core", "_epoch")

    def __init__(self, core: RawCore, epoch: int) -> None:
        self._core = core
        self._epoch = epoch

    def step(self, blocks: int = 4) -> bool:
        """Copy so many KiB at most, about a quarter of a microsecond each; whether something is left."""
        return self._core._freeze_step(self._epoch, blocks)  # noqa: SLF001 - two halves of one thing

    def read(self) -> CoreSnapshot:
        return snapshot_of(self._core._frozen(self._epoch))  # noqa: SLF001

    def latencies(self) -> tuple[ModelLatencies, ...]:
        """As `NativeCore.latencies`, of the same instant as `read`, and with the same errors."""
        return latencies_of(self._core._frozen_latencies(self._epoch))  # noqa: SLF001


class NativeCore(RawCore):
    """Implements `aimd.dispatch.face.DispatchCore`, constructed as `NativeCore(limits, generation=1)`.

    Memory is taken at construction: address space for all of Limits at once, of which the system provides what is
    touched. No call of the request path allocates in the core afterwards.

    Raises:
        ValueError: a bound is out of its range (partitions and models 4096, requests 2**24, leases 65536, connections
            2**18 at most), or the generation is.
        MemoryError: the address space cannot be had.
    """

    def configure(self, now: int, partition: int, config: PartitionConfig) -> list[Event]:
        check_numbers(now=now)
        check_partition(partition, config)
        numbers = config.capacity, config.queue_cap, config.lease_max_ns, config.orphan_grace_ns
        return self._configure(
            now, partition, numbers, [model_numbers(model, config.capacity) for model in config.models]
        )

    def restore(self, now: int, leases: Sequence[LeaseRecord]) -> list[Event]:
        check_numbers(now=now)
        for lease in leases:
            check_record(now, lease)
        return self._restore(now, [astuple(lease) for lease in leases])

    def leases(self) -> tuple[LeaseRecord, ...]:
        return tuple(LeaseRecord(*lease) for lease in self._leases())

    def snapshot(self) -> CoreSnapshot:
        return snapshot_of(self._snapshot())

    def begin_snapshot(self) -> NativeSnapshot:
        return NativeSnapshot(self, self._freeze())

    def latencies(self) -> tuple[ModelLatencies, ...]:
        """Of all models, removed ones included, in ascending order of partition and model id; of one instant."""
        return latencies_of(self._latencies())


def snapshot_of(raw: tuple[int, Sequence[tuple[Any, ...]], tuple[int, ...], int]) -> CoreSnapshot:
    """The value of what the compiled core reads of its counters."""
    now, partitions, unrouted, connections = raw
    places = tuple(
        PartitionSnapshot(id_, removed, draining, capacity, running, waiting, tuple(ModelSnapshot(*m) for m in models))
        for id_, removed, draining, capacity, running, waiting, models in partitions
    )
    return CoreSnapshot(now, places, unrouted, connections)


def latencies_of(
    raw: Sequence[tuple[int, int, Sequence[tuple[int, int, dict[int, int]]]]],
) -> tuple[ModelLatencies, ...]:
    """The value of what the compiled core reads of its sketches."""
    return tuple(_latencies(*model) for model in raw)


def cells_of(raw: Sequence[tuple[int, int, Sequence[tuple[int, int, dict[int, int]]]]]) -> tuple[ModelCells, ...]:
    """The counts of what the compiled core reads of its sketches."""
    size = len(Class)
    found = []
    for partition, model, sketches in raw:
        cells = tuple(cells for _, _, cells in sketches)
        found.append(ModelCells(partition, model, cells[:size], cells[size : 2 * size], cells[2 * size : 3 * size]))
    return tuple(found)


def histograms_of(
    raw: Sequence[tuple[int, int, Sequence[RawHistogram | None]]],
) -> tuple[ModelHistograms, ...]:
    """The value of what the compiled core counts up to bounds."""
    size = len(Class)
    return tuple(
        ModelHistograms(partition, model, tuple(each[:size]), tuple(each[size : 2 * size]), each[-1])
        for partition, model, each in raw
    )


def cell_value(cell: int) -> int:
    """The nanoseconds that a sketch tells for the latencies in this cell."""
    value = LatencySketch.of({cell: 1}, 0, (1 << 64) - 1).quantile(1.0)
    assert value is not None
    return value


def model_numbers(model: ModelConfig, capacity: int) -> tuple[object, ...]:
    """A model as the compiled core is told of it."""
    limit = capacity if model.limit is None else model.limit
    return (
        model.model,
        model.guarantee,
        limit,
        model.weight,
        model.queue_cap,
        model.default_class,
        model.budget_ns,
        model.latency_target_ns,
        bool(model.denied),
    )


def _latencies(partition: int, model: int, sketches: Sequence[tuple[int, int, dict[int, int]]]) -> ModelLatencies:
    made = tuple(LatencySketch.of(cells, total, largest) for total, largest, cells in sketches)
    size = len(Class)
    return ModelLatencies(partition, model, made[:size], made[size : 2 * size], made[2 * size : 3 * size], made[-1])
