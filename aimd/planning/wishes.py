"""Wishes for modes: what becomes one, and when an idle GPU is brought to its own."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace

from aimd.domain.gpu import BusyRule, Observed
from aimd.domain.ledger import GpuRecord
from aimd.domain.modes import PartitionMode
from aimd.domain.plan import Desired, Plan, Reason, Refusal, StepKind
from aimd.domain.switch import ModeChange, SwitchState
from aimd.planning.planner import plan
from aimd.planning.view import satisfied


def unused(name: str, changes: Container[str]) -> str:
    """The name, with a number behind it if a change has it already: two can begin in one instant."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(each for each in names if each not in changes)


def kept_wishes(change: ModeChange, records: Mapping[str, GpuRecord]) -> tuple[GpuRecord, ...]:
    """The records that the change alters, with their new wishes; none while it is under way.

    What a client asked for and got is the GPU's wish from now on. A memory mode that has come into effect replaces
    older wishes of the whole hive: else they would ask for the old one at the next driver load, and for ever.
    """
    if change.current is not None:
        return ()
    failed = {gpu for s in change.switches if s.state is not SwitchState.COMMITTED for gpu in s.step.gpus}
    kept: dict[str, GpuRecord] = {}
    for address, wish in change.wishes if change.origin == "client" else ():
        if address not in failed:
            record = records.get(address, GpuRecord(address))
            before = record.wish or PartitionMode()
            merged = PartitionMode(wish.compute or before.compute, wish.memory or before.memory)
            kept[address] = replace(record, wish=merged)
    for switch in change.switches:
        if switch.step.kind is not StepKind.MEMORY or switch.state is not SwitchState.COMMITTED:
            continue
        for address in switch.step.gpus:
            record = kept.get(address) or records.get(address, GpuRecord(address))
            if record.wish is not None and record.wish.memory is not None:
                kept[address] = replace(record, wish=replace(record.wish, memory=switch.step.after.memory))
    return tuple(kept.values())


def left_meanwhile(change: ModeChange, records: Iterable[GpuRecord], observed: Observed) -> frozenset[str]:
    """GPUs that had their wish when the change was planned, so that it has no step for them, and have it no more."""
    stepped = {gpu for switch in change.switches for gpu in switch.step.gpus}
    return frozenset(
        record.address
        for record in records
        if record.address not in stepped
        and record.wish is not None
        and ((gpu := observed.gpu(record.address)) is None or not satisfied(gpu, record.wish))
    )


def _requested(refusal: Refusal, wishes: Mapping[str, PartitionMode], view: Observed) -> bool:
    """Whether the GPU waits for the driver load that brings what it wishes: it is pursued then, nobody refuses it."""
    if refusal.gpu is None or refusal.reason is not Reason.MEMORY_MODE_PENDING:
        return False
    return view.pending_memory.get(refusal.gpu) is wishes[refusal.gpu].memory


class OpenWishes:
    """The GPUs that are still to be brought to their wish: after a start, a driver load, or a claim that left.

    A wish that was fulfilled once is closed: what others do to the GPU later is shown as drift, not fought. So is one that
    is refused, which is told once for each cause, however often it is opened again.
    """

    def __init__(self, retry_seconds: float) -> None:
        self.retry_seconds = retry_seconds
        self._open: set[str] = set()
        self._retry_at: dict[str, float] = {}
        self._refused: dict[str, tuple[PartitionMode, Reason]] = {}  # what was told, by GPU

    def open(self, addresses: Iterable[str]) -> None:
        self._open |= set(addresses)

    def open_refused(self) -> None:
        """Look at the refused ones again: what refused them may be allowed now."""
        self.open(self._refused)

    def failed(self, addresses: Iterable[str], now: float) -> None:
        """A switch of these GPUs has failed: they rest for `retry_seconds`, so that it is not tried in a loop."""
        self._retry_at.update(dict.fromkeys(addresses, now + self.retry_seconds))

    def next(
        self, records: Mapping[str, GpuRecord], view: Observed, taken: frozenset[str], now: float, *, allow_memory: bool
    ) -> tuple[dict[str, PartitionMode], Plan, list[Refusal]]:
        """The wishes that can be carried out now with their plan, and refusals that were not told yet.

        `taken` are GPUs that somebody is assigned to. GPUs that a process holds, and those whose switch has failed a
        moment ago, are passed over, too, and so are those without partitions: they may still be coming.
        """
        wishes = {a: w for a in self._open if (r := records.get(a)) is not None and (w := r.wish) is not None}
        self._open = {a for a, wish in wishes.items() if (gpu := view.gpu(a)) is None or not satisfied(gpu, wish)}
        refused: list[Refusal] = []
        resting = {address for address, until in self._retry_at.items() if now < until}
        node_wide = view.busy_rule is BusyRule.NODE_WIDE
        held = {a for holder in view.holders for a in (self._open if node_wide else holder.gpus)}
        while True:
            idle = sorted(self._open - held - taken - resting)
            ready = {a: wishes[a] for a in idle if (gpu := view.gpu(a)) is not None and gpu.partitions}
            planned = plan(Desired(ready, allow_memory), view)
            if not planned.refusals:
                break
            refused += [each for each in planned.refusals if not _requested(each, ready, view)]
            self._open -= {refusal.gpu for refusal in planned.refusals if refusal.gpu is not None}
        return ready, planned, self._news(refused, wishes)

    def _news(self, refused: list[Refusal], wishes: Mapping[str, PartitionMode]) -> list[Refusal]:
        """Those of another cause than was told last; a wish that can be pursued is refused anew if it ever is again."""
        causes = {each.gpu: (wishes[each.gpu], each.reason) for each in refused if each.gpu is not None}
        news = [each for each in refused if each.gpu is None or self._refused.get(each.gpu) != causes[each.gpu]]
        self._refused = {gpu: told for gpu, told in self._refused.items() if gpu not in self._open} | causes
        return news
