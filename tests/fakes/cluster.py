"""A cluster in memory, as a node takes part in it: writes are done at once, or refused."""

from __future__ import annotations

from typing import Any


class FakeObjects:
    def __init__(self) -> None:
        self.record: dict[str, Any] | None = None
        self.the_node: dict[str, Any] | None = {"metadata": {"uid": "n1"}}
        self.services: dict[tuple[str, str], dict[str, Any]] = {}
        self.read: list[tuple[str, str]] = []
        self.patched: list[tuple[str, str]] = []
        self.created: list[dict[str, Any]] = []

    def service(self, namespace: str, name: str) -> dict[str, Any] | None:
        self.read.append((namespace, name))
        return self.services.get((namespace, name))

    def patch_service_status(self, namespace: str, name: str, _patch: Any) -> dict[str, Any]:
        self.patched.append((namespace, name))
        return {}

    def node_partitions(self) -> dict[str, Any] | None:
        return self.record

    def create_node_partitions(self, item: Any) -> dict[str, Any]:
        self.record = {**item, "metadata": {**item["metadata"], "uid": f"r{len(self.created)}", "generation": 1}}
        self.created.append(self.record["metadata"])
        return self.record

    def patch_node_partitions_status(self, patch: Any) -> dict[str, Any]:
        assert self.record is not None
        self.record = {**self.record, "status": patch["status"]}
        return self.record

    def node(self) -> dict[str, Any] | None:
        return self.the_node

    def resource_slices(self) -> list[Any]:
        return []


class FakeCluster:
    node_name = "node-a"
    synced = True

    def __init__(self) -> None:
        self.objects = FakeObjects()
        self.full: set[str] = set()  # keys of writes that are not accepted
        self.the_pods: tuple[Any, ...] = ()
        self.spec: dict[str, Any] = {}
        self.written: list[str] = []
        self.told: list[tuple[Any, str]] = []

    def pods(self) -> tuple[Any, ...]:
        return self.the_pods

    def node_partitions(self) -> dict[str, Any] | None:
        return None if self.objects.record is None else {**self.objects.record, "spec": self.spec}

    def write(self, key: str, work: Any) -> bool:
        if key in self.full:
            return False
        self.written.append(key)
        work(self.objects)
        return True

    def tell(self, about: Any, reason: str, _message: str, *, warning: bool = False) -> None:
        self.told.append((about, reason))
