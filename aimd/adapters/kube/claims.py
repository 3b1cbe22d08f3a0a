"""ports_dra.Claims: reading ResourceClaims, and telling how their devices are. Blocks; for any thread.

Each request has a connection of its own while it lasts (`connection`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aimd.adapters.kube.connection import Connection
from aimd.adapters.kube.objects import FIELD_MANAGER
from aimd.adapters.kube.resources import Target
from aimd.domain.dra import ClaimRef
from aimd.errors import ConflictError, DeniedError, InvalidInputError, NotFoundError

Object = Mapping[str, Any]
API_VERSION = "resource.k8s.io/v1"
# Kubernetes 1.36 answers 422 in these cases, too.
_ANOTHER = "metadata.uid: Invalid value"
_PERMISSION = 'requires resource="resourceclaims/driver"'
_HINT = "aimd's account needs associated-node:patch of resourceclaims/driver, and a token that is bound to this node"


def resource_claim(namespace: str, name: str, subresource: str = "") -> Target:
    """GA since Kubernetes 1.34."""
    return Target(f"apis/{API_VERSION}", "resourceclaims", name, namespace, subresource)


class ApiClaims:
    """ResourceClaims by name; what has another uid is another claim."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(self, claim: ClaimRef) -> Object | None:
        found = self.claim_named(claim.namespace, claim.name)
        return found if found is not None and found["metadata"]["uid"] == claim.uid else None

    def claim_named(self, namespace: str, name: str) -> Object | None:
        try:
            found: Object = self._connection.ask("get", resource_claim(namespace, name))
        except NotFoundError:
            return None
        return found

    def apply_devices(self, claim: ClaimRef, devices: Sequence[Object], version: str | None = None) -> Object:
        # Server-side apply: entries of other drivers stay, and so does what others wrote into them.
        metadata = {"namespace": claim.namespace, "name": claim.name, "uid": claim.uid}
        if version is not None:
            metadata["resourceVersion"] = version
        body = {
            "apiVersion": API_VERSION,
            "kind": "ResourceClaim",
            "metadata": metadata,
            "status": {"devices": list(devices)},
        }
        target = resource_claim(claim.namespace, claim.name, "status")
        try:
            applied: Object = self._connection.ask("apply", target, body, fieldManager=FIELD_MANAGER, force="true")
        except InvalidInputError as error:
            if _PERMISSION in error.message:
                raise DeniedError(error.message, hint=_HINT) from error
            if _ANOTHER in error.message:
                raise ConflictError(f"{claim} is another claim by now ({error.message})") from error
            raise
        return applied
