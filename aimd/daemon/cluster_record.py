"""The node's NodePartitions: its record in the cluster, written when the node is otherwise, and now and then."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from aimd.daemon.published import Published
from aimd.domain.cluster import ObjectRef
from aimd.domain.node import NodeSnapshot
from aimd.planning.sharing.node_status import flips, node_status, same
from aimd.ports_cluster import Cluster, Object, Objects

MISSING_SECONDS = 30.0  # until a record that could not be made is tried again: the Node may be there now
JITTER = 0.2  # of the refresh, so that nodes do not write at the same time
API_VERSION, KIND = "aimd.dev/v1alpha1", "NodePartitions"


class NodeRecord:
    """What the record was told last.

    Args:
        about: further fields of it.
        refresh_seconds: how often it is written although it has not changed.
        now: RFC 3339.
    """

    def __init__(
        self,
        cluster: Cluster,
        shown: Published[NodeSnapshot],
        about: Mapping[str, str],
        refresh_seconds: float,
        now: Callable[[], str],
    ) -> None:
        self._cluster = cluster
        self._shown = shown
        self._about = about
        self._refresh_seconds = refresh_seconds
        self._now = now
        self._told: tuple[dict[str, Any], object] | None = None  # the status, and of which object it was
        self._due = self._missing_due = 0.0
        self._rivals: tuple[str, ...] = ()
        self._refused: str | None = None

    def tell(self, snapshot: NodeSnapshot, rivals: tuple[str, ...], refused: str | None, now: float) -> None:
        """Have written what is otherwise; `now` in CLOCK_MONOTONIC seconds."""
        self._rivals, self._refused = rivals, refused
        there = (self._cluster.node_partitions() or {}).get("metadata") or {}
        generation = there.get("generation")
        which = (there.get("uid"), generation)  # one that was deleted is made again at once
        status = self._status(snapshot, {}, generation, "")
        refresh, missing = now >= self._due, not there and now >= self._missing_due
        told = self._told is not None and which == self._told[1] and same(status, self._told[0])
        if told and not refresh and not missing:
            return
        if self._cluster.write("node", self._work(refresh=refresh)):
            self._told = status, which
            self._missing_due = now + MISSING_SECONDS
            if refresh:
                self._due = now + self._refresh_seconds * (1 + JITTER * random.random())  # noqa: S311 - spreads writes

    def _status(self, snapshot: NodeSnapshot, current: Object, generation: int | None, now: str) -> dict[str, Any]:
        return node_status(
            snapshot,
            current,
            generation=generation,
            about=self._about,
            rivals=self._rivals,
            refused=self._refused,
            now=now,
        )

    def _work(self, *, refresh: bool) -> Callable[[Objects], None]:
        def work(objects: Objects) -> None:
            item = objects.node_partitions()
            if item is None:
                node = objects.node()
                if node is None:
                    return  # the record goes with its Node
                item = objects.create_node_partitions(_record(self._cluster.node_name, node))
            current, metadata = item.get("status") or {}, item["metadata"]
            status = self._status(self._shown.latest(), current, metadata.get("generation"), self._now())
            if not refresh and same(status, current):
                return
            gone = dict.fromkeys(key for key in current if key not in status)
            objects.patch_node_partitions_status({"status": {**gone, **status}})
            about = ObjectRef(API_VERSION, KIND, metadata["name"], metadata["uid"])
            for reason, message, trouble in flips(current, status):
                self._cluster.tell(about, reason, message, warning=trouble)

        return work


def _record(name: str, node: Object) -> Object:
    """A new NodePartitions, which goes with its Node."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name, "ownerReferences": [owner]}}
