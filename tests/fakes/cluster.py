"""A cluster in memory, as a node takes part in it: reads and writes are done at once, or fail as they are told to."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from aimd.errors import AimdError, InvalidInputError, NotFoundError
from tests.fakes.kube_api import merged


class FakeObjects:
    """Attributes:
    failing: what requests about this raise: `service`, `pod`, `node`, `resource_slices`, `patch`.
    asked: reads so far, as `service default/llama`.
    """

    def __init__(self) -> None:
        self.record: dict[str, Any] | None = None
        self.the_node: dict[str, Any] | None = {"metadata": {"uid": "n1"}}
        self.services: dict[tuple[str, str], dict[str, Any]] = {}
        self.pods: dict[tuple[str, str], str] = {}  # UIDs
        self.failing: dict[str, AimdError] = {}
        self.asked: list[str] = []
        self.patched: list[tuple[str, str]] = []
        self.created: list[dict[str, Any]] = []
        self.slices: list[Any] = []

    def _ask(self, kind: str, *names: str) -> None:
        self.asked.append(f"{kind} {'/'.join(names)}".strip())
        if kind in self.failing:
            raise self.failing[kind]

    def service(self, namespace: str, name: str) -> dict[str, Any] | None:
        self._ask("service", namespace, name)
        return copy.deepcopy(self.services.get((namespace, name)))

    def patch_service_status(self, namespace: str, name: str, patch: Any) -> dict[str, Any]:
        key = (namespace, name)
        if "patch" in self.failing:
            raise self.failing["patch"]
        if key not in self.services:
            raise NotFoundError(f"{namespace}/{name} is not there")
        self.patched.append(key)
        self.services[key] = merged(self.services[key], {"status": patch["status"]})
        return self.services[key]

    def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        self._ask("pod", namespace, name)
        uid = self.pods.get((namespace, name))
        return None if uid is None else {"metadata": {"uid": uid}}

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
        self._ask("node")
        return self.the_node

    def resource_slices(self) -> list[Any]:
        self._ask("resource_slices")
        return self.slices


class FakeCluster:
    """Attributes:
    full: keys of writes that are not accepted.
    waiting: writes and reads whose last attempt has failed; `retry` does them again.
    dropped: writes that the API server does not take.
    """

    node_name = "node-a"
    synced = True

    def __init__(self) -> None:
        self.objects = FakeObjects()
        self.full: set[str] = set()
        self.the_pods: tuple[Any, ...] = ()
        self.spec: dict[str, Any] = {}
        self.written: list[str] = []
        self.told: list[tuple[Any, str]] = []
        self.waiting: dict[tuple[str, str], Callable[[Any], None]] = {}
        self.dropped: list[str] = []

    def start(self, on_change: Callable[[], None]) -> None:
        pass

    def close(self) -> None:
        pass

    def pods(self) -> tuple[Any, ...]:
        return self.the_pods

    def node_partitions(self) -> dict[str, Any] | None:
        return None if self.objects.record is None else {**self.objects.record, "spec": self.spec}

    def write(self, key: str, work: Any, *, urgent: bool = True) -> bool:
        if key in self.full:
            return False
        self.written.append(key if urgent else f"{key} later")
        self._do("write", key, work)
        return True

    def read(self, key: str, work: Any, *, urgent: bool = True) -> bool:
        del urgent  # everything is done at once
        self._do("read", key, work)
        return True

    def retry(self) -> None:
        for (kind, key), work in list(self.waiting.items()):
            self._do(kind, key, work)

    def _do(self, kind: str, key: str, work: Callable[[Any], None]) -> None:
        self.waiting.pop((kind, key), None)
        try:
            work(self.objects)
        except (NotFoundError, InvalidInputError):
            self.dropped.append(key)
        except AimdError:
            self.waiting[kind, key] = work

    def tell(self, about: Any, reason: str, _message: str, *, warning: bool = False) -> None:
        self.told.append((about, reason))
