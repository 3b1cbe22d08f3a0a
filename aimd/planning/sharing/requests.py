"""From the node's pods to what they ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aimd.domain.claim import PodRequest
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
    pods: Iterable[Pod], declared: Mapping[ServiceKey, Mapping[str, Any] | None], find_gpu: FindGpu
) -> Asked:
    """Of pods that have not ended; one that is being deleted keeps its place until it has.

    Args:
        declared: `spec.gpuSharing` of InferenceServices, as far as they are known and have it.
        find_gpu: as for asked().
    """
    requests: list[PodRequest] = []
    refused: list[tuple[Pod, Refused]] = []
    for pod in pods:
        if pod.over:
            continue
        key = service_key(pod)
        found = asked(pod.annotations, declared.get(key) if key is not None else None, find_gpu)
        model = model_of(pod)
        if found is not None and len(model.encode()) > LONGEST_MODEL:
            long = f"the name of its model, {model}, has {len(model.encode())} bytes, expected at most {LONGEST_MODEL}"
            found = Refused((long,))
        if isinstance(found, Refused):
            refused.append((pod, found))
        elif found is not None:
            requests.append(PodRequest(pod.ref, model, found, pod.created))
    return Asked(tuple(requests), tuple(refused))
