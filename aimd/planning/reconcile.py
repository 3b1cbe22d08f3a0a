"""The control loop's decisions: an event in, effects out. Holds what the daemon knows; does and reads nothing itself.

aimd never reloads the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from aimd.domain.claim import Claim, PodRequest
from aimd.domain.event import NodeEvent
from aimd.domain.gpu import Holder
from aimd.domain.ledger import LedgerWrite
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.plan import Desired, Plan, PlanRefusedError
from aimd.domain.switch import ModeChange
from aimd.errors import ConflictError, UnreachableError
from aimd.planning import effects as fx
from aimd.planning.changes import Changes, Effects
from aimd.planning.claim_events import ClaimEvents
from aimd.planning.claims import ClaimDesk, Wanted
from aimd.planning.complaints import Complaints
from aimd.planning.layouts import Layout, layout_records
from aimd.planning.memory import MemoryWatch
from aimd.planning.node_state import NodeState
from aimd.planning.notes import drain_note, driver_note, reboot_note
from aimd.planning.planner import plan
from aimd.planning.pod_claims import is_prepared, with_devices, with_pods
from aimd.planning.policy import Policy
from aimd.planning.transaction import Reached
from aimd.planning.wishes import OpenWishes, unused

Holders = tuple[Holder, ...]


class Reconciler:
    """Everything the daemon decides about the node.

    Args:
        policy: settings; replaced by Reconfigured.
        boot_id: of the machine, now.
        first_generation: snapshots are counted from here; larger than those of earlier lives of the daemon.
    """

    def __init__(self, policy: Policy, boot_id: str, first_generation: int = 0) -> None:
        self._policy = policy
        self._boot_id = boot_id
        self._node = NodeState(first_generation)
        self._desk = ClaimDesk(policy)
        self._wishes = OpenWishes(policy.wish_retry_seconds)
        self._changes = Changes(policy, self._node, self._wishes, boot_id)
        self._complaints = Complaints(self._node, self._desk)
        self._claim_events = ClaimEvents(self._desk, self._node)
        self._memory = MemoryWatch(self._desk, self._node)
        self._layout: fx.Started | None = None
        self._looked = False
        self._taken: frozenset[str] = frozenset()  # GPUs that claims have had since wishes were looked at
        self._handlers: dict[type, Callable[[Any, fx.Instant], Effects]] = {
            fx.Started: self._started,
            fx.Scanned: self._scanned,
            fx.PollDue: self._poll_due,
            fx.Polled: self._polled,
            fx.DriverChanged: self._driver_changed,
            fx.Probed: lambda event, now: (*self._memory.probed(event, now), *self._publish()),
            fx.Submitted: self._submitted,
            fx.Reconfigured: self._reconfigured,
            fx.ClaimRequested: self._claim_requested,
            fx.ClaimReleased: lambda event, now: self._changed(self._claim_events.released(event, now), now),
            fx.PodsSeen: lambda event, now: self._followed(with_pods(self._desk.claims.values(), event.requests), now),
            fx.DevicesTaken: self._devices_taken,
            fx.DevicesLeft: self._devices_left,
            fx.DrainingSet: self._draining_set,
            fx.HolderJoined: lambda event, _: self._answered(
                self._claim_events.joined(event, self._changes.under_way.gpus)
            ),
            fx.HolderEnded: lambda event, now: (*self._claim_events.ended(event, now), *self._publish()),
        }

    @property
    def snapshot(self) -> NodeSnapshot:
        return self._node.snapshot

    def handle(self, event: fx.Event, now: fx.Instant) -> Effects:
        """Effects of the event, to be executed in order; each Commit before what follows it."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            return handler(event, now)
        if not self._changes.awaits(event.token):  # type: ignore[union-attr]
            return ()
        reached = self._handled(event, now)
        looked = self._memory.look(now) if isinstance(event, fx.HoldersSeen) else ()
        return (*looked, *self._progress(reached, now))

    def plan(
        self, wishes: tuple[tuple[str, PartitionMode], ...], *, drain: bool = False, holders: Holders | None = None
    ) -> Plan:
        """What a change would do now; without `drain`, GPUs with assignments are refused.

        `holders` are the KFD clients as just seen, else those of the last poll. Raises UnreachableError before the
        first scan.
        """
        view = self._node.planning_view if holders is None else replace(self._node.planning_view, holders=holders)
        planned = plan(Desired(dict(wishes), self._policy.allow_memory_mode_change), view)
        return self._desk.considered(planned, drain=drain)

    # -- start -----------------------------------------------------------------------------------------------

    def _started(self, event: fx.Started, now: fx.Instant) -> Effects:
        node = self._node
        node.records = {record.address: record for record in event.ledger.gpus}
        rebooted = event.ledger.boot_id not in (None, self._boot_id)
        reopened = self._changes.started(event.ledger.changes, now, rebooted=rebooted)
        self._layout, self._complaints.layout = event, event.layout
        node.reload_seen = rebooted
        if not rebooted:  # hardware changes with the power off: within a boot a GPU that is missing is lost
            node.expect(node.records)
        notes = (*event.ledger.notes, *([reboot_note(now)] if rebooted else ()))
        write = replace(reopened, events=notes, boot_id=self._boot_id)
        claims = self._claim_events.started(event.ledger, now, rebooted=rebooted)
        return (fx.Commit(write), *claims, *self._memory.started(event.ledger, now, rebooted=rebooted), fx.Scan())

    def _first_scan(self) -> Effects:
        """Bring the configured layout in, if it is another than last time; every wish is open now."""
        started, self._layout = self._layout, None
        if started is None:
            return ()
        commit = self._apply_layout(started.layout, started.layout_digest, started.ledger.layout_digest or "")
        self._wishes.open(self._wished)
        return commit

    def _apply_layout(self, layout: Layout, digest: str, before: str, layout_before: Layout | None = None) -> Effects:
        if digest == before:
            return ()
        node = self._node
        records = layout_records(layout, layout_before or {}, node.observed.gpus, node.records)
        node.records.update({record.address: record for record in records})
        self._wishes.open(record.address for record in records if record.wish is not None)
        return (fx.Commit(LedgerWrite(gpus=records, layout_digest=digest)),)

    def problems(self, event: fx.Reconfigured) -> list[str]:
        """What of a new configuration cannot be carried out as things are, a sentence each."""
        return self._complaints.about(event.layout, event.policy)

    def _complained(self, now: fx.Instant) -> Effects:
        """The same of the configuration in force, told anew; while a change runs, the node is between two states."""
        return self._complaints.renewed(now) if self._changes.active is None else ()

    def _reconfigured(self, event: fx.Reconfigured, now: fx.Instant) -> Effects:
        """A changed layout is a new wish; an unchanged one leaves what was wished since. A setting may allow a wish now."""
        self._policy = self._desk.policy = self._changes.policy = event.policy
        self._wishes.retry_seconds = event.policy.wish_retry_seconds
        self._wishes.open_refused()
        self._complaints.layout = event.layout
        if self._layout is not None:
            self._layout = replace(self._layout, layout=event.layout, layout_digest=event.layout_digest)
        if not self._node.scanned:
            return ()
        layout = self._apply_layout(event.layout, event.layout_digest, event.digest_before, event.layout_before)
        return (*layout, *self._complained(now), *self._publish(), *self._next_work(now))

    # -- observation -----------------------------------------------------------------------------------------

    def _scanned(self, event: fx.Scanned, now: fx.Instant) -> Effects:
        self._looked = True
        if event.observed is not None:
            self._node.take(event.observed)
        else:
            self._node.miss(event.failure or "the node could not be scanned", gone=event.gone)
        arrived = self._arrived(now, gone=event.gone) if self._node.scanned else ()
        if event.token and self._changes.awaits(event.token):
            return (*arrived, *self._progress(self._handled(event, now), now))
        if event.observed is None or event.token:
            return (*arrived, *self._publish())
        return (*arrived, *self._first_scan(), *self._complained(now), *self._publish(), *self._next_work(now))

    def _arrived(self, now: fx.Instant, *, gone: bool = False) -> Effects:
        """What was observed is shown, together with the claims that move because of it.

        GPUs between two modes are shown as they were, unless the driver is gone with all that it had.
        """
        hidden = self._changes.hidden if not gone else frozenset()
        write = self._node.adopt(hidden, now.wall)
        adopted: Effects = () if write.empty else (fx.Commit(write),)
        return (*adopted, *self._claim_events.settle(now, self._changes.under_way, hidden), *self._memory.look(now))

    def _poll_due(self, _event: fx.PollDue, now: fx.Instant) -> Effects:
        expired = self._claim_events.expire(now)
        return (*expired, *self._publish(), *(() if self._changes.active is not None else (fx.Poll(),)))

    def _polled(self, event: fx.Polled, now: fx.Instant) -> Effects:
        node = self._node
        if self._changes.active is not None:
            return ()
        if not node.scanned or event.generation != node.observed.topology_generation or node.warnings:
            return (fx.Scan(),)
        node.amend(replace(node.observed, holders=event.holders))
        return (*self._memory.look(now), *self._complained(now), *self._publish(), *self._next_work(now))

    def _driver_changed(self, event: fx.DriverChanged, now: fx.Instant) -> Effects:
        if event.kind == "driver_reloaded":
            self._node.reload_seen = True
        if event.kind == "gpu_added" and event.address is not None:
            self._node.announced.add(event.address)
        return (fx.Commit(LedgerWrite(events=(driver_note(event, now),))), fx.Scan())

    # -- changes ---------------------------------------------------------------------------------------------

    def _submitted(self, event: fx.Submitted, now: fx.Instant) -> Effects:
        answer = self._changes.answer(event.name, event.wishes)
        if answer is not None:
            return (fx.Reply(event.request, answer),)
        try:
            planned = self.plan(event.wishes, drain=event.drain)
        except UnreachableError as error:
            return (fx.Reply(event.request, error),)
        if planned.refusals:
            return (fx.Reply(event.request, PlanRefusedError(planned)),)
        change = self._changes.new(event.name, "client", event.wishes, planned, now, event.uid)
        if event.wait_seconds is not None:
            change = replace(change, wait_seconds=event.wait_seconds)
        kept = self._changes.keep(change, now, "plan_accepted", f"{len(change.switches)} switch(es) planned")
        return (*self._answered((*kept, fx.Reply(event.request, change))), *self._begin(change, now))

    def _begin(self, change: ModeChange, now: fx.Instant) -> Effects:
        """Run the change from where it stands; one without switches has ended already."""
        if change.current is None:
            return self._publish()
        return self._progress(self._changes.begin(change, now), now)

    def _handled(self, event: fx.Event, now: fx.Instant) -> Reached:
        return self._changes.handled(event, self._desk.holders_on(self._changes.gpu or ""), now)

    def _progress(self, reached: Reached, now: fx.Instant) -> Effects:
        """Journal how far the change has come, then let it act; look at the node again when it rests."""
        _, actions, event = reached
        change, journal = self._changes.progress(reached, now)
        if not change.resting:
            adopted = self._arrived(now) if event is not None and event.kind == "switch_committed" else ()
            return (*journal, *adopted, *self._publish(), *actions)
        return (*journal, *self._arrived(now), *actions, *self._publish(), fx.Scan())

    # -- work of its own -------------------------------------------------------------------------------------

    @property
    def _wished(self) -> set[str]:
        return {record.address for record in self._node.records.values() if record.wish is not None}

    def _next_work(self, now: fx.Instant) -> Effects:
        """What to do when nothing runs: go on after a restart, complete a memory change, place claims, pursue wishes."""
        node = self._node
        if self._changes.active is not None:
            return ()
        if node.reload_seen and not node.driver_gone:
            node.reload_seen = False
            self._wishes.open(self._wished)
            self._changes.driver_loaded()
        self._wishes.open(node.arrivals() & self._wished)
        unfinished = self._changes.resumable()
        if unfinished is not None:
            return self._begin(unfinished, now)
        settled = self._claim_events.settle(now, self._changes.under_way)
        wanted = self._claim_events.pursue(now)
        begun = self._switch_for(wanted.claim, wanted.switches, now) if wanted is not None else ()
        if begun:
            return (*settled, *begun)
        left, self._taken = self._taken - self._desk.taken, self._desk.taken
        self._wishes.open(left & self._wished)
        return (*settled, *self._publish(), *self._pursue_wishes(now))

    def _pursue_wishes(self, now: fx.Instant) -> Effects:
        """Start a change for GPUs that are idle and not as wished; none where another manager has them."""
        if self._policy.rivals:
            return ()
        node, allow = self._node, self._policy.allow_memory_mode_change
        view, taken = node.planning_view, self._desk.taken
        wishes, planned, refused = self._wishes.next(node.records, view, taken, now.monotonic, allow_memory=allow)
        notes = tuple(NodeEvent("wish_refused", r.gpu or "node", r.message, now.wall) for r in refused)
        told: Effects = (fx.Commit(LedgerWrite(events=notes)),) if notes else ()
        if not planned.steps:
            return told
        name = unused(f"wish-{self._boot_id[:8]}-{now.wall:.3f}", node.changes)
        change = self._changes.new(name, "wish", wishes.items(), planned, now)
        kept = self._changes.keep(change, now, "plan_accepted", "the GPUs are idle")
        return (*told, *kept, *self._begin(change, now))

    # -- claims ----------------------------------------------------------------------------------------------

    def _claim_requested(self, event: fx.ClaimRequested, now: fx.Instant) -> Effects:
        answer = self._claim_events.requested(event, self._changes.under_way, now)
        if isinstance(answer, Wanted):
            return self._switch_for(answer.claim, answer.switches, now, event.request)
        return self._answered(answer)

    def _switch_for(
        self, claim: Claim, switches: tuple[tuple[str, PartitionMode], ...], now: fx.Instant, request: int = 0
    ) -> Effects:
        """Begin the mode change that makes room for a claim; claim and change become durable together."""
        name = unused(f"claim-{claim.name}-{now.wall:.3f}", self._node.changes)
        planned = self.plan(switches)
        if planned.refusals:
            return (fx.Reply(request, PlanRefusedError(planned)),) if request else ()
        change = self._changes.new(name, "claim", switches, planned, now, claim.owner_uid)
        claim = replace(claim, change=name)
        self._desk.claims[claim.name] = claim
        words = f"makes room for claim {claim.name}"
        kept = self._changes.keep(change, now, "plan_accepted", words, (claim,))
        reply: Effects = (fx.Reply(request, claim),) if request else ()
        return (*self._answered((*kept, *reply)), *self._begin(change, now))

    def _changed(self, effects: Effects, now: fx.Instant) -> Effects:
        """Claims have come or gone: what is durable, shown and answered, and then what there is to do."""
        return (*self._answered(effects), *(self._next_work(now) if self._node.scanned else ()))

    def _devices_taken(self, event: fx.DevicesTaken, now: fx.Instant) -> Effects:
        model = event.requests[0].model
        known = self._desk.claims.get(model)
        if known is not None and not known.pods:
            taken = ConflictError(
                f"the node has a claim {model} that no pod has made", code="name_taken", hint=f"aimctl release {model}"
            )
            return (fx.Reply(event.request, taken),)
        prepared = any(one.device is not None and one.device.prepared for one in event.requests)
        claims = self._desk.claims.values()
        if known is not None and not prepared and is_prepared(claims, event.uid):
            return (fx.Reply(event.request, known),)
        followed = self._followed(with_devices(claims, event.uid, event.requests), now)
        return (*followed, fx.Reply(event.request, self._desk.claims[model]))

    def _devices_left(self, event: fx.DevicesLeft, now: fx.Instant) -> Effects:
        claims = self._desk.claims.values()
        kept = event.waiting and is_prepared(claims, event.uid)
        followed = () if kept else self._followed(with_devices(claims, event.uid, ()), now)
        return (*followed, fx.Reply(event.request, None))

    def _followed(self, requests: Iterable[PodRequest], now: fx.Instant) -> Effects:
        """Claims as pods ask for them, placed as far as they can be before anybody sees that they wait."""
        followed, changes = self._claim_events.followed(requests, now), self._changes
        settled = self._claim_events.settle(now, changes.under_way, changes.hidden) if self._node.scanned else ()
        return self._changed((*followed, *settled), now)

    def _draining_set(self, event: fx.DrainingSet, now: fx.Instant) -> Effects:
        record = replace(self._node.record(event.gpu), draining=event.draining)
        if record == self._node.record(event.gpu):
            return (fx.Reply(event.request, None),)
        self._node.records[event.gpu] = record
        commit = fx.Commit(LedgerWrite(gpus=(record,), events=(drain_note(event, now),)))
        work = self._next_work(now) if self._node.scanned else ()
        return (commit, *self._publish(), fx.Reply(event.request, None), *work)

    # -- view ------------------------------------------------------------------------------------------------

    def _publish(self) -> Effects:
        """A new snapshot if anything in it has changed; none before the first look at the node has ended."""
        if not self._looked:
            return ()
        desk = self._desk
        self._taken |= desk.taken
        claims, holders = tuple(desk.claims.values()), tuple(desk.holders.values())
        snapshot = self._node.refresh(self._changes.active, claims, holders, self._memory.board())
        return (fx.Publish(snapshot),) if snapshot is not None else ()

    def _answered(self, effects: Effects) -> Effects:
        """The effects with the answer last: who has it finds in the snapshot what it tells of."""
        replies = tuple(effect for effect in effects if isinstance(effect, fx.Reply))
        return (*(effect for effect in effects if not isinstance(effect, fx.Reply)), *self._publish(), *replies)
