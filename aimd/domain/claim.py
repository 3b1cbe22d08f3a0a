"""Claims: what a model asks of the node, and where it was placed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from aimd.domain.modes import PartitionMode
from aimd.domain.partition import PartitionKey
from aimd.domain.plan import Reason
from aimd.domain.pod import PodRef


class QosClass(str, Enum):
    """Priority class of a model's requests."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Slo:
    """Service level objective: seconds, ratio of good requests within 0 < ratio < 1, requests per second."""

    latency_seconds: float | None = None
    objective: float | None = None
    throughput_floor: float | None = None


ReplicaKey = tuple[str, str]  # who asked for a replica: UID of a pod, or UID of a ResourceClaim and a request in it
ANY_MODE = PartitionMode()
NO_SLO = Slo()


@dataclass(frozen=True, slots=True)
class PartitionRef:
    """A partition by index, on one GPU (PCI address) or, with None, on any."""

    index: int
    gpu: str | None = None

    def __str__(self) -> str:
        return f"{self.gpu}/{self.index}" if self.gpu is not None else str(self.index)


@dataclass(frozen=True, slots=True)
class ClaimSpec:
    """What is asked for. Two claims with equal specs are the same request.

    Attributes:
        memory_units: per replica, units of 1/1024 GB.
        mode: wished modes; None accepts any.
        partition: the only place allowed; `preferred`: the place taken if it fits.
        guarantee, limit: dispatch slots per replica; limit None = all of the partition.
        weight: share of the excess, 1 to 1000.
        replicas: how many partitions' shares the model gets; each is an assignment of its own.
    """

    memory_units: int
    qos: QosClass = QosClass.MEDIUM
    mode: PartitionMode = ANY_MODE
    partition: PartitionRef | None = None
    preferred: PartitionRef | None = None
    guarantee: int = 0
    limit: int | None = None
    weight: int = 1
    replicas: int = 1
    slo: Slo = NO_SLO


@dataclass(frozen=True, slots=True)
class Assignment:
    """One replica's place. `memory_units` and `guarantee` are reserved there until the claim is released.

    `mode_epoch` is the GPU's when it was placed: with another epoch the partition is another one.
    """

    claim: str
    replica: int
    gpu: str
    index: int
    memory_units: int
    guarantee: int
    mode_epoch: int = 0

    @property
    def name(self) -> str:
        return f"{self.claim}/{self.replica}"

    @property
    def place(self) -> tuple[str, int]:
        return (self.gpu, self.index)

    @property
    def key(self) -> PartitionKey:
        return PartitionKey(self.gpu, self.index, self.mode_epoch)


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """What a ResourceClaim (Dynamic Resource Allocation) was allocated of a device of this node.

    Attributes:
        claim, uid: name of the ResourceClaim, in the namespace of its pods; the UID tells it from an earlier one.
        request: name of the request in it; `gpu/large` for an alternative of a prioritized list.
        device: name of the device in the node's pool, `gpu0-cpx-3`.
        share: shareID, None where the device cannot be shared.
        prepared: its pod is bound and the kubelet has asked for it: it is kept until the kubelet gives it back.
        also: UIDs of further pods that use the same ResourceClaim.
    """

    claim: str
    uid: str
    request: str
    device: str
    share: str | None = None
    prepared: bool = False
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodRequest:
    """What a pod of the node asks for: a replica of a model.

    `created` orders the pods of a model (RFC 3339): where they differ, the claim is as the newest one asks. With
    `device` the scheduler has chosen the place, and the request is the ResourceClaim's, whichever pods use it.
    """

    pod: PodRef
    model: str
    spec: ClaimSpec
    created: str = ""
    device: DeviceShare | None = None

    @property
    def key(self) -> ReplicaKey:
        return _key(self.pod, self.device)


@dataclass(frozen=True, slots=True)
class PodReplica:
    """The pod that is a replica of a claim. `asks` has the memory, modes and place that it asked for itself."""

    replica: int
    pod: PodRef
    asks: ClaimSpec
    created: str = field(default="", compare=False)
    device: DeviceShare | None = None

    @property
    def key(self) -> ReplicaKey:
        return _key(self.pod, self.device)

    def asked_by(self, model: str) -> PodRequest:
        """The request that made it."""
        return PodRequest(self.pod, model, self.asks, self.created, self.device)


def _key(pod: PodRef, device: DeviceShare | None) -> ReplicaKey:
    return (device.uid, device.request) if device is not None else (pod.uid, "")


class ClaimState(str, Enum):
    """PLACED: every replica has its partition. SWITCHING: a mode change makes room. PENDING: waits for room."""

    PLACED = "placed"
    SWITCHING = "switching"
    PENDING = "pending"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim as the ledger keeps it, until it is released.

    Attributes:
        name: the model's name.
        owner_uid: uid of the peer that made it.
        change: mode change that makes room, while SWITCHING.
        reason, message: why it is PENDING.
        pods: the pods that its replicas are, for a claim that pods have made; it lives as long as one of them.
    """

    name: str
    owner_uid: int
    spec: ClaimSpec
    created_at: float
    state: ClaimState = ClaimState.PENDING
    assignments: tuple[Assignment, ...] = ()
    change: str | None = None
    reason: Reason | None = None
    message: str | None = None
    pods: tuple[PodReplica, ...] = ()

    @property
    def places(self) -> dict[PartitionKey, list[Assignment]]:
        """The replicas by partition."""
        found: dict[PartitionKey, list[Assignment]] = {}
        for assignment in self.assignments:
            found.setdefault(assignment.key, []).append(assignment)
        return found

    @property
    def waits_for(self) -> str:
        """Why there is no partition for it now; goes on after a colon."""
        if self.state is ClaimState.SWITCHING:
            return f"mode change {self.change} makes room for it" if self.change else "a mode change makes room for it"
        if self.state is ClaimState.PENDING:
            return self.message or "it waits for room"
        return "its GPU is not in the mode that it was placed in"

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of its replicas: from 0 on, but for pods, which come and go."""
        return tuple(one.replica for one in self.pods) or tuple(range(self.spec.replicas))

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers of the replicas that have no place."""
        placed = {assignment.replica for assignment in self.assignments}
        return tuple(number for number in self.numbers if number not in placed)

    @property
    def unplaced(self) -> tuple[tuple[ClaimSpec, tuple[int, ...]], ...]:
        """What is to be placed: for each place that is asked for the numbers of the replicas that ask for it.

        Pods of one model differ while their service is being changed: memory, modes and place are each pod's own. Of a
        ResourceClaim the guarantee is, too: the scheduler has counted it.
        """
        if not self.pods:
            return ((self.spec, self.missing),) if self.missing else ()
        found: dict[ClaimSpec, tuple[int, ...]] = {}
        for one in self.pods:
            if one.replica in self.missing:
                own, asks = self.spec, one.asks
                own = replace(own, memory_units=asks.memory_units, mode=asks.mode)
                own = replace(own, partition=asks.partition, preferred=asks.preferred)
                if one.device is not None:
                    own = replace(own, guarantee=asks.guarantee)
                found[own] = (*found.get(own, ()), one.replica)
        return tuple(found.items())

    def replica_of(self, pod: str | None) -> int | None:
        """Number of the replica that the pod of this UID is, None if it is none."""
        return next((one.replica for one in self.pods if pod == one.pod.uid or _shares(pod, one.device)), None)

    def placed(self, assignments: tuple[Assignment, ...]) -> Claim:
        """The claim with these further places, PLACED when none is missing."""
        every = tuple(sorted((*self.assignments, *assignments), key=lambda assignment: assignment.replica))
        claim = replace(self, assignments=every, change=None)
        if claim.missing:
            return claim
        return replace(claim, state=ClaimState.PLACED, reason=None, message=None)


def _shares(pod: str | None, device: DeviceShare | None) -> bool:
    return pod is not None and device is not None and pod in device.also
