"""ResourceClaims as an API server gives them, allocated."""

from __future__ import annotations

from typing import Any

from tests.unit.dra.nodes import NODE

CONDITIONS = {
    "bindingConditions": ["gpu.aimd.dev/partition-ready"],
    "bindingFailureConditions": ["gpu.aimd.dev/partition-failed"],
}


def result(
    device: str = "gpu0-cpx-3", request: str = "gpu", *, memory: Any = "8Gi", slots: Any = "0", **more: Any
) -> dict[str, Any]:
    """An entry of the allocation's results."""
    consumed = {key: value for key, value in (("memory", memory), ("slots", slots)) if value is not None}
    named = {"request": request, "driver": "gpu.aimd.dev", "pool": NODE, "device": device, "shareID": f"share-{device}"}
    return {**named, "consumedCapacity": consumed, **more}


def config(
    source: str = "FromClaim", requests: tuple[str, ...] = (), driver: str = "gpu.aimd.dev", **fields: Any
) -> dict[str, Any]:
    """An entry of the allocation's configuration."""
    parameters = {"apiVersion": "aimd.dev/v1alpha1", "kind": "PartitionConfig", **fields}
    return {"source": source, "requests": list(requests), "opaque": {"driver": driver, "parameters": parameters}}


def claim(*results: dict[str, Any], configs: tuple[Any, ...] = (), pods: int = 1, **status: Any) -> dict[str, Any]:
    users = [{"resource": "pods", "name": f"llama-{n}", "uid": f"pod-uid-{n}"} for n in range(pods)]
    return {
        "metadata": {
            "namespace": "default",
            "name": "llama-gpu",
            "uid": "claim-uid",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "status": {
            "allocation": {"devices": {"results": list(results), "config": list(configs)}},
            "reservedFor": users,
            **status,
        },
    }
