"""What is kept for processes that go on where their claim is not (any more): released, or placed elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from aimd.domain.claim import Assignment
from aimd.domain.ledger import HolderRecord


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What is reserved for processes (pid and command line) that go on at a place where their claim is not any more.

    `released_at` (seconds since the epoch) is None if the claim is elsewhere now.
    """

    kept: Assignment
    processes: tuple[tuple[int, str | None], ...] = ()
    released_at: float | None = None


def left_behind(
    holders: Iterable[HolderRecord], assignments: Iterable[Assignment], epochs: Mapping[str, int]
) -> tuple[LeftBehind, ...]:
    """One for each replica and place; `epochs` are the mode epochs of GPUs: in another one there is no such place."""
    placed = {(a.claim, a.replica, a.gpu, a.index, a.mode_epoch) for a in assignments}
    found: dict[tuple[Assignment, float | None], LeftBehind] = {}
    for holder in holders:
        gpu, index, epoch = holder.place
        if holder.ended_at is not None or gpu is None or index is None or epoch is None:
            continue
        at_its_claim = holder.released_at is None and (holder.claim, holder.replica, gpu, index, epoch) in placed
        if at_its_claim or epochs.get(gpu, 0) != epoch:
            continue
        kept = Assignment(holder.claim, holder.replica, gpu, index, holder.memory_units, holder.guarantee, epoch)
        key = (kept, holder.released_at)
        before = found.get(key, LeftBehind(kept, released_at=holder.released_at))
        living = tuple((process.pid, process.command) for process in holder.living)
        found[key] = replace(before, processes=(*before.processes, *living))
    return tuple(found.values())
