"""The node in its cluster: pods become claims, and services, pods and the cluster's record are told what became of them.

Level-triggered: each turn compares what the cluster and the node are now with what was said last. A turn waits for
nobody: what is to be read or written is done beside it. While the cluster is away everything that was placed goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Protocol

from aimd.daemon.cluster_events import PodEvents
from aimd.daemon.cluster_record import NodeRecord
from aimd.daemon.cluster_rivals import Rivals
from aimd.daemon.cluster_services import Services
from aimd.daemon.cluster_statuses import ServiceStatuses
from aimd.daemon.effective import Effective
from aimd.daemon.published import Published
from aimd.daemon.turning import turning
from aimd.domain.cluster import ClusterStanding
from aimd.domain.node import NodeSnapshot
from aimd.domain.pod import Pod, PodRef
from aimd.planning import effects as fx
from aimd.planning.sharing.answers import NOT_YET, Answer, answers
from aimd.planning.sharing.desired import NodeSpec, node_spec
from aimd.planning.sharing.requests import Asked, ServiceKey, requests_of, service_key, with_devices
from aimd.ports_cluster import Cluster

log = logging.getLogger("aimd.cluster")

TICK_SECONDS = 1.0
ANSWER_SECONDS = 1.0  # a service is told of pods that wait for longer, not of those that will have their place at once


class Devices(Protocol):
    """What gives partitions to pods by the scheduler's word (daemon.devices)."""

    def serves(self, pod: Pod) -> bool:
        """Whether the pod has its partition by a ResourceClaim, or may have."""
        ...

    def wake(self) -> None:
        """Something in the cluster is otherwise."""
        ...


class ClusterService:
    """One per daemon, on the control loop's thread.

    Args:
        cluster: not started yet.
        shown: the node as published last.
        post: hands an event to the control loop.
        about: further fields of the node's record.
        refresh_seconds: how often it is made sure that statuses are as they should be.
        devices: what gives partitions to pods by the scheduler's word, if anything does.

    Attributes:
        failures: turns that have ended by a defect.
    """

    def __init__(
        self,
        cluster: Cluster,
        shown: Published[NodeSnapshot],
        post: Callable[[fx.Event], None],
        effective: Effective,
        about: Mapping[str, str],
        refresh_seconds: float,
        devices: Devices | None = None,
    ) -> None:
        self.cluster = cluster
        self._devices = devices
        self.failures = 0
        self._shown = shown
        self._post = post
        self._effective = effective
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._services = Services(cluster, self._wake, refresh_seconds)
        self._rivals = Rivals(cluster, self._wake)
        self._statuses = ServiceStatuses(cluster, _now)
        self._events = PodEvents(cluster)
        self._record = NodeRecord(cluster, shown, about, refresh_seconds, _now)
        self._asked: Asked | None = None
        self._asked_at = float("-inf")
        self._turned_at = time.monotonic()
        self._mistakes: tuple[str, ...] = ()  # of the record's spec
        self._spec = NodeSpec()  # the last one without

    def standing(self) -> ClusterStanding:
        """How the node takes part now."""
        refused = self._asked.refused if self._asked is not None else ()
        return ClusterStanding(
            self.cluster.node_name,
            self.cluster.statistics(),
            rivals=self._rivals.found,
            refused=self._refused,
            pods_refused={f"{pod.ref.namespace}/{pod.ref.name}": why.message for pod, why in refused},
            idle_seconds=time.monotonic() - self._turned_at,
            failures=self.failures,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Takes part in the cluster until the context ends."""
        self._loop = asyncio.get_running_loop()
        self.cluster.start(self._wake)
        try:
            async with turning(self._run, log, "a turn in the cluster", self._failed):
                yield
        finally:
            await asyncio.to_thread(self.cluster.close)

    def _wake(self) -> None:
        """For any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, before an answer that took its time
                self._loop.call_soon_threadsafe(self._something_changed)

    def declared(self, pod: Pod) -> Mapping[str, Any]:
        """`spec.gpuSharing` of the pod's InferenceService, as far as it is known."""
        key = service_key(pod)
        return (self._services.declared.get(key) or {}) if key is not None else {}

    def _something_changed(self) -> None:
        self._changed.set()
        if self._devices is not None:
            self._devices.wake()

    def _failed(self) -> None:
        self.failures += 1

    async def _run(self) -> None:
        generation = -1
        while True:
            await self._something(generation)
            snapshot = self._shown.latest()
            generation = snapshot.generation
            if self.cluster.synced and snapshot.ready:
                self._turn(snapshot, time.monotonic())
            self._turned_at = time.monotonic()

    async def _something(self, generation: int) -> None:
        """Wait until pods, spec, node or what was read are otherwise, for a second at most."""
        waits = (self._changed.wait(), self._shown.newer(generation, TICK_SECONDS))
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._changed.clear()

    def _turn(self, snapshot: NodeSnapshot, now: float) -> None:
        """`now` in CLOCK_MONOTONIC seconds."""
        self._rivals.refresh(now)
        rivals = self._rivals.found
        if rivals is None:
            return  # nothing is begun that might be another manager's
        self._take_spec(rivals)
        pods = self.cluster.pods()
        looks = self._services.refresh(pods, now)
        asked = self._ask(pods, snapshot, now)
        found = answers(snapshot, with_devices(asked, pods, snapshot.claims))
        coming = _coming(pods, found) if now - self._asked_at < ANSWER_SECONDS else frozenset()
        self._statuses.tell(pods, found, self._services.unread | coming, looks, snapshot, now)
        self._events.tell(pods, found, asked, snapshot)
        self._record.tell(snapshot, rivals, self._refused, now)

    def _take_spec(self, rivals: tuple[str, ...]) -> None:
        """Of a spec with mistakes nothing counts but what counted before; other managers do in any case."""
        item = self.cluster.node_partitions() or {}
        spec = node_spec(item.get("spec"))
        self._mistakes = spec.mistakes
        self._spec = self._spec if spec.mistakes else spec
        event = self._effective.in_cluster(self._spec, rivals)
        if event is not None:
            self._post(event)

    @property
    def _refused(self) -> str | None:
        """What of the spec is not carried out now."""
        problems = self._shown.latest().complaints if self._spec != NodeSpec() else ()
        return "; ".join(self._mistakes or problems) or None

    def _ask(self, pods: tuple[Pod, ...], snapshot: NodeSnapshot, now: float) -> Asked:
        services = self._services
        by_device = self._devices.serves if self._devices is not None else _by_no_device
        asked = requests_of(pods, services.declared, _finding(snapshot), snapshot.claims, services.unread, by_device)
        if self._asked is None or asked.requests != self._asked.requests:
            self._post(fx.PodsSeen(asked.requests))
            self._asked_at = now
        self._asked = asked
        return asked


def _coming(pods: Iterable[Pod], found: Mapping[PodRef, Answer]) -> frozenset[ServiceKey]:
    """Services of pods that the node has not come to yet."""
    waiting = (pod for pod in pods if pod.ref in found and found[pod.ref].message == NOT_YET)
    return frozenset(key for pod in waiting if (key := service_key(pod)) is not None)


def _by_no_device(_pod: Pod) -> bool:
    return False


def _finding(snapshot: NodeSnapshot) -> Callable[[str], str]:
    return lambda name: snapshot.find(name).gpu.pci_address


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
