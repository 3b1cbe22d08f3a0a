"""Events (events.k8s.io/v1) about objects of the cluster, which `kubectl describe` shows.

What is told again is counted in the series of the Event that is there, also when an earlier process has made it: what
is told names it. They are sent by the writer and may be lost.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from aimd.adapters.kube.objects import ApiObjects
from aimd.adapters.kube.tally import Story, Tally
from aimd.adapters.kube.writer import Writer
from aimd.domain.cluster import ObjectRef
from aimd.errors import ConflictError, NotFoundError

CONTROLLER = "aimd.dev/aimd"
ACTION = "Assigning"
CLUSTER_NAMESPACE = "default"  # where Events about objects without a namespace belong
_LONGEST_NOTE = 1024  # characters (validation of events.k8s.io/v1); this many bytes here, to be on the safe side
_LONGEST_NAME = 230  # of 253; a checksum follows


class EventRecorder:
    """Tells of objects.

    Args:
        objects: where they are sent; only the writer's thread uses it.
        wall: seconds since the epoch.
    """

    def __init__(
        self, objects: ApiObjects, writer: Writer, node_name: str, wall: Callable[[], float] = time.time
    ) -> None:
        self._objects = objects
        self._writer = writer
        self._node_name = node_name
        self._wall = wall
        self._lock = threading.Lock()  # of both below, and of all stories
        self._tally = Tally()
        self._held_back = 0

    @property
    def held_back(self) -> int:
        """Events that the limit of their object kept from being sent; what is told again later counts them, too."""
        return self._held_back

    def tell(self, about: ObjectRef, reason: str, message: str, *, warning: bool = False) -> None:
        """Never blocks, and raises nothing: an Event is a courtesy."""
        with self._lock:
            story, allowed = self._tally.told(about, reason, message, self._wall(), warning=warning)
            if not allowed:
                self._held_back += 1
                return
        self._writer.submit(f"event {_name(story)}", lambda _: self._send(story), urgent=False, optional=True)

    def _send(self, story: Story) -> None:
        """What is there of the Event becomes what it is by now, whatever has been sent before."""
        with self._lock:
            sent, tried, item = story.sent, story.tried, _event(story, self._node_name)
            story.tried = True
        namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
        try:
            if sent:
                self._objects.patch_event(namespace, name, {"series": item["series"]})
                return
            try:
                self._objects.create_event(namespace, item)
            except ConflictError:
                if not tried:  # an earlier process has told it; else an answer was lost
                    self._objects.patch_event(namespace, name, {"series": item.get("series") or _series(story, 2)})
        except NotFoundError:  # it has expired, or its namespace is gone
            with self._lock:
                story.sent = story.tried = False
            raise
        with self._lock:
            story.sent = True


def _event(story: Story, node_name: str) -> dict[str, Any]:
    about = story.about
    item: dict[str, Any] = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": _name(story), "namespace": about.namespace or CLUSTER_NAMESPACE},
        "eventTime": _time(story.first),
        "reportingController": CONTROLLER,
        "reportingInstance": node_name[:128],
        "action": ACTION,
        "reason": story.reason[:128],
        "type": "Warning" if story.warning else "Normal",
        "note": story.message.encode()[:_LONGEST_NOTE].decode(errors="ignore"),
        "regarding": {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "name": about.name,
            "uid": about.uid,
            **({"namespace": about.namespace} if about.namespace else {}),
        },
    }
    if story.count > 1:
        item["series"] = _series(story, story.count)
    return item


def _series(story: Story, count: int) -> dict[str, Any]:
    return {"count": count, "lastObservedTime": _time(story.last)}


def _name(story: Story) -> str:
    """Of the object and what is told: the same at each attempt and in each process, and no other's."""
    told = hashlib.blake2b(f"{story.about.uid} {story.reason} {story.message}".encode(), digest_size=8)
    return f"{story.about.name[:_LONGEST_NAME].rstrip('.-')}.{told.hexdigest()}"


def _time(seconds: float) -> str:
    """MicroTime of meta/v1."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
