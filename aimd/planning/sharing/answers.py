"""What is answered to a pod that asked for a partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aimd.domain.pod import PodRef


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
