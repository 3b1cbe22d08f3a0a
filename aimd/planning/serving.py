"""From the node as it is to what the dispatch service serves. Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace

from aimd.domain.claim import Assignment, Claim
from aimd.domain.node import NodeSnapshot
from aimd.domain.partition import PartitionKey
from aimd.domain.serving import ServedModel, ServedPartition


def between_modes(snapshot: NodeSnapshot) -> frozenset[str]:
    """GPUs whose switch has been written, or may have been."""
    return frozenset(gpu for change in snapshot.changes for gpu in change.between)


def served_partitions(snapshot: NodeSnapshot, closed: AbstractSet[str] = frozenset()) -> tuple[ServedPartition, ...]:
    """Every partition that is there, in order, with the models assigned to it; `closed` are GPUs being drained."""
    models: dict[PartitionKey, list[ServedModel]] = {}
    denied = {(found.claim, found.gpu, found.index, found.mode_epoch) for found in snapshot.findings if found.denied}
    for claim in snapshot.claims:
        for key, there in claim.places.items():
            model = _model(claim, there)
            is_denied = (claim.name, key.gpu, key.index, key.mode_epoch) in denied
            models.setdefault(key, []).append(replace(model, denied=True) if is_denied else model)
    shut = closed | between_modes(snapshot)
    keys = (
        PartitionKey(status.gpu.pci_address, partition.index, status.mode_epoch)
        for status in snapshot.gpus
        for partition in status.gpu.partitions
    )
    return tuple(ServedPartition(key, tuple(models.get(key, ())), key.gpu in shut) for key in keys)


def _model(claim: Claim, there: list[Assignment]) -> ServedModel:
    """Guarantees are those that the partition has room for: what a pod asks for anew may have to wait for it."""
    spec = claim.spec
    return ServedModel(
        name=claim.name,
        qos=spec.qos,
        guarantee=sum(assignment.guarantee for assignment in there),
        limit=None if spec.limit is None else spec.limit * len(there),
        weight=spec.weight,
        latency_seconds=spec.slo.latency_seconds,
    )
