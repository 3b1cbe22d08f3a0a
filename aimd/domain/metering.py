"""What a metrics page tells of the dispatch service: exact counters and histograms, read all at one instant.

Outcomes are named as in aimd/protocol/DISPATCH.md. Series are told apart by labels; numbers here are never rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aimd.domain.claim import QosClass
from aimd.domain.partition import PartitionKey

# Upper bounds of latencies in seconds. Leases of models run from a millisecond to two minutes.
BUCKETS_SECONDS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
)


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts`: how many of at most each of BUCKETS_SECONDS, and as the last number how many in all."""

    counts: tuple[int, ...]
    sum_seconds: float

    def __add__(self, other: Histogram) -> Histogram:
        counts = tuple(one + another for one, another in zip(self.counts, other.counts, strict=True))
        return Histogram(counts, self.sum_seconds + other.sum_seconds)


NO_LATENCIES = Histogram((0,) * (len(BUCKETS_SECONDS) + 1), 0.0)


@dataclass(frozen=True, slots=True)
class ClassMeter:
    """A model's requests of one class on one partition.

    Attributes:
        ended: how requests ended: an outcome other than granted, or how the lease did (released, late, failed, revoked,
            lost). One that is not there has not happened.
        queue: from acquire to grant.
        total: from acquire to the end of the lease.
    """

    running: int = 0
    waiting: int = 0
    ended: Mapping[str, int] = field(default_factory=dict)
    queue: Histogram = NO_LATENCIES
    total: Histogram = NO_LATENCIES


@dataclass(frozen=True, slots=True)
class ModelMeter:
    """A model on one partition; classes that nobody has used are not there, but for the model's own.

    Attributes:
        slot_seconds: sum over time of its running leases.
        backlog_seconds: time with something waiting.
        reclaim: from the instant at which it waits below its guarantee to the grant that ends this.
    """

    key: PartitionKey
    model: str
    classes: Mapping[QosClass, ClassMeter]
    slot_seconds: float = 0.0
    backlog_seconds: float = 0.0
    reclaim: Histogram = NO_LATENCIES


@dataclass(frozen=True, slots=True)
class PartitionMeter:
    """A partition of the dispatch service, in slots and requests; `closed`: it is drained or about to be another."""

    key: PartitionKey
    slots: int
    running: int
    waiting: int
    queue_cap: int
    closed: bool


@dataclass(frozen=True, slots=True)
class DispatchReading:
    """All of the service at one instant.

    Attributes:
        acquires: of the whole node since the daemon began, by outcome; partitions and models that are gone included.
        rejected: the same of each model that has a claim, without those that were granted, cancelled or would block.
        socket: numbers of the dispatch socket, by name (RawServer.statistics).
        denied: clients' questions to use a model that were answered by no, by outcome; no acquire comes of them.
    """

    partitions: tuple[PartitionMeter, ...] = ()
    models: tuple[ModelMeter, ...] = ()
    acquires: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    socket: Mapping[str, int] = field(default_factory=dict)
    denied: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What the hardware measures. Whatever cannot be measured is absent, never 0.

    Attributes:
        utilization: 0 to 1, mean busy share of a partition's XCCs, by PCI address and partition index.
        sources: by PCI address the names of sources (xcp_metrics, gpu_metrics), and whether they tell of its partitions.
    """

    utilization: Mapping[tuple[str, int], float] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodPlace:
    """A pod that runs on a partition, as a holder of the model's claim."""

    pod_uid: str
    model: str
    gpu: str
    index: int
