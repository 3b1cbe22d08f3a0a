"""From what is kept for processes without their claim to messages."""

from __future__ import annotations

from aimd.domain.left_behind import LeftBehind, left_behind
from aimd.domain.memory import UNITS_PER_GB
from aimd.domain.node import NodeSnapshot
from aimd.protocol.messages import HolderMessage, LeftBehindMessage


def left_behind_messages(snapshot: NodeSnapshot) -> dict[str, list[LeftBehindMessage]]:
    """By PCI address of the GPU, those of one GPU by partition."""
    epochs = {status.gpu.pci_address: status.mode_epoch for status in snapshot.gpus}
    names = {status.gpu.pci_address: status.name for status in snapshot.gpus}
    assignments = [assignment for claim in snapshot.claims for assignment in claim.assignments]
    found: dict[str, list[LeftBehindMessage]] = {}
    for left in sorted(left_behind(snapshot.claim_holders, assignments, epochs), key=lambda left: left.kept.place):
        gpu = left.kept.gpu
        found.setdefault(gpu, []).append(_message(left, f"{names.get(gpu, '?')}/{left.kept.index}"))
    return found


def _message(left: LeftBehind, partition_name: str) -> LeftBehindMessage:
    kept = left.kept
    return LeftBehindMessage(
        name=kept.name,
        claim=kept.claim,
        replica=kept.replica,
        partition=f"{kept.gpu}/{kept.index}",
        partition_name=partition_name,
        memory_gb=kept.memory_units / UNITS_PER_GB,
        guarantee=kept.guarantee,
        released_at=left.released_at,
        processes=[HolderMessage(pid=pid, command=command) for pid, command in left.processes],
    )
