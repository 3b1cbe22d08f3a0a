"""InferenceServices of the pods here, as they were read last: what they declare, and what their status says.

Nobody watches them. One is read when a pod of it appears or changes, and every minute if it declares anything. A check,
which asks after the pods of other nodes that its status names, too, is due when all that follows from a change should
have been written (KServe's controller writes the status), and in any case now and then.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aimd.domain.pod import Pod, PodRef
from aimd.planning.sharing.requests import ServiceKey, service_key
from aimd.planning.sharing.service_status import is_gone, others
from aimd.ports_cluster import Cluster, Object, Objects

AGAIN_SECONDS = 1.0  # between two looks at a service whose pods only change
SETTLED_SECONDS = 5.0  # after the last change of its pods others have written what follows from it
DECLARED_SECONDS = 60.0  # between two looks at what may be edited without any change of a pod
LOST_SECONDS = 60.0  # a check that was not heard of is asked for again
JITTER = 0.2  # of the refresh, so that nodes do not come at the same time


@dataclass(frozen=True, slots=True)
class Look:
    """A service as it was at a moment.

    Attributes:
        service: None if there is none of that name.
        pods: here, that were known before.
        gone: UIDs of pods that its status names and that are no more; None if it was no check.
    """

    key: ServiceKey
    service: Object | None
    pods: frozenset[PodRef]
    gone: frozenset[str] | None = None


@dataclass(slots=True)
class _Followed:
    """One service; times in CLOCK_MONOTONIC seconds."""

    pods: list[Pod] = field(default_factory=list)
    read: frozenset[PodRef] = frozenset()  # pods that were there when it was read
    declared: Mapping[str, Any] | None = None
    looked_at: float = float("-inf")
    due: float = float("inf")
    checked_at: float = 0.0
    check_due: float = float("inf")


class Services:
    """Of the pods that are here. For the control loop's thread; the reads are done in the adapter's.

    Args:
        wake: for any thread; called when something was read.
        refresh_seconds: between two looks at a service of which nothing is heard.
    """

    def __init__(self, cluster: Cluster, wake: Callable[[], None], refresh_seconds: float) -> None:
        self._cluster = cluster
        self._wake = wake
        self._refresh_seconds = refresh_seconds
        self._followed: dict[ServiceKey, _Followed] = {}
        self._looks: deque[Look] = deque()  # read, and not taken yet

    @property
    def declared(self) -> dict[ServiceKey, Mapping[str, Any] | None]:
        """`spec.gpuSharing`."""
        return {key: one.declared for key, one in self._followed.items() if one.read}

    @property
    def unread(self) -> frozenset[ServiceKey]:
        """Services with a pod that came after they were read."""
        return frozenset(key for key, one in self._followed.items() if not one.read >= {pod.ref for pod in one.pods})

    def refresh(self, pods: Iterable[Pod], now: float) -> list[Look]:
        """Take over what was read, and have read what is due; gives the former."""
        self._follow(pods, now)
        looks = []
        while self._looks:
            looks.append(look := self._looks.popleft())
            if (one := self._followed.get(look.key)) is not None:
                self._take(one, look, now)
        for key, one in self._followed.items():
            if now >= min(one.due, one.check_due):
                self._look(key, one, now)
        return looks

    def _follow(self, pods: Iterable[Pod], now: float) -> None:
        by_service: dict[ServiceKey, list[Pod]] = {}
        for pod in sorted(pods, key=lambda pod: pod.ref):
            if (key := service_key(pod)) is not None and not pod.over:
                by_service.setdefault(key, []).append(pod)
        self._followed = {key: self._followed.get(key) or _Followed(checked_at=now) for key in by_service}
        for key, own in by_service.items():
            one = self._followed[key]
            if one.pods == own:
                continue
            new = {pod.ref for pod in own} - {pod.ref for pod in one.pods}
            one.pods = own
            one.due = now if new else min(one.due, max(now, one.looked_at + AGAIN_SECONDS))
            one.check_due = min(now + SETTLED_SECONDS, one.checked_at + self._refresh_seconds)

    def _look(self, key: ServiceKey, one: _Followed, now: float) -> None:
        here, check = frozenset(pod.ref for pod in one.pods), now >= one.check_due

        def work(objects: Objects) -> None:
            service = objects.service(*key)
            gone = _gone(objects, key, service, self._cluster.node_name) if check else None
            self._looks.append(Look(key, service, here, gone))
            self._wake()

        if not self._cluster.read(f"service {key[0]}/{key[1]}", work, urgent=not one.read >= here):
            return
        one.looked_at = now
        one.due = now + DECLARED_SECONDS if one.declared is not None or not one.read else float("inf")
        if check:
            one.check_due = now + LOST_SECONDS

    def _take(self, one: _Followed, look: Look, now: float) -> None:
        sharing = ((look.service or {}).get("spec") or {}).get("gpuSharing")
        one.declared = sharing if isinstance(sharing, Mapping) else None
        one.read = look.pods
        if one.declared is not None:
            one.due = min(one.due, now + DECLARED_SECONDS)
        if look.gone is not None and one.check_due > now + SETTLED_SECONDS:  # else its pods have changed meanwhile
            one.checked_at = now
            one.check_due = now + self._refresh_seconds * (1 + JITTER * random.random())  # noqa: S311 - spreads reads


def _gone(objects: Objects, key: ServiceKey, service: Object | None, node: str) -> frozenset[str]:
    """Pods of other nodes that are no more, until there is a node whose pods are."""
    gone: set[str] = set()
    for pods in others(service or {}, node):
        found = {uid for uid, name in pods.items() if is_gone(objects.pod(key[0], name), uid)}
        gone |= found
        if len(found) < len(pods):
            break
    return frozenset(gone)
