"""From the node's pods to what they ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from aimd.domain.claim import Claim, PodRequest
from aimd.domain.pod import Pod
from aimd.planning.sharing.asked import FindGpu, Refused, asked
from aimd.planning.sharing.owner import model_of, service_of

LONGEST_MODEL = 253  # bytes of a model's name at the dispatch socket (aimd/protocol/DISPATCH.md)
ServiceKey = tuple[str, str]  # namespace and name


@dataclass(frozen=True, slots=True)
class Asked:
    """What the pods ask for, and those that ask for what cannot be."""

    requests: tuple[PodRequest, ...] = ()
    refused: tuple[tuple[Pod, Refused], ...] = ()


def service_key(pod: Pod) -> ServiceKey | None:
    """The InferenceService that the pod is of."""
    service = service_of(pod)
    return (pod.ref.namespace, service) if service is not None else None


def requests_of(
    pods: Iterable[Pod],
    declared: Mapping[ServiceKey, Mapping[str, Any] | None],
    find_gpu: FindGpu,
    claims: Iterable[Claim] = (),
    unknown: AbstractSet[ServiceKey] = frozenset(),
    by_device: Callable[[Pod], bool] = lambda _pod: False,
) -> Asked:
    """Of pods that have not ended; one that is being deleted keeps its place until it has.

    Args:
        declared: `spec.gpuSharing` of InferenceServices, as far as they are known and have it.
        find_gpu: as for asked().
        claims: of the node. A pod that has its replica keeps it, also when what it says now cannot be carried out.
        unknown: services of which it is not known yet what they declare: their new pods wait.
        by_device: whether the pod has its partition by a ResourceClaim, or may have, and asks for none.
    """
    held = {one.pod: one.asked_by(claim.name) for claim in claims for one in claim.pods if one.device is None}
    requests: list[PodRequest] = []
    refused: list[tuple[Pod, Refused]] = []
    for pod in pods:
        if pod.over:
            continue
        key = service_key(pod)
        if key in unknown or by_device(pod):
            requests += [replace(held[pod.ref], created=pod.created)] if pod.ref in held else []
            continue
        found = asked(pod.annotations, declared.get(key) if key is not None else None, find_gpu)
        model = model_of(pod)
        if found is not None and len(model.encode()) > LONGEST_MODEL:
            long = f"the name of its model, {model}, has {len(model.encode())} bytes, expected at most {LONGEST_MODEL}"
            found = Refused((long,))
        if isinstance(found, Refused):
            refused.append((pod, found))
            requests += [replace(held[pod.ref], created=pod.created)] if pod.ref in held else []
        elif found is not None:
            requests.append(PodRequest(pod.ref, model, found, pod.created))
    return Asked(tuple(requests), tuple(refused))


def with_devices(asked: Asked, pods: Iterable[Pod], claims: Iterable[Claim]) -> Asked:
    """What is to be answered: beside those that ask also pods whose partition the scheduler has allocated."""
    held = [(claim, one) for claim in claims for one in claim.pods if one.device is not None]
    found = tuple(
        replace(one.asked_by(claim.name), pod=pod.ref)
        for pod in pods
        for claim, one in held
        if claim.replica_of(pod.ref.uid) == one.replica
    )
    return replace(asked, requests=(*asked.requests, *found))
