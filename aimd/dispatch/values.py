"""Values that a dispatch core is configured with and answers in: the closed enums, bounds, configuration, counters.

What they mean in action is in `aimd.dispatch.face`. Plain values of the standard library; nothing here computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

DEFAULT = -1
SLOT_BITS = 16
TAG_SCALE = 1 << 32
LOW_CREDIT = 15
MEDIUM_CREDIT = 7

SECOND = 1_000_000_000


class Class(IntEnum):
    """Priority of a request; a smaller number is higher. Its name is written in lower case."""

    HIGH = 0
    MEDIUM = 1
    LOW = 2


class Outcome(IntEnum):
    """How an acquire ended; `name.lower()` is the label of metrics.

    A core never answers queue_full_uid: the layer that knows uids does, and has the cells of the counters to itself.
    """

    GRANTED = 0
    QUEUE_FULL_MODEL = 1
    QUEUE_FULL_PARTITION = 2
    QUEUE_FULL_CONN = 3
    DEADLINE_PASSED = 4
    EXPIRED = 5
    SHED = 6
    CANCELLED = 7
    DRAINING = 8
    UNKNOWN_MODEL = 9
    UNKNOWN_PARTITION = 10
    PARTITION_GONE = 11
    MODEL_GONE = 12
    UNAUTHORISED = 13
    MEMORY_OVERRUN = 14
    QUEUE_FULL_UID = 15
    WOULD_BLOCK = 16


BAD_OUTCOMES = frozenset(
    {
        Outcome.QUEUE_FULL_MODEL,
        Outcome.QUEUE_FULL_PARTITION,
        Outcome.QUEUE_FULL_CONN,
        Outcome.QUEUE_FULL_UID,
        Outcome.EXPIRED,
        Outcome.SHED,
    }
)
"""Outcomes that count as bad for the SLI; the others but GRANTED count as neither good nor bad."""


class End(IntEnum):
    """How a lease ended: given back (well or not), taken back at its deadline, or lost with its process."""

    OK = 0
    FAILED = 1
    REVOKED = 2
    LOST = 3


class Fault(IntEnum):
    """Why a release, renew, adopt or cancel was refused; nothing but the refusal happened."""

    NOT_OWNER = 0
    STALE_LEASE = 1
    RECLAIM = 2


class Kind(IntEnum):
    """First element of an event, and what follows it."""

    QUEUED = 0
    """connection, request: waits; exactly one GRANTED or ENDED follows in a later call"""
    GRANTED = 1
    """connection, request, lease, partition, model, class, green (1: within the guarantee, 0: excess)"""
    ENDED = 2
    """connection, request, outcome (an Outcome other than GRANTED): the acquire has ended without a lease"""
    RELEASED = 3
    """lease, ok (1 or 0)"""
    REVOKED = 4
    """lease: its deadline passed"""
    LOST = 5
    """lease: its process ended, or nobody adopted it in time"""
    RENEWED = 6
    """lease, deadline"""
    ORPHANED = 7
    """lease, the instant at which it is lost if it is not adopted"""
    ADOPTED = 8
    """connection, lease"""
    REFUSED = 9
    """connection, lease or (cancel) request, fault (a Fault)"""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a core holds at most; memory is taken once, at its construction.

    Attributes:
        partitions: configured and removed ones.
        models: of all partitions together, configured and removed ones.
        requests: waiting ones of the whole core.
        leases: of the whole core, at most 65536.
        connections: open ones.
        requests_per_connection: waiting ones of one connection.
    """

    partitions: int = 64
    models: int = 1024
    requests: int = 262_144
    leases: int = 4096
    connections: int = 4096
    requests_per_connection: int = 1024


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A model of one partition, in slots and nanoseconds.

    Attributes:
        model: its id, chosen by the caller.
        guarantee: slots that it gets before anyone gets more than theirs.
        limit: slots that it never exceeds; None: the partition's capacity.
        weight: 1 .. 1000, share of the excess within a class.
        queue_cap: waiting requests, 0 or more.
        default_class: of an acquire that names none.
        budget_ns: wait budget per class, at least 1 each, of an acquire without start_by.
        latency_target_ns: from acquire to release; a release later than this is bad for the SLI; 0: no target.
        denied: it holds more memory than it was given: all that waits for it or comes ends as memory_overrun.
    """

    model: int
    guarantee: int = 0
    limit: int | None = None
    weight: int = 1
    queue_cap: int = 1024
    default_class: int = Class.MEDIUM
    budget_ns: tuple[int, int, int] = (5 * SECOND, 15 * SECOND, 60 * SECOND)
    latency_target_ns: int = 0
    denied: bool = False


@dataclass(frozen=True, slots=True)
class PartitionConfig:
    """A partition, in slots and nanoseconds.

    Attributes:
        capacity: slots, at least 1 and at least the sum of the guarantees.
        queue_cap: waiting requests that are not entitled, 0 or more.
        lease_max_ns: life of a lease, at least 1; counts from its grant or last renewal.
        orphan_grace_ns: how long a lease without a connection is kept, at least 1.
        models: each id once.
    """

    models: tuple[ModelConfig, ...] = ()
    capacity: int = 16
    queue_cap: int = 4096
    lease_max_ns: int = 600 * SECOND
    orphan_grace_ns: int = 30 * SECOND


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A running lease as it outlives the core: `started` is the grant, `deadline` the last instant before revocation."""

    lease: int
    partition: int
    model: int
    klass: int
    process: int
    started: int
    deadline: int


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """Counters of a model; tuples of three are by class, the others say so.

    Attributes:
        outcomes: by class, then by Outcome. Their sum and `waiting` together are the acquires.
        ends: by class, then by End. Their sum and `running` together are the grants and `restored`.
        restored: leases that were taken over from an earlier core.
        good: released ok within the latency target.
        bad: released late or failed, revoked, lost, and the BAD_OUTCOMES.
        running_ns: sum over time of the running leases (slot nanoseconds).
        backlog_ns: time with something waiting.
        colour_ns: time with running < guarantee, neither, running >= limit (green, yellow, red).
    """

    model: int
    removed: bool
    running: tuple[int, ...]
    waiting: tuple[int, ...]
    outcomes: tuple[tuple[int, ...], ...]
    ends: tuple[tuple[int, ...], ...]
    restored: tuple[int, ...]
    good: tuple[int, ...]
    bad: tuple[int, ...]
    running_ns: int
    backlog_ns: int
    colour_ns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PartitionSnapshot:
    """A partition and its models, in ascending order of their ids; a removed one has capacity 0."""

    partition: int
    removed: bool
    draining: bool
    capacity: int
    running: int
    waiting: int
    models: tuple[ModelSnapshot, ...]


@dataclass(frozen=True, slots=True)
class CoreSnapshot:
    """A core at one instant; partitions in ascending order of their ids.

    Attributes:
        unrouted: by Outcome, acquires that ended as unknown_partition or unknown_model: no model counts them.
        connections: open ones.
    """

    now: int
    partitions: tuple[PartitionSnapshot, ...]
    unrouted: tuple[int, ...] = (0,) * len(Outcome)
    connections: int = 0
