"""Pods as JSON to the pods of the domain. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aimd.domain.pod import Owner, Pod, PodRef


def pod(item: Mapping[str, Any]) -> Pod:
    """What matters of a core/v1 Pod; LookupError, TypeError or AttributeError if it is none."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    return Pod(
        PodRef(metadata["namespace"], metadata["name"], metadata["uid"]),
        labels=dict(metadata.get("labels") or {}),
        annotations=dict(metadata.get("annotations") or {}),
        owners=tuple(
            Owner(each["kind"], each["name"], each["uid"], controller=bool(each.get("controller")))
            for each in metadata.get("ownerReferences") or ()
        ),
        phase=status.get("phase") or "Pending",
        deleting=bool(metadata.get("deletionTimestamp")),
        resource_claims=_resource_claims(spec, status),
        created=metadata.get("creationTimestamp") or "",
        version=metadata.get("resourceVersion") or "",
    )


def unbound_pod(item: Mapping[str, Any]) -> Pod | None:
    """The same of a pod that has ResourceClaims and no node yet, None of others."""
    return pod(item) if not (item.get("spec") or {}).get("nodeName") and pod(item).resource_claims else None


def _resource_claims(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[str, ...]:
    """Given by the pod's maker, made from a template, or for extended resources."""
    given = [each.get("resourceClaimName") for each in spec.get("resourceClaims") or ()]
    made = [each.get("resourceClaimName") for each in status.get("resourceClaimStatuses") or ()]
    extended = (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName")
    return tuple(dict.fromkeys(name for name in (*given, *made, extended) if name))
