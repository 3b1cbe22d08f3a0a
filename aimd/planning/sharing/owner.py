"""Which model a pod is a replica of."""

from __future__ import annotations

from aimd.domain.pod import Owner, Pod

SERVICE_LABEL = "serving.kserve.io/inferenceservice"
HASH_LABEL = "pod-template-hash"


def model_of(pod: Pod) -> str:
    """`<namespace>/<service>`; of pods that no InferenceService made the kind comes first: `deployment/default/web`.

    A ReplicaSet is its Deployment's, whose name it has less the pod-template-hash (deployment controller, sync.go).
    """
    namespace = pod.ref.namespace
    service = service_of(pod)
    if service is not None:
        return f"{namespace}/{service}"
    owner = next((owner for owner in pod.owners if owner.controller), None)
    if owner is None:
        return f"pod/{namespace}/{pod.ref.name}"
    kind, name = _made_by(owner, pod)
    return f"{kind}/{namespace}/{name}"


def service_of(pod: Pod) -> str | None:
    """Name of the InferenceService whose predictor, transformer or explainer it is (KServe's label), None for others."""
    return pod.labels.get(SERVICE_LABEL) or None


def _made_by(owner: Owner, pod: Pod) -> tuple[str, str]:
    suffix = f"-{pod.labels.get(HASH_LABEL, '')}"
    if owner.kind == "ReplicaSet" and len(suffix) > 1 and owner.name.endswith(suffix):
        return "deployment", owner.name.removesuffix(suffix)
    return owner.kind.lower(), owner.name
