"""How much of each partition is reserved: by claims, and for processes that go on where their claim is not (any more)."""

from __future__ import annotations

from collections import Counter

from aimd.domain.left_behind import left_behind
from aimd.domain.node import NodeSnapshot
from aimd.domain.partition import PartitionKey


def reserved_on(snapshot: NodeSnapshot) -> Counter[PartitionKey]:
    """Units of 1/1024 GB by partition, each in the mode that it was reserved in."""
    placed = [one for claim in snapshot.claims for one in claim.assignments]
    epochs = {status.gpu.pci_address: status.mode_epoch for status in snapshot.gpus}
    units: Counter[PartitionKey] = Counter()
    for one in (*placed, *(left.kept for left in left_behind(snapshot.claim_holders, placed, epochs))):
        units[one.key] += one.memory_units
    return units
