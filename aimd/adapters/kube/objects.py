"""ports_cluster.Objects: single requests to the API server. Blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aimd.adapters.kube import resources
from aimd.adapters.kube.connection import Connection
from aimd.errors import NotFoundError

Object = Mapping[str, Any]
FIELD_MANAGER = "aimd"


class ApiObjects:
    """The objects that aimd on a node reads and writes."""

    def __init__(self, connection: Connection, node_name: str) -> None:
        self._connection = connection
        self._node_name = node_name

    def service(self, namespace: str, name: str) -> Object | None:
        return self._find(resources.service(namespace, name))

    def patch_service_status(self, namespace: str, name: str, patch: Object) -> Object:
        return self._patch(resources.service(namespace, name, "status"), patch)

    def pod(self, namespace: str, name: str) -> Object | None:
        return self._find(resources.pods(namespace, name))

    def node_partitions(self) -> Object | None:
        return self._find(resources.node_partitions(self._node_name))

    def create_node_partitions(self, item: Object) -> Object:
        return self._create(resources.node_partitions(), item)

    def patch_node_partitions_status(self, patch: Object) -> Object:
        return self._patch(resources.node_partitions(self._node_name, "status"), patch)

    def node(self) -> Object | None:
        return self._find(resources.node(self._node_name))

    def resource_slices(self) -> Sequence[Object]:
        selector = f"spec.nodeName={self._node_name}"
        try:
            answer = self._connection.ask("list", resources.resource_slices(), fieldSelector=selector)
        except NotFoundError:  # before Kubernetes 1.34
            return ()
        return tuple(answer.get("items") or ())

    def create_event(self, namespace: str, item: Object) -> Object:
        return self._create(resources.event(namespace), item)

    def patch_event(self, namespace: str, name: str, patch: Object) -> Object:
        return self._patch(resources.event(namespace, name), patch)

    def _find(self, target: resources.Target) -> Object | None:
        try:
            found: Object = self._connection.ask("get", target)
        except NotFoundError:
            return None
        return found

    def _create(self, target: resources.Target, item: Object) -> Object:
        made: Object = self._connection.ask("create", target, item, fieldManager=FIELD_MANAGER)
        return made

    def _patch(self, target: resources.Target, patch: Object) -> Object:
        changed: Object = self._connection.ask("patch", target, patch, fieldManager=FIELD_MANAGER)
        return changed
