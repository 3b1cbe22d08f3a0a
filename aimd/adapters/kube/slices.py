"""ports_dra.Pool: the ResourceSlices of this node and driver are made what somebody decides they should be.

The kubelet deletes them when it restarts or has lost the driver for half a minute, so they are watched. What is written
is decided on a list that was asked for just before: the watch may lag.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from aimd.adapters.kube import resources
from aimd.adapters.kube.connection import Connection
from aimd.adapters.kube.objects import FIELD_MANAGER
from aimd.adapters.kube.patience import Patience
from aimd.adapters.kube.reflector import Reflector
from aimd.adapters.kube.writer import Work
from aimd.domain.cluster import WatchStatistics
from aimd.domain.dra import SliceStatistics
from aimd.errors import AimdError, ConflictError, NotFoundError
from aimd.ports_dra import Decide

Object = Mapping[str, Any]
KEY = "slices"
_FIXED = ("driver", "nodeName")  # of a spec; the API server refuses to change them, and the pool's name


class SlicePool:
    """Follows and writes from `start` to `close`.

    Args:
        submit: has work done in the thread that writes, as `Cluster.write`.
    """

    def __init__(
        self,
        connection: Connection,
        submit: Callable[[str, Work], bool],
        node_name: str,
        driver: str,
        patience: Patience | None = None,
    ) -> None:
        self._connection = connection
        self._submit = submit
        self._node_name = node_name
        self._selector = f"spec.nodeName={node_name},spec.driver={driver}"
        self._reflector: Reflector[Object] = Reflector(
            connection, resources.resource_slices(), self._selector, _kept, patience
        )
        self._lock = threading.Lock()  # of all below
        self._decide: Decide | None = None
        self._names: frozenset[str] = frozenset()  # that were published last
        self._state = SliceStatistics()
        self._writes: Counter[str] = Counter()

    def start(self) -> None:
        self._reflector.start(self._look)

    def close(self) -> None:
        """What is published stays."""
        self._reflector.close()

    @property
    def synced(self) -> bool:
        return self._reflector.synced

    def published(self) -> tuple[Object, ...]:
        return self._reflector.things()

    def publish(self, decide: Decide) -> None:
        with self._lock:
            self._decide = decide
        self._look()

    def statistics(self) -> SliceStatistics:
        there = self._reflector.things()
        with self._lock:
            return replace(self._state, slices=len(there), writes=dict(self._writes))

    def watch(self) -> WatchStatistics:
        return self._reflector.statistics()

    # -- in any thread ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Whether there is something to write, as far as the watch knows."""
        with self._lock:
            decide = self._decide
        if decide is None or not self._reflector.synced:
            return
        there = self._reflector.things()
        if decide(there) is None:
            self._published(there)
        else:
            self._told(published=False)
            self._submit(KEY, lambda _objects: self._write())

    # -- in the thread that writes ---------------------------------------------------------------------------

    def _write(self) -> None:
        with self._lock:
            decide, before = self._decide, self._names
        try:
            there = self._list()
            wanted = decide(there) if decide is not None else None
            if wanted is not None:
                self._replace(there, wanted)
        except AimdError as error:
            self._told(published=False, problem=error.message)
            raise
        self._published(there if wanted is None else wanted, before - {_name(each) for each in there})

    def _list(self) -> list[Object]:
        answer = self._connection.ask("list", resources.resource_slices(), fieldSelector=self._selector)
        return list(answer.get("items") or ())

    def _replace(self, there: Sequence[Object], wanted: Iterable[Object]) -> None:
        """What has to be there first, so that the pool is whole for most of the time."""
        left = {_name(each): each for each in there}
        owner = self._owner()
        for item in wanted:
            made = {**item, "metadata": {**item["metadata"], **owner}}
            before = left.pop(_name(item), None)
            if before is not None and not _fits(before, made):
                self._delete(before)
                before = None
            if before is None:
                self._connection.ask("create", resources.resource_slices(), made, fieldManager=FIELD_MANAGER)
                self._count("create")
            else:
                self._update(before, made)
        for each in left.values():
            self._delete(each)

    def _update(self, before: Object, item: Object) -> None:
        version = before["metadata"]["resourceVersion"]
        body = {**item, "metadata": {**item["metadata"], "resourceVersion": version}}
        try:
            self._connection.ask("update", _target(item), body, fieldManager=FIELD_MANAGER)
        except NotFoundError as error:
            raise ConflictError(f"{_name(item)} has been deleted meanwhile ({error.message})") from error
        self._count("update")

    def _delete(self, item: Object) -> None:
        try:
            self._connection.ask("delete", _target(item))
        except NotFoundError:
            return
        self._count("delete")

    def _owner(self) -> Object:
        """With its Node, a slice goes too."""
        try:
            node = self._connection.ask("get", resources.node(self._node_name))
        except NotFoundError:
            return {}
        owner = {"apiVersion": "v1", "kind": "Node", "name": self._node_name, "uid": node["metadata"]["uid"]}
        return {"ownerReferences": [{**owner, "controller": True}]}

    # -- statistics ------------------------------------------------------------------------------------------

    def _count(self, verb: str) -> None:
        with self._lock:
            self._writes[verb] += 1

    def _published(self, slices: Sequence[Object], vanished: frozenset[str] = frozenset()) -> None:
        names = frozenset(_name(each) for each in slices)
        generation = max((each["spec"]["pool"]["generation"] for each in slices), default=0)
        with self._lock:
            self._names = names
            self._state = SliceStatistics(
                generation, wanted=len(names), published=True, vanished=self._state.vanished + len(vanished & names)
            )

    def _told(self, **changes: Any) -> None:
        with self._lock:
            self._state = replace(self._state, **changes)


def _kept(item: Object) -> Object:
    """Without what is the API server's alone."""
    return {**item, "metadata": {key: value for key, value in item["metadata"].items() if key != "managedFields"}}


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])


def _target(item: Object) -> resources.Target:
    return replace(resources.resource_slices(), name=_name(item))


def _fits(before: Object, item: Object) -> bool:
    """Whether one can become the other."""
    old, new = before["spec"], item["spec"]
    same_pool = old.get("pool", {}).get("name") == new.get("pool", {}).get("name")
    return same_pool and all(old.get(key) == new.get(key) for key in _FIXED)
