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
        claimed=bool(spec.get("resourceClaims")),
        created=metadata.get("creationTimestamp") or "",
        version=metadata.get("resourceVersion") or "",
    )
