"""What is reserved or used beside the places of claims: by processes that outlive their claim, and by those of none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from aimd.domain.claim import Assignment
from aimd.domain.gpu import Observed
from aimd.domain.ledger import HolderRecord
from aimd.planning.node_state import NodeState
from aimd.planning.rooms import LeftBehind

Processes = Mapping[tuple[int, int], HolderRecord]


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


def unattributed(holders: Processes, observed: Observed) -> dict[tuple[str, int], int]:
    """Bytes on each partition that processes of no claim use: nobody has reserved them, and they are not free."""
    own = {pid for pid, _ in holders} | {process.pid for holder in holders.values() for process in holder.survivors}
    used: dict[tuple[str, int], int] = {}
    for client in observed.holders:
        strange = client.pid not in own and client.owner not in holders
        for gpu, index, size in client.vram if strange else ():
            used[gpu, index] = used.get((gpu, index), 0) + size
    return used
