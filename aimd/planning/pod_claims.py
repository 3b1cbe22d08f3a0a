"""Claims that pods make: a model's pods on this node are the replicas of one claim. Pure.

What is seen is all there is: pods that ask get a replica, replicas whose pod asks no more are given up. So the same
answer follows after a restart, after events that came twice, and after events that never came. ResourceClaims, for which
the scheduler has chosen the place, are replicas, too: the kubelet brings them one by one and gives them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count

from aimd.domain.claim import Assignment, Claim, ClaimState, PodReplica, PodRequest
from aimd.domain.plan import Reason

NODES_OWN_UID = 0  # who owns what pods claim: nobody but operators may touch it
WAITS = "it waits for its place"


@dataclass(frozen=True, slots=True)
class Followed:
    """What becomes of the claims.

    Attributes:
        claims: new ones and those that are otherwise now.
        ended: claims that have no pod any more, as they were.
        left: name and number of every replica that was given up.
    """

    claims: tuple[Claim, ...] = ()
    ended: tuple[Claim, ...] = ()
    left: tuple[tuple[str, int], ...] = ()


def asked_before(claims: Iterable[Claim]) -> list[PodRequest]:
    """The requests that the replicas of pods and ResourceClaims were made for."""
    return [one.asked_by(claim.name) for claim in claims for one in claim.pods]


def with_pods(claims: Iterable[Claim], pods: Iterable[PodRequest]) -> list[PodRequest]:
    """All requests when these are the pods that ask. ResourceClaims stay, and their pods are placed by them alone."""
    devices = [one for one in asked_before(claims) if one.device is not None]
    placed = {uid for one in devices if one.device is not None for uid in (one.pod.uid, *one.device.also)}
    return [*devices, *(one for one in pods if one.pod.uid not in placed)]


def with_devices(claims: Iterable[Claim], uid: str, devices: Iterable[PodRequest]) -> list[PodRequest]:
    """All requests when the ResourceClaim of this UID asks for these; without any it is given up."""
    devices = list(devices)
    own = {pod for one in devices if one.device is not None for pod in (one.pod.uid, *one.device.also)}
    others = [one for one in asked_before(claims) if (one.device.uid != uid if one.device else one.pod.uid not in own)]
    return [*others, *devices]


def is_prepared(claims: Iterable[Claim], uid: str) -> bool:
    """Whether the kubelet has asked for the ResourceClaim of this UID."""
    shares = (one.device for claim in claims for one in claim.pods if one.device is not None)
    return any(share.uid == uid and share.prepared for share in shares)


def follow(claims: Mapping[str, Claim], requests: Iterable[PodRequest], wall: float, slots: int) -> Followed:
    """What the pods that ask now make of the claims.

    Args:
        claims: all of the node, by name. One of the same name that no pod has made keeps its name: those pods get none.
        wall: seconds since the epoch, for new claims.
        slots: of a partition, that guarantees are taken from.
    """
    asked: dict[str, list[PodRequest]] = {}
    for request in requests:
        asked.setdefault(request.model, []).append(request)
    ended = tuple(claim for name, claim in claims.items() if claim.pods and name not in asked)
    after = {name: claim for name, claim in claims.items() if claim not in ended}
    own = {name: pods for name, pods in asked.items() if name not in claims or claims[name].pods}
    for name, pods in own.items():
        after[name] = _with_pods(claims.get(name) or Claim(name, NODES_OWN_UID, pods[0].spec, wall), pods)
    for name in own:
        after[name] = _with_guarantees(after[name], after.values(), slots)
    staying = {(name, one.key) for name, claim in after.items() for one in claim.pods}
    left = tuple(
        (claim.name, one.replica)
        for claim in claims.values()
        for one in claim.pods
        if (claim.name, one.key) not in staying
    )
    return Followed(tuple(after[name] for name in own if after[name] != claims.get(name)), ended, left)


def _with_pods(claim: Claim, requests: Iterable[PodRequest]) -> Claim:
    """The claim with these pods as its replicas, numbered as before or by the lowest number that is free."""
    requests = sorted(requests, key=lambda request: (request.created, request.pod))
    known = {one.key: one.replica for one in claim.pods}
    numbers = {request.key: known[request.key] for request in requests if request.key in known}
    free = (number for number in count() if number not in known.values())
    numbers |= {request.key: next(free) for request in requests if request.key not in numbers}
    made = {
        numbers[one.key]: PodReplica(numbers[one.key], one.pod, one.spec, one.created, one.device) for one in requests
    }
    pods = tuple(made[number] for number in sorted(made))
    spec = replace(requests[-1].spec, replicas=len(pods))
    moved = {one.replica for one in claim.pods if one.replica in made and _moved(one, made[one.replica])}
    assignments = tuple(a for a in claim.assignments if a.replica in numbers.values() and a.replica not in moved)
    claim = replace(claim, spec=spec, pods=pods, assignments=assignments)
    if claim.state is ClaimState.SWITCHING:
        return claim
    if not claim.missing:
        return replace(claim, state=ClaimState.PLACED, reason=None, message=None)
    if claim.state is ClaimState.PENDING and claim.message is not None:
        return claim
    return replace(claim, state=ClaimState.PENDING, reason=Reason.NO_ROOM, message=WAITS)


def _moved(before: PodReplica, after: PodReplica) -> bool:
    """Whether a ResourceClaim was allocated something else than before."""
    there, now = before.asks, after.asks
    return after.device is not None and (there.mode, there.partition, there.memory_units, there.guarantee) != (
        *(now.mode, now.partition, now.memory_units, now.guarantee),
    )


def _with_guarantees(claim: Claim, claims: Iterable[Claim], slots: int) -> Claim:
    """Its replicas with the guarantee that is asked for now, where the partition has the slots; else with the old one.

    That of a ResourceClaim is as the scheduler has allocated it.
    """
    allocated = {one.replica for one in claim.pods if one.device is not None}
    others = [a for each in claims if each.name != claim.name for a in each.assignments]
    changed: list[Assignment] = []
    for index, one in enumerate(claim.assignments):
        beside = [*others, *changed, *claim.assignments[index + 1 :]]
        taken = sum(a.guarantee for a in beside if (*a.place, a.mode_epoch) == (*one.place, one.mode_epoch))
        wanted = claim.spec.guarantee
        fits = one.replica not in allocated and (wanted <= one.guarantee or taken + wanted <= slots)
        changed.append(replace(one, guarantee=wanted) if fits else one)
    return replace(claim, assignments=tuple(changed))
