"""Pods as tests make and watch them."""

from __future__ import annotations

from typing import Any

from tests.cluster.api import Api
from tests.cluster.images import SHELL
from tests.systemd.machine import until

SECONDS_TO_RUN = 60


def pod(name: str, script: str = "exit 0", **spec: Any) -> dict[str, Any]:
    """A pod that runs a shell script once, without the API's credentials unless the spec says otherwise."""
    container = {"name": "main", "image": SHELL, "imagePullPolicy": "Never", "args": [script]}
    usual = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    return {"metadata": {"name": name}, "spec": {**usual, **spec}}


def created(api: Api, namespace: str, item: dict[str, Any]) -> dict[str, Any]:
    return api.create(f"/api/v1/namespaces/{namespace}/pods", item)


def phase(api: Api, namespace: str, name: str, *wanted: str, seconds: float = SECONDS_TO_RUN) -> dict[str, Any]:
    """The pod once it is in one of the wanted phases (`Running`)."""
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"

    def reached() -> dict[str, Any] | None:
        found = api.get(path)
        return found if found["status"]["phase"] in wanted else None

    return until(reached, lambda: f"pod {name} is not {wanted}: {_story(api, namespace, name)}", seconds)


def exit_code(api: Api, namespace: str, name: str) -> int:
    """Of the pod's first container, once the pod has ended."""
    ended = phase(api, namespace, name, "Succeeded", "Failed")
    return ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]


def _story(api: Api, namespace: str, name: str) -> str:
    status = api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")["status"]
    events = api.get(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.name={name}")["items"]
    return f"{status}, events: {[event['message'] for event in events]}"
