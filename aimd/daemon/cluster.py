"""The node in its cluster: pods become claims, and services, pods and the cluster's record are told what became of them.

Level-triggered: each turn compares what the cluster and the node are now with what was said last. It asks nothing of the
API server on the way to a grant, and while the cluster is away everything that was placed goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timezone

from aimd.daemon.declarations import Declarations
from aimd.daemon.effective import Effective
from aimd.daemon.published import Published
from aimd.domain.cluster import ClusterStanding, ObjectRef
from aimd.domain.node import NodeSnapshot
from aimd.domain.pod import Pod, PodRef
from aimd.errors import AimdError
from aimd.planning import effects as fx
from aimd.planning.sharing.answers import Answer, answers
from aimd.planning.sharing.desired import node_spec
from aimd.planning.sharing.node_status import flips, node_status, same
from aimd.planning.sharing.requests import Asked, ServiceKey, requests_of, service_key
from aimd.planning.sharing.rivals import rivals
from aimd.planning.sharing.service_status import service_patch
from aimd.ports_cluster import Cluster, Object, Objects

log = logging.getLogger("aimd.cluster")

TICK_SECONDS = 1.0
RIVALS_SECONDS = 60.0
JITTER = 0.2  # of the refresh, so that nodes do not write at the same time

# Takes a changed configuration over; gives what of it cannot be carried out, a sentence each.
Reconfigure = Callable[[fx.Reconfigured], list[str]]


class ClusterService:
    """One per daemon, on the control loop's thread.

    Args:
        cluster: not started yet.
        shown: the node as published last.
        post: hands an event to the control loop.
        about: further fields of the node's record.
        refresh_seconds: how often a status is written that has not changed.
    """

    def __init__(
        self,
        cluster: Cluster,
        shown: Published[NodeSnapshot],
        post: Callable[[fx.Event], None],
        effective: Effective,
        reconfigure: Reconfigure,
        about: Mapping[str, str],
        refresh_seconds: float,
    ) -> None:
        self.cluster = cluster
        self._shown = shown
        self._post = post
        self._effective = effective
        self._reconfigure = reconfigure
        self._about = about
        self._refresh_seconds = refresh_seconds
        self._declarations = Declarations(cluster.objects)
        self._changed = asyncio.Event()
        self._asked: Asked | None = None
        self._turned_at = time.monotonic()
        self._told: dict[ServiceKey, tuple[tuple[Answer, ...], list[Pod], float]] = {}
        self._told_pods: dict[PodRef, Answer] = {}
        self._node_told: tuple[tuple[object, ...], float] | None = None
        self._rivals: tuple[str, ...] = ()
        self._rivals_due = 0.0
        self._mistakes: tuple[str, ...] = ()  # of the record's spec
        self._problems: tuple[str, ...] = ()  # of what counts: it cannot be carried out as things are
        self._left: set[ServiceKey] | None = None  # of claims that were there at the start, not told yet

    def standing(self) -> ClusterStanding:
        """How the node takes part now."""
        refused = self._asked.refused if self._asked is not None else ()
        return ClusterStanding(
            self.cluster.node_name,
            self.cluster.statistics(),
            rivals=self._rivals if self._rivals_due else None,
            refused=self._refused,
            pods_refused={f"{pod.ref.namespace}/{pod.ref.name}": why.message for pod, why in refused},
            idle_seconds=time.monotonic() - self._turned_at,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Takes part in the cluster until the context ends."""
        loop = asyncio.get_running_loop()

        def on_change() -> None:
            loop.call_soon_threadsafe(self._changed.set)

        self.cluster.start(on_change)
        task = asyncio.create_task(self._run())
        task.add_done_callback(_complain)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.to_thread(self.cluster.close)

    async def _run(self) -> None:
        generation = -1
        while True:
            await self._something(generation)
            snapshot = self._shown.latest()
            generation = snapshot.generation
            if self.cluster.synced and snapshot.ready:
                await self._turn(snapshot)
            self._turned_at = time.monotonic()

    async def _something(self, generation: int) -> None:
        """Wait until pods, spec or node are otherwise, for a second at most."""
        waits = (self._changed.wait(), self._shown.newer(generation, TICK_SECONDS))
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._changed.clear()

    async def _turn(self, snapshot: NodeSnapshot) -> None:
        now = time.monotonic()
        await self._look_for_rivals(now)
        self._take_spec()
        pods = self.cluster.pods()
        await self._declarations.refresh(pods, now)
        self._ask(pods, snapshot)
        self._tell_services(pods, snapshot, now)
        self._tell_pods(snapshot)
        self._tell_node(snapshot, now)

    # -- from the cluster --------------------------------------------------------------------------------------------

    async def _look_for_rivals(self, now: float) -> None:
        if now < self._rivals_due:
            return
        self._rivals_due = now + RIVALS_SECONDS
        objects = self.cluster.objects
        try:
            node = await asyncio.to_thread(objects.node)
            slices = await asyncio.to_thread(objects.resource_slices)
        except AimdError as error:
            log.warning("whether another manager of partitions is on the node cannot be read: %s", error)
            return
        self._rivals = rivals(node, slices)

    def _take_spec(self) -> None:
        item = self.cluster.node_partitions() or {}
        spec = node_spec(item.get("spec"))
        self._mistakes = spec.mistakes
        event = self._effective.in_cluster(spec, self._rivals) if not spec.mistakes else None
        if event is not None:
            self._problems = tuple(self._reconfigure(event))

    @property
    def _refused(self) -> str | None:
        return "; ".join(self._mistakes or self._problems) or None

    def _ask(self, pods: tuple[Pod, ...], snapshot: NodeSnapshot) -> None:
        unknown = self._declarations.unknown(pods)
        asked = requests_of(pods, self._declarations.known, _finding(snapshot), snapshot.claims, unknown)
        if self._asked is None or asked.requests != self._asked.requests:
            self._post(fx.PodsSeen(asked.requests))
        self._asked = asked

    # -- to the cluster ----------------------------------------------------------------------------------------------

    def _tell_services(self, pods: tuple[Pod, ...], snapshot: NodeSnapshot, now: float) -> None:
        """Services whose pods or answers have changed, and those that had their turn long ago."""
        found = self._answers(snapshot)
        by_service: dict[ServiceKey, list[Answer]] = {}
        own: dict[ServiceKey, list[Pod]] = {}
        for pod in sorted(pods, key=lambda pod: pod.ref):
            if (key := service_key(pod)) is None:
                continue
            own.setdefault(key, []).append(pod)
            if pod.ref in found:
                by_service.setdefault(key, []).append(found[pod.ref])
        if self._left is None:
            self._left = _services_of(snapshot)
        for key in {*by_service, *self._told, *self._left}:
            said, here = tuple(by_service.get(key, ())), own.get(key, [])
            before = self._told.get(key)
            if before is not None and before[:2] == (said, here) and now < before[2]:
                continue
            if self.cluster.write(f"service {key[0]}/{key[1]}", self._service_work(key, said)):
                self._left.discard(key)
                self._told[key] = (said, here, self._next(now))
                if not said and not here:
                    del self._told[key]

    def _answers(self, snapshot: NodeSnapshot) -> dict[PodRef, Answer]:
        return answers(snapshot, self._asked) if self._asked is not None else {}

    def _service_work(self, key: ServiceKey, said: tuple[Answer, ...]) -> Callable[[Objects], None]:
        node = self.cluster.node_name

        def work(objects: Objects) -> None:
            service = objects.service(*key)
            patch = service_patch(service, node, said, _now()) if service is not None else None
            if patch is not None:
                objects.patch_service_status(*key, patch)

        return work

    def _tell_pods(self, snapshot: NodeSnapshot) -> None:
        """An Event for each pod whose answer is another one."""
        found = self._answers(snapshot)
        refused = {pod.ref: mistakes.message for pod, mistakes in (self._asked.refused if self._asked else ())}
        for ref, answer in found.items():
            before = self._told_pods.get(ref)
            if before is not None and (before.place, before.reason) == (answer.place, answer.reason):
                continue
            if answer.place is not None:
                place = answer.place
                words = f"{place.partition} ({place.compute_mode}/{place.memory_mode}), {place.allocated_gb:g} GB"
                self.cluster.tell(ref, "PartitionAssigned", words)
            elif answer.reason != "Pending":
                self.cluster.tell(ref, answer.reason or "Pending", answer.message or "", warning=True)
            if ref in refused and answer.place is not None:
                self.cluster.tell(ref, "InvalidGpuSharing", refused[ref], warning=True)
        self._told_pods = found

    def _tell_node(self, snapshot: NodeSnapshot, now: float) -> None:
        there = (self.cluster.node_partitions() or {}).get("metadata") or {}
        which = (there.get("uid"), there.get("generation"))  # one that was deleted is made again at once
        said = (snapshot.generation, self._refused, self._rivals, which)
        before, due = self._node_told or ((), now)
        if before == said and now < due:
            return
        if self.cluster.write("node", self._node_work(refresh=now >= due)):
            self._node_told = (said, self._next(now) if now >= due else due)

    def _next(self, now: float) -> float:
        return now + self._refresh_seconds * (1 + JITTER * random.random())  # noqa: S311 - spreads writes

    def _node_work(self, *, refresh: bool) -> Callable[[Objects], None]:
        def work(objects: Objects) -> None:
            item = objects.node_partitions()
            if item is None:
                node = objects.node()
                if node is None:
                    return  # the record goes with its Node
                item = objects.create_node_partitions(_record(self.cluster.node_name, node))
            current = item.get("status") or {}
            status = node_status(
                self._shown.latest(),
                current,
                generation=item["metadata"].get("generation"),
                about=self._about,
                rivals=self._rivals,
                refused=self._refused,
                now=_now(),
            )
            if refresh or not same(status, current):
                gone = dict.fromkeys(key for key in current if key not in status)
                objects.patch_node_partitions_status({"status": {**gone, **status}})
                about = ObjectRef(
                    "aimd.dev/v1alpha1", "NodePartitions", item["metadata"]["name"], item["metadata"]["uid"]
                )
                for reason, message, trouble in flips(current, status):
                    self.cluster.tell(about, reason, message, warning=trouble)

        return work


def _record(name: str, node: Object) -> Object:
    """A new NodePartitions, which goes with its Node."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
    metadata = {"name": name, "ownerReferences": [owner]}
    return {"apiVersion": "aimd.dev/v1alpha1", "kind": "NodePartitions", "metadata": metadata}


def _services_of(snapshot: NodeSnapshot) -> set[ServiceKey]:
    """Services of claims that are still there when the daemon begins, whose pods may be gone."""
    models = (claim.name.split("/") for claim in snapshot.claims if claim.pods)
    return {(parts[0], parts[1]) for parts in models if len(parts) == 2}


def _complain(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the part of the daemon that follows the cluster has ended: %s", error, exc_info=error)


def _finding(snapshot: NodeSnapshot) -> Callable[[str], str]:
    return lambda name: snapshot.find(name).gpu.pci_address


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
