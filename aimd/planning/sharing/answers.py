"""What is answered to a pod that asked for a partition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aimd.domain.claim import Assignment, Claim, PodRequest
from aimd.domain.memory import UNITS_PER_GB, nominal_gb
from aimd.domain.node import NodeSnapshot
from aimd.domain.partition import PartitionKey
from aimd.domain.pod import PodRef
from aimd.domain.reserved import reserved_on
from aimd.planning.sharing.requests import Asked

INVALID = "InvalidGpuSharing"
NOT_YET = "the node has not come to it yet"


@dataclass(frozen=True, slots=True)
class Place:
    """A partition as the cluster is told of it; sizes in GB as GPUs are sold.

    `available_gb` is what is not reserved on the partition, None if its size is unknown. Measured use moves all the time
    and is the metrics'.
    """

    partition: str
    compute_mode: str | None
    memory_mode: str | None
    size_gb: int | None
    allocated_gb: float
    available_gb: float | None

    def told(self) -> dict[str, Any]:
        """As `partitionInfo` has it; unknown is absent."""
        said = {
            "partitionId": self.partition,
            "computeMode": self.compute_mode,
            "memoryMode": self.memory_mode,
            "partitionSizeGB": self.size_gb,
            "allocatedMemoryGB": self.allocated_gb,
            "availableMemoryGB": self.available_gb,
        }
        return {key: value for key, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a pod's request: its place, or why it has none."""

    pod: PodRef
    place: Place | None = None
    reason: str | None = None
    message: str | None = None

    def told(self, node: str) -> dict[str, Any]:
        """As an entry of `status.gpuSharing.assignments`."""
        whose = {"pod": self.pod.name, "node": node}
        if self.place is not None:
            return {**whose, **self.place.told()}
        return {**whose, "reason": self.reason or "Pending", "message": self.message or "it waits for its partition"}


def answers(snapshot: NodeSnapshot, asked: Asked) -> dict[PodRef, Answer]:
    """What is answered to every pod that asks. One that has a place keeps it, whatever mistake it says now."""
    claims = {claim.name: claim for claim in snapshot.claims}
    reserved = reserved_on(snapshot)
    refused = {pod.ref: Answer(pod.ref, None, INVALID, refused.message) for pod, refused in asked.refused}
    return refused | {one.pod: _answer(one, claims.get(one.model), snapshot, reserved) for one in asked.requests}


def _answer(
    request: PodRequest, claim: Claim | None, snapshot: NodeSnapshot, reserved: Mapping[PartitionKey, int]
) -> Answer:
    pod = request.pod
    if claim is None:
        return Answer(pod, None, "Pending", NOT_YET)
    number = claim.replica_of(pod.uid)
    if number is None:
        if not claim.pods:
            return Answer(pod, None, "NameTaken", f"the node has a claim {claim.name} that no pod has made")
        return Answer(pod, None, "Pending", NOT_YET)
    assignment = next((one for one in claim.assignments if one.replica == number), None)
    if assignment is None or not snapshot.in_place(claim, assignment):
        reason = claim.reason.value if claim.reason is not None else claim.state.value
        return Answer(pod, None, "".join(word.title() for word in reason.split("_")), claim.waits_for)
    place = _place(assignment, snapshot, reserved)
    if place is None:
        return Answer(pod, None, "Pending", "its GPU is between two modes")
    return Answer(pod, place)


def _place(assignment: Assignment, snapshot: NodeSnapshot, reserved: Mapping[PartitionKey, int]) -> Place | None:
    status = next((one for one in snapshot.gpus if one.gpu.pci_address == assignment.gpu), None)
    if status is None or status.mode_epoch != assignment.mode_epoch:
        return None
    partition = next((one for one in status.gpu.partitions if one.index == assignment.index), None)
    if partition is None:
        return None
    mode = status.gpu.mode
    size = nominal_gb(partition.memory_bytes) if partition.memory_bytes is not None else None
    return Place(
        partition=f"{status.name}/{assignment.index}",
        compute_mode=mode.compute.value if mode.compute is not None else None,
        memory_mode=mode.memory.value if mode.memory is not None else None,
        size_gb=size,
        allocated_gb=_gb(assignment.memory_units),
        available_gb=_gb(size * UNITS_PER_GB - reserved[assignment.key]) if size is not None else None,
    )


def _gb(units: int) -> float:
    """Whole numbers as such: 8, not 8.0."""
    gb = units / UNITS_PER_GB
    return int(gb) if gb == int(gb) else gb
