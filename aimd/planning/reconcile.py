"""The control loop's decisions: an event in, effects out. Holds what the daemon knows; does and reads nothing itself.

One mode change runs at a time (node-wide lock). A change whose memory mode waits for a driver load is parked: it does
not hold the lock. aimd never reloads the driver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from aimd.domain.gpu import BusyRule, Gpu, Observed
from aimd.domain.ledger import GpuRecord, LedgerWrite
from aimd.domain.modes import PartitionMode
from aimd.domain.node import Event as NodeEvent
from aimd.domain.node import NodeSnapshot
from aimd.domain.plan import Desired, Plan, PlanRefusedError, Reason
from aimd.domain.switch import ModeChange, Switch, SwitchState
from aimd.errors import ConflictError, UnreachableError
from aimd.planning import effects as fx
from aimd.planning.observation import carried_over, driver_was_loaded
from aimd.planning.planner import plan
from aimd.planning.switching import SwitchEvent, advance
from aimd.planning.transaction import Transaction
from aimd.planning.verify import verify
from aimd.planning.view import gpu_statuses, pending_memory, satisfied, wished_by_layout
from aimd.planning.wishes import kept_wishes

Effects = tuple[fx.Effect, ...]
KEPT_CHANGES = 100


@dataclass(frozen=True, slots=True)
class Policy:
    """Settings that decisions depend on; times in seconds."""

    allow_memory_mode_change: bool = False
    wait_seconds: float = 30.0
    settle_seconds: float = 30.0
    wish_retry_seconds: float = 60.0


class Reconciler:
    """Everything the daemon decides about the node's modes."""

    def __init__(self, policy: Policy, boot_id: str) -> None:
        self._policy = policy
        self._boot_id = boot_id
        self._records: dict[str, GpuRecord] = {}
        self._changes: dict[str, ModeChange] = {}
        self._layout: fx.Started | None = None
        self._observed: Observed | None = None
        self._shown: dict[str, Gpu] = {}
        self._open_wishes: set[str] = set()
        self._wish_retry_at = 0.0
        self._reload_seen = False
        self._to_resume: set[str] = set()
        self._transaction: Transaction | None = None
        self._token = 0
        self._snapshot = NodeSnapshot()
        self._warnings: tuple[str, ...] = ()
        self._handlers: dict[type, Callable[[Any, fx.Instant], Effects]] = {
            fx.Started: self._started,
            fx.Scanned: self._scanned,
            fx.PollDue: self._poll_due,
            fx.Polled: self._polled,
            fx.DriverChanged: self._driver_changed,
            fx.Submitted: self._submitted,
        }

    @property
    def snapshot(self) -> NodeSnapshot:
        return self._snapshot

    def handle(self, event: fx.Event, now: fx.Instant) -> Effects:
        """Effects of the event, to be executed in order; each Commit before what follows it."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            return handler(event, now)
        if self._transaction is None or event.token != self._token:  # type: ignore[union-attr]
            return ()
        return self._progress(self._transaction.handle(event, self._observed, now), now)

    def plan(self, wishes: tuple[tuple[str, PartitionMode], ...]) -> Plan:
        """What a change would do now; raises UnreachableError before the first scan."""
        if self._observed is None:
            raise UnreachableError("the node was not scanned yet", hint="try again in a moment")
        return plan(Desired(dict(wishes), self._policy.allow_memory_mode_change), self._planning_view())

    # -- start -----------------------------------------------------------------------------------------------

    def _started(self, event: fx.Started, now: fx.Instant) -> Effects:
        self._records = {record.address: record for record in event.ledger.gpus}
        rebooted = event.ledger.boot_id not in (None, self._boot_id)
        happened = SwitchEvent.REBOOTED if rebooted else SwitchEvent.RESTARTED
        touched: list[ModeChange] = []
        wished: list[GpuRecord] = []
        for change in event.ledger.changes:
            self._changes[change.name] = change
            if change.current is not None:
                self._changes[change.name] = self._reopened(change, happened, now)
                touched.append(self._changes[change.name])
                wished += kept_wishes(touched[-1], self._records)
                self._records.update({record.address: record for record in wished})
        self._layout = event
        self._reload_seen = rebooted
        write = LedgerWrite(tuple(touched), tuple(wished), event.ledger.notes, self._boot_id)
        return (fx.Commit(write), fx.Scan())

    def _reopened(self, change: ModeChange, happened: SwitchEvent, now: fx.Instant) -> ModeChange:
        """The change as it goes on after the daemon, or the machine, was started again."""
        index = change.current
        assert index is not None
        reboot = happened is SwitchEvent.REBOOTED
        reason = Reason.INTERRUPTED_BY_REBOOT if reboot else None
        words = "the machine was rebooted; the driver has chosen the compute mode anew" if reboot else None
        switch = advance(change.switches[index], happened, now.monotonic, reason=reason, message=words)
        if not switch.final:
            switch = replace(switch, deadline=now.monotonic + change.wait_seconds)
            if switch.state is not SwitchState.ROLLING_BACK:  # which has to end with the reason it is made for
                switch = replace(switch, reason=None, message=None)
        return _abandon_rest(replace(change.with_switch(index, switch), boot_id=self._boot_id), now)

    def _first_scan(self) -> tuple[Effects, dict[str, GpuRecord]]:
        """Bring the configured layout in, if it is another than last time; every wish is open now."""
        started, self._layout = self._layout, None
        if started is None or self._observed is None:
            return (), {}
        records: dict[str, GpuRecord] = {}
        if started.layout_digest != (started.ledger.layout_digest or ""):
            for address, wish in wished_by_layout(started.layout, self._observed.gpus).items():
                records[address] = replace(self._records.get(address, GpuRecord(address)), wish=wish)
        self._open_wishes = {a for a, r in {**self._records, **records}.items() if r.wish is not None}
        write = LedgerWrite(layout_digest=started.layout_digest)
        return (fx.Commit(write),), records

    # -- observation -----------------------------------------------------------------------------------------

    def _scanned(self, event: fx.Scanned, now: fx.Instant) -> Effects:
        if event.observed is not None:
            self._take(event.observed)
        else:
            self._warnings = (event.failure or "the node could not be scanned",)
            if event.gone:
                self._lose_driver()
        if event.token and event.token != self._token:
            return self._publish()
        if event.token and self._transaction is not None:
            return self._progress(self._transaction.handle(event, self._observed, now), now)
        if event.observed is None:
            return self._publish()
        first, layout_records = self._first_scan()
        return (*self._adopt(now, layout_records), *first, *self._publish(), *self._next_work(now))

    def _take(self, observed: Observed) -> None:
        """Keep the observation; what was learned of the driver's rule and GPUs that vanished are kept, too."""
        if self._observed is not None:
            self._reload_seen = self._reload_seen or driver_was_loaded(observed, self._observed)
        self._observed = carried_over(observed, self._observed, self._shown.values())
        self._warnings = observed.warnings

    def _lose_driver(self) -> None:
        """No driver, no partitions; when it is there again it has been loaded anew."""
        self._reload_seen = True
        if self._observed is not None:
            gpus = tuple(replace(gpu, partitions=(), reported_compute=None) for gpu in self._observed.gpus)
            self._observed = replace(self._observed, gpus=gpus, holders=(), topology_generation=None)
            self._shown = {gpu.pci_address: gpu for gpu in gpus}

    def _adopt(self, now: fx.Instant, layout_records: dict[str, GpuRecord] | None = None) -> Effects:
        """Show what was observed, but for GPUs in the middle of a switch; count epochs where a mode has changed."""
        assert self._observed is not None
        hidden = self._transaction.hidden if self._transaction is not None else frozenset()
        changed, events = dict(layout_records or {}), []
        for gpu in self._observed.gpus:
            if gpu.pci_address in hidden:
                continue
            self._shown[gpu.pci_address] = gpu
            record = changed.get(gpu.pci_address) or self._records.get(gpu.pci_address, GpuRecord(gpu.pci_address))
            if gpu.partitions and not gpu.in_reset and record.mode != gpu.mode:
                changed[gpu.pci_address] = replace(record, mode=gpu.mode, mode_epoch=record.mode_epoch + 1)
                if record.mode is not None:
                    words = f"GPU {gpu.pci_address} went from {record.mode} to {gpu.mode}"
                    events.append(NodeEvent("mode_changed", gpu.pci_address, words, now.wall))
        self._records.update(changed)
        if not changed:
            return ()
        return (fx.Commit(LedgerWrite(gpus=tuple(changed.values()), events=tuple(events))),)

    def _poll_due(self, _event: fx.PollDue, _now: fx.Instant) -> Effects:
        return () if self._transaction is not None else (fx.Poll(),)

    def _polled(self, event: fx.Polled, now: fx.Instant) -> Effects:
        if self._transaction is not None:
            return ()
        if self._observed is None or event.generation != self._observed.topology_generation or self._warnings:
            return (fx.Scan(),)
        self._observed = replace(self._observed, holders=event.holders)
        return (*self._publish(), *self._next_work(now))

    def _driver_changed(self, event: fx.DriverChanged, now: fx.Instant) -> Effects:
        if event.kind == "driver_reloaded":
            self._reload_seen = True
        subject = event.address or "node"
        words = f"driver event {event.kind}" + (f" of GPU {event.address}" if event.address else "")
        note = NodeEvent(event.kind, subject, words, now.wall)
        return (fx.Commit(LedgerWrite(events=(note,))), fx.Scan())

    # -- changes ---------------------------------------------------------------------------------------------

    def _submitted(self, event: fx.Submitted, now: fx.Instant) -> Effects:
        known = self._changes.get(event.name)
        if known is not None:
            if known.wishes == event.wishes:
                return (fx.Reply(event.request, known),)
            taken = ConflictError(
                f"plan {event.name} exists and asks for something else", code="name_taken", hint="choose another name"
            )
            return (fx.Reply(event.request, taken),)
        if self._transaction is not None:
            running = self._transaction.change.name
            busy = ConflictError(
                f"mode change {running} is under way; one runs at a time on a node",
                code=Reason.SWITCH_IN_PROGRESS.value,
                hint=f"aimctl describe plan {running} shows how far it is; try again when it has ended",
            )
            return (fx.Reply(event.request, busy),)
        try:
            planned = self.plan(event.wishes)
        except UnreachableError as error:
            return (fx.Reply(event.request, error),)
        if planned.refusals:
            return (fx.Reply(event.request, PlanRefusedError(planned)),)
        change = self._new_change(event, planned, now)
        accepted = self._keep(change, now, "plan_accepted", f"{len(change.switches)} switches planned")
        return (*accepted, fx.Reply(event.request, change), *self._begin(change, now))

    def _new_change(self, event: fx.Submitted, planned: Plan, now: fx.Instant, origin: str = "client") -> ModeChange:
        wait = self._policy.wait_seconds if event.wait_seconds is None else event.wait_seconds
        return ModeChange(
            name=event.name,
            origin=origin,
            wishes=event.wishes,
            switches=tuple(Switch(step) for step in planned.steps),
            boot_id=self._boot_id,
            created_at=now.wall,
            wait_seconds=wait,
            requester_uid=event.uid if origin == "client" else None,
        )

    def _keep(self, change: ModeChange, now: fx.Instant, kind: str, words: str) -> Effects:
        """Remember and journal the change; one that has ended well also makes its modes the GPUs' wish."""
        self._changes[change.name] = change
        records = kept_wishes(change, self._records)
        self._records.update({record.address: record for record in records})
        ended = [name for name, kept in self._changes.items() if kept.current is None]
        for name in ended[: max(0, len(ended) - KEPT_CHANGES)]:
            del self._changes[name]
        events = (NodeEvent(kind, change.name, words, now.wall),)
        return (fx.Commit(LedgerWrite(changes=(change,), gpus=records, events=events)),)

    def _begin(self, change: ModeChange, now: fx.Instant) -> Effects:
        """Run the change from where it stands; one without switches has ended already."""
        if change.current is None:
            return self._publish()
        self._token += 1
        self._transaction = Transaction(change, self._token, self._policy.settle_seconds)
        assert self._observed is not None
        return self._progress(self._transaction.resume(self._observed, now), now)

    def _progress(self, reached: tuple[ModeChange, Effects, NodeEvent | None], now: fx.Instant) -> Effects:
        """Journal how far the transaction has come, then let it act; end it when it has ended or is parked."""
        change, actions, event = reached
        transaction = self._transaction
        assert transaction is not None
        if transaction.learned_rule is not None and self._observed is not None:
            self._observed = replace(self._observed, busy_rule=transaction.learned_rule)
        change = _abandon_rest(change, now)
        self._token = transaction.token
        journal = self._keep(change, now, event.kind, event.message) if event is not None else ()
        self._changes[change.name] = change
        parked = change.current is not None and change.state is SwitchState.AWAITING_RELOAD
        if change.current is not None and not parked:
            adopted = self._adopt(now) if event is not None and event.kind == "switch_committed" else ()
            return (*journal, *adopted, *self._publish(), *actions)
        self._transaction = None
        return (*journal, *self._adopt(now), *actions, *self._publish(), fx.Scan())

    def _next_work(self, now: fx.Instant) -> Effects:
        """What to do when nothing runs: go on after a restart, complete a memory change, then open wishes."""
        if self._transaction is not None:
            return ()
        if self._reload_seen:
            self._reload_seen = False
            self._open_wishes |= {record.address for record in self._records.values() if record.wish is not None}
            self._to_resume |= {change.name for change in self._changes.values() if change.current is not None}
        interrupted_first = sorted(self._changes.values(), key=lambda change: change.state is SwitchState.AWAITING_RELOAD)
        for change in interrupted_first:
            if change.current is not None and (change.name in self._to_resume or self._goes_on(change)):
                self._to_resume.discard(change.name)
                return self._begin(change, now)
        return self._pursue_wishes(now)

    def _goes_on(self, change: ModeChange) -> bool:
        """Whether the change needs no driver load any more: it never did, or its memory mode is there already."""
        if change.state is not SwitchState.AWAITING_RELOAD:
            return True
        assert change.current is not None
        assert self._observed is not None
        return verify(change.switches[change.current].step, self._observed) is SwitchEvent.VERIFIED

    def _pursue_wishes(self, now: fx.Instant) -> Effects:
        """Start a change for GPUs that are idle and not as wished."""
        assert self._observed is not None
        view = self._planning_view()
        wishes = {a: w for a in self._open_wishes if (w := self._records[a].wish) is not None}
        done = {a for a, wish in wishes.items() if (gpu := view.gpu(a)) is not None and satisfied(gpu, wish)}
        self._open_wishes -= done
        if now.monotonic < self._wish_retry_at:
            return ()
        node_wide = view.busy_rule is BusyRule.NODE_WIDE
        held = {a for holder in view.holders for a in (self._shown if node_wide else holder.gpus)}
        ready = {a: wishes[a] for a in sorted(self._open_wishes - held) if view.gpu(a) is not None}
        planned = plan(Desired(ready, self._policy.allow_memory_mode_change), view)
        refused = {refusal.gpu for refusal in planned.refusals}
        self._wish_retry_at = now.monotonic + (self._policy.wish_retry_seconds if ready else 0.0)
        notes = tuple(NodeEvent("wish_refused", r.gpu or "node", r.message, now.wall) for r in planned.refusals)
        self._open_wishes -= {address for address in refused if address is not None}
        told: Effects = (fx.Commit(LedgerWrite(events=notes)),) if notes else ()
        if refused:  # the others are planned again without the refused ones
            self._wish_retry_at = 0.0
            return (*told, *self._pursue_wishes(now))
        if not planned.steps:
            return told
        name = f"wish-{self._boot_id[:8]}-{now.wall:.3f}"
        change = self._new_change(fx.Submitted(0, name, tuple(ready.items()), None, 0), planned, now, origin="wish")
        return (*told, *self._keep(change, now, "plan_accepted", "the GPUs are idle"), *self._begin(change, now))

    # -- view ------------------------------------------------------------------------------------------------

    def _planning_view(self) -> Observed:
        assert self._observed is not None
        return replace(self._observed, pending_memory=pending_memory(self._changes.values()))

    def _publish(self) -> Effects:
        """A new snapshot if anything in it has changed."""
        observed = self._observed
        active = self._transaction.change if self._transaction is not None else None
        gpus = [self._shown[address] for address in sorted(self._shown)]
        pending = pending_memory(self._changes.values())
        snapshot = NodeSnapshot(
            generation=self._snapshot.generation,
            gpus=gpu_statuses(gpus, self._records, pending, active),
            holders=observed.holders if observed is not None else (),
            changes=tuple(self._changes.values()),
            busy_rule=observed.busy_rule if observed is not None else BusyRule.UNKNOWN,
            ready=observed is not None,
            topology_generation=observed.topology_generation if observed is not None else None,
            warnings=self._warnings,
        )
        if snapshot == self._snapshot:
            return ()
        self._snapshot = replace(snapshot, generation=self._snapshot.generation + 1)
        return (fx.Publish(self._snapshot),)


def _abandon_rest(change: ModeChange, now: fx.Instant) -> ModeChange:
    """The steps after one that did not succeed are not tried."""
    failed = next((s for s in change.switches if s.state in (SwitchState.FAILED, SwitchState.NEEDS_OPERATOR)), None)
    if failed is None:
        return change
    words = f"not tried, because the step of GPU {failed.step.gpu} has {failed.state}"
    for index, switch in enumerate(change.switches):
        if not switch.final:
            abandoned = advance(
                switch, SwitchEvent.ABANDONED, now.monotonic, reason=Reason.EARLIER_STEP_FAILED, message=words
            )
            change = change.with_switch(index, abandoned)
    return change
