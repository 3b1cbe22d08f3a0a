"""What is reserved beside the places of claims: by processes that outlive their claim."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from aimd.domain.claim import Assignment
from aimd.domain.ledger import HolderRecord
from aimd.planning.node_state import NodeState
from aimd.planning.rooms import LeftBehind


def left_behind(
    holders: Iterable[HolderRecord], assignments: Iterable[Assignment], node: NodeState
) -> tuple[LeftBehind, ...]:
    """Reservations of processes that go on where their claim is not (any more), one for each replica and place."""
    placed = {(a.claim, a.replica, a.gpu, a.index, a.mode_epoch) for a in assignments}
    found: dict[tuple[Assignment, float | None], LeftBehind] = {}
    for holder in holders:
        gpu, index, epoch = holder.place
        if holder.ended_at is not None or gpu is None or index is None or epoch is None:
            continue
        at_its_claim = holder.released_at is None and (holder.claim, holder.replica, gpu, index, epoch) in placed
        if at_its_claim or node.record(gpu).mode_epoch != epoch:
            continue
        kept = Assignment(holder.claim, holder.replica, gpu, index, holder.memory_units, holder.guarantee, epoch)
        key = (kept, holder.released_at)
        before = found.get(key, LeftBehind(kept))
        living = tuple((process.pid, process.command) for process in holder.living)
        found[key] = replace(before, processes=(*before.processes, *living))
    return tuple(found.values())
