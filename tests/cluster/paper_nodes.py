"""Nodes without kubelets: Ready in the eyes of scheduler and controllers, and pods "run" and end on them.

A thread does of a kubelet's work what others can see: it renews the node, says that pods run, and lets those that are
deleted be gone. No process exists.
"""

from __future__ import annotations

import contextlib
import threading
import time
from datetime import datetime, timezone
from typing import Any

from tests.cluster.api import Api, RefusedError
from tests.systemd.machine import until

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_RENEWALS = 10.0  # a kubelet's; after 50 without one the node is lost


class PaperNodes:
    """Of one cluster, from its making until `close`."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._names: dict[str, float] = {}  # when to renew it
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paper-nodes", daemon=True)
        self._thread.start()

    def add(self, name: str, **labels: str) -> None:
        """A new Node; pods may be scheduled to it."""
        item = {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}}
        if self._api.find(f"/api/v1/nodes/{name}") is None:
            self._api.create("/api/v1/nodes", item)
        self._renew(name)
        with self._lock:
            self._names[name] = time.monotonic() + SECONDS_BETWEEN_RENEWALS
        untainted = lambda: not self._api.get(f"/api/v1/nodes/{name}")["spec"].get("taints")  # noqa: E731
        until(untainted, f"node {name} is not ready for the controllers")

    def leave(self, name: str) -> None:
        """The machine is off from now on: its Node and its pods stay as they are."""
        with self._lock:
            self._names.pop(name, None)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stopping.wait(SECONDS_BETWEEN_LOOKS):
            with self._lock:
                names = dict(self._names)
            with contextlib.suppress(OSError, RefusedError):  # the API server is away: the next look
                self._look(names)

    def _look(self, names: dict[str, float]) -> None:
        for name, due in names.items():
            if time.monotonic() >= due:
                self._renew(name)
                with self._lock:
                    if name in self._names:
                        self._names[name] = time.monotonic() + SECONDS_BETWEEN_RENEWALS
        for pod in self._api.get("/api/v1/pods")["items"] if names else ():
            if pod["spec"].get("nodeName") in names:
                with contextlib.suppress(RefusedError):  # it went meanwhile
                    self._go_on(pod)

    def _go_on(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        if "deletionTimestamp" in metadata:
            self._api.ask("DELETE", path, {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}})
        elif pod["status"]["phase"] == "Pending":
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": _now()}
            self._api.merge(f"{path}/status", {"status": {"phase": "Running", "conditions": [ready]}})

    def _renew(self, name: str) -> None:
        ready = {"type": "Ready", "status": "True", "reason": "Paper", "lastHeartbeatTime": _now()}
        capacity = {"cpu": "64", "memory": "512Gi", "pods": "110"}
        status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
        self._api.merge(f"/api/v1/nodes/{name}/status", {"status": status})


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
