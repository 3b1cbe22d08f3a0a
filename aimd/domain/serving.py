"""What the dispatch service serves: partitions, the models on them, and what a caller may have."""

from __future__ import annotations

from dataclasses import dataclass

from aimd.domain.claim import QosClass
from aimd.domain.partition import PartitionKey


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model on a partition: its claim's settings for all of its replicas there together.

    Attributes:
        guarantee, limit: slots; a limit of None is the partition's capacity.
        weight: 1 to 1000.
        latency_seconds: target from acquire to release; None: no target.
        denied: it holds more memory than it was given, and gets no new leases.
    """

    name: str
    qos: QosClass
    guarantee: int
    limit: int | None
    weight: int
    latency_seconds: float | None = None
    denied: bool = False


@dataclass(frozen=True, slots=True)
class ServedPartition:
    """`closed`: a switch is about to begin or under way; no acquire is let in."""

    key: PartitionKey
    models: tuple[ServedModel, ...] = ()
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """A process that asks for a model, as far as it could be made sure.

    Attributes:
        pod: UID of its pod; None outside of pods. "" in a pod whose UID cannot be told.
        operator: may change the node.
        holders: identities (pid, start time) of claim holders that it is or belongs to.
    """

    pid: int
    uid: int
    gid: int
    pod: str | None = None
    operator: bool = False
    holders: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Rule:
    """An entry of `[[dispatch.allow]]`: who (all that is given must fit), which models and partitions, up to which class.

    `models` and `partitions` are patterns with `*` and `?`.
    """

    highest: QosClass
    models: tuple[str, ...]
    partitions: tuple[str, ...] = ("*",)
    uid: int | None = None
    gid: int | None = None
    pod: str | None = None
