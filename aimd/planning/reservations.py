"""What is reserved beside the places of claims: by processes that outlive their claim."""

from __future__ import annotations

from collections.abc import Iterable

from aimd.domain import left_behind as domain
from aimd.domain.claim import Assignment
from aimd.domain.ledger import HolderRecord
from aimd.domain.left_behind import LeftBehind
from aimd.planning.node_state import NodeState


def left_behind(
    holders: Iterable[HolderRecord], assignments: Iterable[Assignment], node: NodeState
) -> tuple[LeftBehind, ...]:
    """Reservations of processes that go on where their claim is not (any more), one for each replica and place."""
    epochs = {address: record.mode_epoch for address, record in node.records.items()}
    return domain.left_behind(holders, assignments, epochs)
