"""Pods as far as they matter to their node: who they are, whom they belong to, what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class PodRef:
    """A pod: the UID tells it from an earlier one of the same name."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Owner:
    """What made a pod: an entry of `metadata.ownerReferences`."""

    kind: str
    name: str
    uid: str
    controller: bool = True


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of this node.

    Attributes:
        phase: Pending, Running, Succeeded, Failed or Unknown (core/v1 PodPhase).
        deleting: `metadata.deletionTimestamp` is set: its processes are about to end.
        created: RFC 3339, orders the pods of a model.
        version: another one with every change of the object, also of what is not kept of it (readiness).
        resource_claims: names of its ResourceClaims that exist. With one of our driver it is placed by that alone.
    """

    ref: PodRef
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    owners: tuple[Owner, ...] = ()
    phase: str = "Pending"
    deleting: bool = False
    created: str = ""
    version: str = ""
    resource_claims: tuple[str, ...] = ()

    @property
    def over(self) -> bool:
        """Whether it has ended for good (evicted pods are Failed)."""
        return self.phase in ("Succeeded", "Failed")
