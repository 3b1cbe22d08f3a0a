"""Counts what the control path does, around the parts that do it: nothing inside them knows of metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aimd.daemon.loop import ControlLoop, Reload
from aimd.domain.claim import Claim, ClaimSpec
from aimd.domain.event import NodeEvent
from aimd.domain.ledger import LedgerState, LedgerWrite
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.plan import Plan
from aimd.domain.switch import ModeChange
from aimd.errors import AimdError, ConfigError, ConflictError, LedgerError, NotFoundError, RefusedError
from aimd.planning import effects as fx
from aimd.planning.policy import Policy
from aimd.planning.reconcile import Reconciler
from aimd.ports import Health, Ledger, Meters, Reloaded

LAG_SECONDS = 0.5
FOLLOW_SECONDS = 60.0
_OUTCOMES = (
    (NotFoundError, "not_found"),
    (RefusedError, "refused"),
    (ConflictError, "conflict"),
    (AimdError, "failed"),
)


def outcome_of(error: AimdError) -> str:
    """The label of what was not done."""
    return next(word for kind, word in _OUTCOMES if isinstance(error, kind))


class CountedControl:
    """ports.ControlPlane over another, of which the operations are counted."""

    def __init__(self, control: ControlLoop, meters: Meters) -> None:
        self._control = control
        self._meters = meters
        self.members = control.members
        self.hold = control.hold
        self.events = control.events
        self.changed = control.changed

    @property
    def snapshot(self) -> NodeSnapshot:
        return self._control.snapshot

    @property
    def health(self) -> Health:
        return self._control.health

    async def plan(self, wishes: Sequence[tuple[str, PartitionMode]], *, drain: bool = False) -> Plan:
        with self._refusals("plan"):
            plan = await self._control.plan(wishes, drain=drain)
        self._meters.operation("plan", "refused" if plan.refusals else "ok")
        return plan

    async def submit(
        self,
        name: str,
        wishes: Sequence[tuple[str, PartitionMode]],
        *,
        wait_seconds: float | None,
        uid: int,
        drain: bool = False,
    ) -> ModeChange:
        with self._refusals("switch"):  # one that is accepted counts by its steps' ends: ChangeWatch
            return await self._control.submit(name, wishes, wait_seconds=wait_seconds, uid=uid, drain=drain)

    async def claim(self, name: str, spec: ClaimSpec, *, uid: int) -> Claim:
        with self._counted("assign"):
            return await self._control.claim(name, spec, uid=uid)

    async def release(self, name: str) -> Claim:
        with self._counted("release"):
            return await self._control.release(name)

    async def set_draining(self, gpu: str, *, draining: bool) -> None:
        with self._counted("drain"):
            await self._control.set_draining(gpu, draining=draining)

    async def reload(self) -> Reloaded:
        return await self._control.reload()

    @contextmanager
    def _counted(self, operation: str) -> Iterator[None]:
        with self._refusals(operation):
            yield
        self._meters.operation(operation, "ok")

    @contextmanager
    def _refusals(self, operation: str) -> Iterator[None]:
        try:
            yield
        except AimdError as error:
            self._meters.operation(operation, outcome_of(error))
            raise


class CountedLedger:
    """ports.Ledger over another, of which commits are timed."""

    def __init__(self, ledger: Ledger, meters: Meters) -> None:
        self._ledger = ledger
        self._meters = meters

    def load(self) -> LedgerState:
        state = self._ledger.load()
        for note in state.notes:
            self._meters.recovered(note.kind)
        return state

    def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[NodeEvent]:
        return self._ledger.events(after=after, limit=limit)

    def close(self) -> None:
        self._ledger.close()

    def commit(self, write: LedgerWrite) -> None:
        began = time.perf_counter()
        try:
            self._ledger.commit(write)
        except LedgerError:
            self._meters.committed(time.perf_counter() - began, ok=False)
            raise
        self._meters.committed(time.perf_counter() - began, ok=True)


class TimedReconciler(Reconciler):
    """A Reconciler of which each decision is timed."""

    def __init__(self, policy: Policy, boot_id: str, first_generation: int, meters: Meters) -> None:
        super().__init__(policy, boot_id, first_generation)
        self._meters = meters

    def handle(self, event: fx.Event, now: fx.Instant) -> tuple[fx.Effect, ...]:
        began = time.perf_counter()
        try:
            return super().handle(event, now)
        finally:
            self._meters.decided(time.perf_counter() - began)


def counted_reload(reload: Reload, meters: Meters) -> Reload:
    """The same reload, counted."""

    def counted() -> tuple[fx.Reconfigured, list[str], list[str]]:
        try:
            found = reload()
        except ConfigError:
            meters.reloaded(ok=False)
            raise
        meters.reloaded(ok=True)
        return found

    return counted


class ChangeWatch:
    """Counts steps of mode changes as they end. Those that had ended before the first snapshot were counted before."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._ended: set[tuple[str, float, int]] | None = None

    async def follow(self, loop: ControlLoop) -> None:
        """Until cancelled."""
        generation = -1
        while True:
            snapshot = await loop.changed(generation, FOLLOW_SECONDS)
            generation = snapshot.generation
            if snapshot.ready or self._ended is not None:
                self.see(snapshot)

    def see(self, snapshot: NodeSnapshot) -> None:
        """Count what has ended since the last snapshot."""
        ended = {
            (change.name, change.created_at, place): switch
            for change in snapshot.changes
            for place, switch in enumerate(change.switches)
            if switch.final
        }
        known, self._ended = self._ended, set(ended)
        for key, switch in ended.items() if known is not None else ():
            if key in (known or ()):
                continue
            result = switch.state.value
            self._meters.operation("switch", result)
            seconds = switch.ended - switch.began if switch.ended is not None and switch.began is not None else None
            for gpu in switch.step.gpus:
                self._meters.mode_changed(gpu, switch.step.before, switch.step.after, result, seconds)


async def watch_lag(meters: Meters) -> None:
    """Measure by how much the event loop comes too late, until cancelled."""
    while True:
        due = time.monotonic() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        meters.lagged(max(0.0, time.monotonic() - due))
