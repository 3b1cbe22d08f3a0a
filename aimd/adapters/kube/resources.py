"""Resources of the API and the paths of their objects. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about: a collection, an object of it, or an object's subresource.

    Attributes:
        api: `api/v1` or `apis/<group>/<version>`.
    """

    api: str
    plural: str
    name: str = ""
    namespace: str = ""
    subresource: str = ""

    @property
    def path(self) -> str:
        """As it stands in a request; names are quoted."""
        space = ("namespaces", self.namespace) if self.namespace else ()
        parts = (*space, self.plural, self.name, self.subresource)
        return "/".join(["", self.api, *(quote(part, safe="") for part in parts if part)])

    @property
    def label(self) -> str:
        """As RBAC and metrics name it: `inferenceservices/status`."""
        return f"{self.plural}/{self.subresource}" if self.subresource else self.plural


def pods(namespace: str = "", name: str = "") -> Target:
    return Target("api/v1", "pods", name, namespace)


def node(name: str) -> Target:
    return Target("api/v1", "nodes", name)


def service(namespace: str, name: str, subresource: str = "") -> Target:
    """An InferenceService."""
    return Target("apis/serving.kserve.io/v1beta1", "inferenceservices", name, namespace, subresource)


def node_partitions(name: str = "", subresource: str = "") -> Target:
    return Target("apis/aimd.dev/v1alpha1", "nodepartitions", name, subresource=subresource)


def resource_slices() -> Target:
    """GA since Kubernetes 1.34."""
    return Target("apis/resource.k8s.io/v1", "resourceslices")


def event(namespace: str, name: str = "") -> Target:
    return Target("apis/events.k8s.io/v1", "events", name, namespace)
