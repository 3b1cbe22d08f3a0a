"""What the ledger keeps of ResourceClaims: after a restart, and without the cluster, it is all that is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aimd.domain.claim import Claim, ClaimState, DeviceShare, PodReplica
from aimd.domain.device_name import DeviceName
from aimd.domain.dra import ClaimRef
from aimd.domain.memory import reserved_bytes
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.domain.plan import Reason
from aimd.errors import NotFoundError
from aimd.planning.dra.conditions import Outcome, Readiness
from aimd.planning.dra.divisions import division
from aimd.planning.dra.requests import Allocation, Reservation
from aimd.planning.pod_claims import WAITS

_DISTANCE = {Readiness.READY: 0, Readiness.WAITING: 1, Readiness.FAILED: 2}


@dataclass(frozen=True, slots=True)
class Kept:
    """A ResourceClaim that has shares of this node's partitions, or waits for them.

    Attributes:
        model: whose replicas its requests are.
        allocation: its pods are the first one only; the UIDs of others are in the ledger, their names are not.
        prepared: the kubelet has asked for it, and has not given it back.
        outcomes: whether each partition is there, by name of the device.
    """

    model: str
    allocation: Allocation
    prepared: bool
    outcomes: dict[str, Outcome]

    @property
    def worst(self) -> Outcome:
        """Of its partitions the one that is furthest from being there."""
        return max(self.outcomes.values(), key=lambda one: _DISTANCE[one.readiness])


def kept(snapshot: NodeSnapshot, pool: str) -> dict[str, Kept]:
    """All of them, by UID; `pool` is the node's."""
    return {one.allocation.claim.uid: one for claim in snapshot.claims for one in _of_model(claim, snapshot, pool)}


def _of_model(claim: Claim, snapshot: NodeSnapshot, pool: str) -> Iterator[Kept]:
    by_uid: dict[str, list[tuple[PodReplica, DeviceShare]]] = {}
    for replica in claim.pods:
        if replica.device is not None:
            by_uid.setdefault(replica.device.uid, []).append((replica, replica.device))
    for uid, shares in by_uid.items():
        replica, device = shares[0]
        where = ClaimRef(replica.pod.namespace, device.claim, uid)
        reservations = tuple(_reservation(each, share, snapshot, pool) for each, share in shares)
        outcomes = {share.device: _outcome(each, share, claim, snapshot) for each, share in shares}
        prepared = any(share.prepared for _, share in shares)
        yield Kept(claim.name, Allocation(where, replica.created, reservations, (replica.pod,)), prepared, outcomes)


def _reservation(replica: PodReplica, share: DeviceShare, snapshot: NodeSnapshot, pool: str) -> Reservation:
    name = DeviceName.parse(share.device)
    status = _gpu(name, snapshot)
    sizes = division(status.gpu).get(name.mode, ()) if status is not None else ()
    size = sizes[name.index] if name.index < len(sizes) else None
    limit = reserved_bytes(replica.asks.memory_units, size) if size is not None else None
    return Reservation(share.request, pool, name, share.share, replica.asks, limit, waits=False)


def _outcome(replica: PodReplica, share: DeviceShare, claim: Claim, snapshot: NodeSnapshot) -> Outcome:
    name = DeviceName.parse(share.device)
    place = next((one for one in claim.assignments if one.replica == replica.replica), None)
    status = _gpu(name, snapshot)
    if status is None:
        return Outcome(Readiness.FAILED, "UnknownGpu", f"{name.gpu_name} is not on this node any more")
    if place is not None and place.mode_epoch == status.mode_epoch and _there(name, status):
        return Outcome(Readiness.READY, "PartitionReady", f"{name.gpu_name}/{name.index} is there, in {name.mode}")
    reason = claim.reason or Reason.SWITCH_IN_PROGRESS
    words = "".join(word.title() for word in reason.value.split("_"))
    given_up = claim.state is ClaimState.PENDING and place is None
    if given_up and reason is not Reason.SWITCH_IN_PROGRESS and claim.message not in (None, WAITS):
        return Outcome(Readiness.FAILED, words, claim.waits_for)
    return Outcome(Readiness.WAITING, words, claim.waits_for)


def _there(name: DeviceName, status: GpuStatus) -> bool:
    return status.gpu.compute_mode is name.mode and any(one.index == name.index for one in status.gpu.partitions)


def _gpu(name: DeviceName, snapshot: NodeSnapshot) -> GpuStatus | None:
    try:
        return snapshot.find(name.gpu_name)
    except NotFoundError:
        return None
