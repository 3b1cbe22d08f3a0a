"""Whether pods, the nodes' ledgers and the statuses of services tell one story. Pure; judges the real daemons.

`never` is wrong at any moment; `disagreements` is what must be gone once everything has settled. Each gives a sentence
for each violation, none where all is well. It knows nothing of aimd's code: the JSON of the API server and of aimctl.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Object = Mapping[str, Any]
SERVICE = "serving.kserve.io/inferenceservice"
ENABLED = "aimd.dev/gpu-sharing"
ANNOTATION = "aimd.dev/partition"
CONDITION = "GPUPartitionAssigned"
GIB = 2**30
INFORMATION = ("partitionId", "computeMode", "memoryMode", "partitionSizeGB", "allocatedMemoryGB", "availableMemoryGB")


@dataclass(frozen=True)
class Ledger:
    """What a node's daemon says: objects of `aimctl get claims|assignments|partitions -o json`."""

    claims: Sequence[Object]
    assignments: Sequence[Object]
    partitions: Sequence[Object]

    def left_on(self, partition: str) -> float | None:
        """Nominal GB that nothing is assigned of, None if there is no such partition."""
        held = sum(one["memory_gb"] for one in self.assignments if one["partition"] == partition)
        sizes = [-(-one["memory_bytes"] // GIB) for one in self.partitions if one["id"] == partition]
        return sizes[0] - held if sizes else None

    def places(self) -> dict[str, list[Object]]:
        """Assignments of each pod, by UID."""
        uids = {(claim["name"], pod["replica"]): pod["uid"] for claim in self.claims for pod in claim["pods"]}
        found: dict[str, list[Object]] = defaultdict(list)
        for one in self.assignments:
            uid = uids.get((one["claim"], one["replica"]))
            if uid is not None:
                found[uid].append(one)
        return found


@dataclass(frozen=True)
class World:
    """Everything at about the same time.

    Attributes:
        pods: of the API server, of all namespaces that count.
        ledgers: by node, of the nodes that are there.
        services: InferenceServices.
        records: status of the NodePartitions by node; nodes without an entry are not judged.
    """

    pods: Sequence[Object]
    ledgers: Mapping[str, Ledger]
    services: Sequence[Object]
    records: Mapping[str, Object] = field(default_factory=dict)


def never(ledgers: Mapping[str, Ledger]) -> list[str]:
    """A pod with two places, a place of nobody, a partition with more on it than it has."""
    return [*_doubled(ledgers), *_of_nobody(ledgers), *_overfull(ledgers)]


def disagreements(world: World) -> list[str]:
    """What is still wrong: a pod without its entry, an entry without its pod, a status that says something else."""
    return [*never(world.ledgers), *_pods(world), *_statuses(world), *_records(world)]


def _doubled(ledgers: Mapping[str, Ledger]) -> Iterator[str]:
    replicas: dict[str, list[str]] = defaultdict(list)
    places: dict[str, list[str]] = defaultdict(list)
    for node, ledger in ledgers.items():
        for claim in ledger.claims:
            for pod in claim["pods"]:
                replicas[pod["uid"]].append(f"{node} {claim['name']}/{pod['replica']}")
        for uid, own in ledger.places().items():
            places[uid] += [f"{node} {one['partition_name']}" for one in own]
    for what, found in (("is a replica", replicas), ("is assigned", places)):
        yield from (f"pod {uid} {what} {len(said)} times: {said}" for uid, said in found.items() if len(said) > 1)


def _of_nobody(ledgers: Mapping[str, Ledger]) -> Iterator[str]:
    for node, ledger in ledgers.items():
        replicas = {(claim["name"], pod["replica"]) for claim in ledger.claims for pod in claim["pods"]}
        made_by_pods = {claim["name"] for claim in ledger.claims if claim["pods"]}
        known = {claim["name"] for claim in ledger.claims}
        for one in ledger.assignments:
            nobodys = one["claim"] in made_by_pods and (one["claim"], one["replica"]) not in replicas
            if nobodys or one["claim"] not in known:
                yield f"{node}: {one['name']} is assigned to {one['partition_name']} and nobody's"


def _overfull(ledgers: Mapping[str, Ledger]) -> Iterator[str]:
    for node, ledger in ledgers.items():
        for partition in sorted({one["partition"] for one in ledger.assignments}):
            left = ledger.left_on(partition)
            if left is not None and left < 0:
                yield f"{node}: {-left:g} GB more are assigned on {partition} than it has"


def _pods(world: World) -> Iterator[str]:
    there = {pod["metadata"]["uid"]: pod for pod in world.pods}
    for node, ledger in world.ledgers.items():
        held = {pod["uid"] for claim in ledger.claims for pod in claim["pods"]}
        for uid in held:
            if uid not in there:
                yield f"{node} holds a replica for pod {uid}, which is gone"
            elif not _asks(there[uid], node):
                yield f"{node} holds a replica for pod {_name(there[uid])}, which asks it for none"
        for uid, pod in there.items():
            if _asks(pod, node) and uid not in held:
                yield f"{node} has nothing for its pod {_name(pod)}"


def _asks(pod: Object, node: str) -> bool:
    annotations = pod["metadata"].get("annotations") or {}
    over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return pod["spec"].get("nodeName") == node and annotations.get(ENABLED) == "enabled" and not over


def _statuses(world: World) -> Iterator[str]:
    places = {uid: (node, own[0]) for node, ledger in world.ledgers.items() for uid, own in ledger.places().items()}
    for service in world.services:
        metadata, status = service["metadata"], service.get("status") or {}
        name = f"{metadata['namespace']}/{metadata['name']}"
        asking = {pod["metadata"]["uid"]: pod for pod in world.pods if _of_service(pod, service, world.ledgers)}
        entries = (status.get("gpuSharing") or {}).get("assignments") or {}
        yield from (f"{name} tells of pod {uid} ({entries[uid]}), which is gone" for uid in entries.keys() - asking)
        yield from (f"{name} does not tell of pod {_name(asking[uid])}" for uid in asking.keys() - entries)
        for uid in asking.keys() & entries:
            yield from _entry(f"{name}, pod {_name(asking[uid])}", entries[uid], places.get(uid), world)
        yield from _summary(name, status, entries)


def _of_service(pod: Object, service: Object, nodes: Iterable[str]) -> bool:
    metadata, own = pod["metadata"], service["metadata"]
    named = (metadata.get("labels") or {}).get(SERVICE) == own["name"]
    return named and metadata["namespace"] == own["namespace"] and any(_asks(pod, node) for node in nodes)


def _entry(what: str, entry: Object, place: tuple[str, Object] | None, world: World) -> Iterator[str]:
    told = tuple(entry.get(key) for key in ("node", "partitionId", "allocatedMemoryGB", "availableMemoryGB"))
    if place is None:
        if told[1] is not None or not entry.get("reason"):
            yield f"{what}: the status says {entry}, the ledger that it waits"
        return
    node, one = place
    left = world.ledgers[node].left_on(one["partition"])
    if told != (held := (node, one["partition_name"], one["memory_gb"], left)):
        yield f"{what}: the status says {told}, the ledger {held}"


def _summary(name: str, status: Object, entries: Object) -> Iterator[str]:
    placed = {uid: entry for uid, entry in entries.items() if "partitionId" in entry}
    info = (status.get("gpuSharing") or {}).get("partitionInfo") or {}
    annotation = (status.get("annotations") or {}).get(ANNOTATION)
    condition = next((one for one in status.get("conditions") or [] if one["type"] == CONDITION), {})
    if not entries and status.get("gpuSharing"):
        yield f"{name} has no pod and yet says {status['gpuSharing']}"
    chosen = placed.get(info.get("podUID"), {})
    if bool(placed) != bool(chosen):
        yield f"{name}: its summary is of pod {info.get('podUID')}, its placed pods are {sorted(placed)}"
    if any(info.get(key) != chosen.get(key) for key in INFORMATION):
        yield f"{name}: its summary says {info}, the entry {chosen}"
    expected = f"{chosen['node']}/{chosen['partitionId']}" if chosen else None
    if annotation != expected:
        yield f"{name}: its annotation says {annotation}, the summary {expected}"
    fine = bool(entries) and placed.keys() == entries.keys()
    if condition.get("status", "False") != str(fine):
        yield f"{name}: its condition is {condition}, {len(placed)} of {len(entries)} pods have a place"


def _records(world: World) -> Iterator[str]:
    """The assignments that the node's record tells of."""
    for node, record in world.records.items():
        told = sorted(
            (one["claim"], f"{gpu['name']}/{partition['index']}", one["memoryGB"])
            for gpu in record.get("gpus") or []
            for partition in gpu.get("partitions") or []
            for one in partition.get("assignments") or []
        )
        ledger = world.ledgers[node].assignments
        held = sorted((one["name"], one["partition_name"], one["memory_gb"]) for one in ledger)
        if told != held:
            yield f"the record of {node} says {told}, the ledger {held}"


def _name(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
