"""Messages about claims and their assignments. Memory is in GB as GPUs are sold, limits for processes in bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Annotated, TypeVar

import msgspec

from aimd.domain.claim import ClaimSpec, PartitionRef, QosClass, Slo
from aimd.domain.memory import parse_gb
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.errors import InvalidInputError
from aimd.protocol.messages import HolderMessage, Message, described

_PLACE = re.compile(r"(?:(.+)/)?([0-9]{1,3})")
MAX_PARTITION_INDEX, MAX_SLOTS, MAX_WEIGHT, MAX_REPLICAS, MAX_GB = 7, 4096, 1000, 64, 1 << 20
MAX_SLO = 1e9  # seconds of latency, requests per second: more is a slip of the pen
PlaceWord = (
    Annotated[int, described(minimum=0, maximum=MAX_PARTITION_INDEX)]
    | Annotated[str, described(examples=["gpu3/5", "0000:65:00.0/5"])]
)
FindGpu = Callable[[str], str]
Word = TypeVar("Word", bound=Enum)


class SloMessage(Message, frozen=True):
    """Service level objective: latency in seconds, objective as a ratio, floor in requests per second."""

    latency_seconds: Annotated[float, described(exclusiveMinimum=0, maximum=MAX_SLO)] | None = None
    objective: Annotated[float, described(exclusiveMinimum=0, exclusiveMaximum=1)] | None = None
    throughput_floor: Annotated[float, described(exclusiveMinimum=0, maximum=MAX_SLO)] | None = None


class ClaimRequest(Message, frozen=True):
    """Body of `PUT /v1/claims/<name>`; the name is the model's.

    `partition` (the only place allowed) and `preferred` are an index on any GPU (3), or one partition ("gpu3/5",
    "0000:65:00.0/5"). `memory_gb`, `guarantee` and `limit` are per replica.
    """

    memory_gb: Annotated[float, described(exclusiveMinimum=0, maximum=MAX_GB)]
    qos: Annotated[str, described(enum=[each.value for each in QosClass])] = "medium"
    compute_mode: Annotated[str, described(enum=list(ComputeMode.__members__))] | None = None
    memory_mode: Annotated[str, described(enum=list(MemoryMode.__members__))] | None = None
    partition: PlaceWord | None = None
    preferred: PlaceWord | None = None
    guarantee: Annotated[int, described(minimum=0, maximum=MAX_SLOTS)] = 0
    limit: Annotated[int, described(minimum=1, maximum=MAX_SLOTS)] | None = None
    weight: Annotated[int, described(minimum=1, maximum=MAX_WEIGHT)] = 1
    replicas: Annotated[int, described(minimum=1, maximum=MAX_REPLICAS)] = 1
    slo: SloMessage = SloMessage()

    def spec(self, find_gpu: FindGpu) -> ClaimSpec:
        """What is asked for, checked; `find_gpu` turns `gpu3` or an address into a PCI address.

        Raises:
            InvalidInputError: a field is out of its range; the message names it.
            NotFoundError: from `find_gpu`, for a GPU that is not on the node.
        """
        return ClaimSpec(
            memory_units=parse_gb(self.memory_gb),
            qos=_word("qos", self.qos.lower(), QosClass),
            mode=PartitionMode(
                _word("compute_mode", self.compute_mode.upper(), ComputeMode) if self.compute_mode else None,
                _word("memory_mode", self.memory_mode.upper(), MemoryMode) if self.memory_mode else None,
            ),
            partition=_place("partition", self.partition, find_gpu),
            preferred=_place("preferred", self.preferred, find_gpu),
            guarantee=_within("guarantee", self.guarantee, 0, MAX_SLOTS),
            limit=_limit(self.limit, self.guarantee),
            weight=_within("weight", self.weight, 1, MAX_WEIGHT),
            replicas=_within("replicas", self.replicas, 1, MAX_REPLICAS),
            slo=_slo(self.slo),
        )


class PodMessage(Message, frozen=True):
    """A pod of this node that is a replica of a claim."""

    namespace: str
    name: str
    uid: str
    replica: int


class AssignmentMessage(Message, frozen=True):
    """A replica's place; `memory_bytes` is its limit in bytes, None while the partition does not exist yet.

    `pod` is `namespace/name` where the replica is a pod.
    """

    name: str
    claim: str
    replica: int
    partition: str
    partition_name: str
    pci_address: str
    index: int
    memory_gb: float
    memory_bytes: int | None
    guarantee: int
    render_minor: int | None
    pod: str | None = None


class ClaimMessage(Message, frozen=True):
    """A claim; `state` is placed, switching (a mode change makes room) or pending (it waits: `reason`, `message` for what).

    `pods` are its replicas where pods have made it.
    """

    name: str
    state: str
    owner_uid: int
    memory_gb: float
    qos: str
    compute_mode: str | None
    memory_mode: str | None
    partition: str | None
    preferred: str | None
    guarantee: int
    limit: int | None
    weight: int
    replicas: int
    slo: SloMessage
    assignments: list[AssignmentMessage]
    change: str | None
    reason: str | None
    message: str | None
    created_at: float
    holders: list[HolderMessage]
    pods: list[PodMessage]


class ClaimListMessage(Message, frozen=True):
    """Answer of `GET /v1/claims`."""

    claims: list[ClaimMessage]
    generation: int | None = None


class AssignmentListMessage(Message, frozen=True):
    """Answer of `GET /v1/assignments`."""

    assignments: list[AssignmentMessage]
    generation: int | None = None


class SelfMessage(Message, frozen=True):
    """Answer of `GET /v1/self`: who the caller is, by its connection and not by what it says, and what it has here.

    `pid` is as the daemon sees it; in a pod the process itself may see another one. `pod_uid` is None outside of pods, and
    where the pod cannot be told (`in_pod`). `claim` and `replica` are its pod's, else those that the process holds or belongs
    to. `state`: `placed` (on `assignment`, which can be used), `switching`, `pending`, or `none` without a claim; `message`
    says why it is not placed, `reason` in one word.
    """

    pid: int
    uid: int
    operator: bool
    in_pod: bool
    pod_uid: str | None
    pod: str | None
    claim: str | None
    replica: int | None
    state: str
    assignment: AssignmentMessage | None
    reason: str | None
    message: str | None


class HolderRequest(Message, frozen=True):
    """Body of `PUT /v1/claims/<name>/holders/self`: the caller becomes the holder of a replica until it ends.

    Without `replica` it gets the first one that nobody holds, else the first; in a pod its pod's. `command` is the command
    line that the caller is about to become, by which people are told who it is.
    """

    replica: int | None = None
    command: str | None = None


class EnvironmentMessage(Message, frozen=True):
    """What a holder's environment is computed from, in the holder's own view (ordinals move with every switch).

    `kfd_order` lists the partitions (`0000:05:00.0/3`) in the order of KFD's nodes: a runtime's ordinals are this order,
    less what the device cgroup hides; `render_minors` are their device nodes' (/dev/dri/renderD<minor>), None where unknown.
    `holder` is the value of AIM_HOLDER by which the processes of a holder are known: those that inherit it belong to it.
    `sysfs_root` is where a caller reads that itself, None on a simulated node. `pod` is `namespace/name` where the replica is
    a pod, which may see neither.
    """

    claim: str
    replica: int
    partition: str
    memory_limit_bytes: int
    kfd_order: list[str]
    sysfs_root: str | None
    holder: str | None = None
    render_minors: list[int | None] = msgspec.field(default_factory=list)
    pod: str | None = None


def _word(field: str, value: str, kind: type[Word]) -> Word:
    try:
        return kind(value)
    except ValueError as error:
        allowed = ", ".join(member.value for member in kind)
        raise InvalidInputError(f"{field}: {value!r} is unknown, expected one of {allowed}") from error


def _within(field: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise InvalidInputError(f"{field}: {value} is out of range, expected {low} to {high}")
    return value


def _limit(limit: int | None, guarantee: int) -> int | None:
    if limit is None:
        return None
    if limit < max(1, guarantee):
        raise InvalidInputError(f"limit: {limit} is too small, expected at least 1 and the guarantee ({guarantee})")
    return _within("limit", limit, 1, MAX_SLOTS)


def _place(field: str, text: int | str | None, find_gpu: FindGpu) -> PartitionRef | None:
    if text is None:
        return None
    found = _PLACE.fullmatch(str(text))
    if found is None:
        raise InvalidInputError(
            f'{field}: {text!r} names no partition, expected an index (3) or one partition ("gpu3/5", "0000:65:00.0/5")'
        )
    index = _within(field, int(found[2]), 0, MAX_PARTITION_INDEX)
    return PartitionRef(index, find_gpu(found[1]) if found[1] is not None else None)


def _slo(slo: SloMessage) -> Slo:
    for field, value in (("latency_seconds", slo.latency_seconds), ("throughput_floor", slo.throughput_floor)):
        if value is not None and not 0 < value <= MAX_SLO:
            raise InvalidInputError(f"slo.{field}: {value} is out of range, expected more than 0, {MAX_SLO:g} at most")
    if slo.objective is not None and not 0 < slo.objective < 1:
        raise InvalidInputError(f"slo.objective: {slo.objective} is out of range, expected a ratio such as 0.99")
    return Slo(slo.latency_seconds, slo.objective, slo.throughput_floor)
