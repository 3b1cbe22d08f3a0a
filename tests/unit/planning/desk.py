"""A reconciler at a desk: events are put before it, its effects are carried out on a paper node, its promises checked.

Checked with every effect: what acts was journaled before, one change acts at a time, what is shown is durable.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from aimd.domain.claim import Claim, ClaimSpec
from aimd.domain.event import NodeEvent
from aimd.domain.ledger import GpuRecord, HolderRecord, LedgerState, LedgerWrite
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.process import Process
from aimd.domain.switch import ModeChange, Switch, SwitchState
from aimd.planning import effects as fx
from aimd.planning.reconcile import Policy, Reconciler
from tests.fakes.claims import broken_promises
from tests.unit.planning.paper import ADDRESSES, PaperNode, mode

Acting = fx.Scan | fx.Poll | fx.Drain | fx.ListHolders | fx.WriteMode | fx.Wake
S = SwitchState
ACTING_STATES: dict[type, set[SwitchState]] = {
    fx.WriteMode: {S.SWITCHING, S.ROLLING_BACK},
    fx.Drain: {S.DRAINING},
    fx.ListHolders: {S.WAITING, S.SWITCHING, S.ROLLING_BACK},
    fx.Scan: {S.RESCANNING, S.ROLLING_BACK},
}
POLICY = Policy(wait_seconds=5.0, settle_seconds=5.0, wish_retry_seconds=1.0)
NPS_POLICY = replace(POLICY, allow_memory_mode_change=True)


@dataclass
class PaperLedger:
    """What commits have made durable."""

    boot_id: str | None = None
    layout_digest: str | None = None
    gpus: dict[str, GpuRecord] = field(default_factory=dict)
    changes: dict[str, ModeChange] = field(default_factory=dict)
    events: list[NodeEvent] = field(default_factory=list)
    claims: dict[str, Claim] = field(default_factory=dict)
    holders: dict[tuple[int, int], HolderRecord] = field(default_factory=dict)

    def commit(self, write: LedgerWrite) -> None:
        self.boot_id = write.boot_id or self.boot_id
        self.layout_digest = self.layout_digest if write.layout_digest is None else write.layout_digest
        self.gpus.update({record.address: record for record in write.gpus})
        self.changes.update({change.name: change for change in write.changes})
        self.events += write.events
        self.claims.update({claim.name: claim for claim in write.claims})
        for name in write.released:
            self.claims.pop(name, None)
        self.holders.update({(holder.pid, holder.start_time): holder for holder in write.holders})
        for holder in write.holders_gone:
            self.holders.pop((holder.pid, holder.start_time), None)

    def load(self) -> LedgerState:
        return LedgerState(
            self.boot_id,
            self.layout_digest,
            tuple(self.gpus.values()),
            tuple(self.changes.values()),
            claims=tuple(self.claims.values()),
            holders=tuple(self.holders.values()),
        )

    def acting(self) -> list[Switch]:
        """The switch of each change that has begun, has not ended and is not parked for a driver load."""
        current = [c.switches[c.current] for c in self.changes.values() if c.current is not None]
        return [switch for switch in current if switch.state not in (S.PLANNED, S.AWAITING_RELOAD)]

    def state(self, name: str) -> SwitchState:
        return self.changes[name].state


class Desk:
    """One daemon's life is from `start` to the next `start`; node and ledger outlive it."""

    def __init__(self, node: PaperNode, policy: Policy = POLICY) -> None:
        self.node = node
        self.policy = policy
        self.ledger = PaperLedger()
        self.now = 100.0
        self.asked: list[Acting] = []
        self.replies: dict[int, fx.Answer] = {}
        self.watched: list[fx.WatchProcess] = []
        self.effects: list[fx.Effect] = []
        self.passed: list[SwitchState] = []
        self._numbers = itertools.count(1)
        self.reconciler = Reconciler(policy, "boot-1")

    @property
    def snapshot(self) -> NodeSnapshot:
        return self.reconciler.snapshot

    def start(self, layout: Mapping[str, str] | None = None, digest: str = "", boot: str = "boot-1") -> None:
        """Start a daemon (again); what an earlier one had asked for is answered to nobody."""
        self.asked.clear()
        self.watched.clear()
        self.reconciler = Reconciler(self.policy, boot)
        modes = {key: mode(text) for key, text in (layout or {}).items()}
        self.tell(fx.Started(self.ledger.load(), modes, digest))

    def tell(self, event: fx.Event, *, cut: int | None = None) -> None:
        """Hand over an event and carry out its effects, or only the first `cut` of them (killed in between)."""
        instant = fx.Instant(self.now, 1_000_000 + self.now)
        for effect in self.reconciler.handle(event, instant)[:cut]:
            self._carry_out(effect)

    def submit(
        self,
        *wishes: tuple[int, str],
        name: str = "c1",
        wait: float | None = None,
        uid: int = 1000,
        drain: bool = False,
    ) -> fx.Answer:
        """The answer to a client's request."""
        parsed = tuple((ADDRESSES[number], mode(text)) for number, text in wishes)
        return self._ask(lambda request: fx.Submitted(request, name, parsed, wait, uid, drain))

    def _ask(self, event_of: Callable[[int], fx.Event]) -> fx.Answer:
        request = next(self._numbers)
        self.tell(event_of(request))
        return self.replies.pop(request)

    def claim(self, name: str, spec: ClaimSpec) -> fx.Answer:
        return self._ask(lambda request: fx.ClaimRequested(request, name, spec, 1000))

    def release(self, name: str) -> fx.Answer:
        return self._ask(lambda request: fx.ClaimReleased(request, name))

    def join(self, name: str, pid: int, replica: int | None = None, start_time: int = 1) -> fx.Answer:
        return self._ask(lambda request: fx.HolderJoined(request, name, replica, pid, start_time, "python serve.py"))

    def end(self, pid: int, start_time: int = 1, *, seen: bool = True, left: tuple[Process, ...] = ()) -> None:
        self.tell(fx.HolderEnded(pid, start_time, seen, left))

    def drain(self, number: int, *, draining: bool = True) -> fx.Answer:
        return self._ask(lambda request: fx.DrainingSet(request, ADDRESSES[number], draining))

    def answer(self, effect: Acting) -> None:
        """Let the node answer one of the effects that are asked for."""
        self.asked.remove(effect)
        self.tell(self.result(effect))

    def result(self, effect: Acting) -> fx.Event:
        if isinstance(effect, fx.Scan):
            if self.node.scan_failures:
                self.node.scan_failures -= 1
                return fx.Scanned(effect.token, None, "the topology kept moving")
            return fx.Scanned(effect.token, self.node.observe())
        if isinstance(effect, fx.Poll):
            return fx.Polled(self.node.generation, tuple(self.node.holders))
        if isinstance(effect, fx.Drain):
            return fx.Drained(effect.token)
        if isinstance(effect, fx.ListHolders):
            return fx.HoldersSeen(effect.token, tuple(self.node.holders))
        if isinstance(effect, fx.WriteMode):
            return fx.WriteEnded(effect.token, self.node.write(effect.gpu, effect.mode), 0.25)
        self.now += effect.seconds
        return fx.Woken(effect.token)

    def run(self, until: Callable[[], bool] | None = None, most: int = 500) -> None:
        """Answer in order until the condition holds, or without one until nothing is asked for any more."""
        for _ in range(most):
            if until is not None and until():
                return
            if not self.asked:
                assert until is None, "nothing is asked for any more, and the condition does not hold"
                return
            self.answer(self.asked[0])
        raise AssertionError(f"still busy after {most} answers: {self.asked}")

    def run_until_state(self, state: SwitchState, name: str = "c1") -> None:
        self.run(lambda: self.ledger.state(name) is state)

    def change(self, *wishes: tuple[int, str], name: str = "c1", wait: float | None = None) -> ModeChange:
        """Submit and run to the end."""
        answer = self.submit(*wishes, name=name, wait=wait)
        assert isinstance(answer, ModeChange), answer
        self.run()
        return self.ledger.changes[name]

    def poll(self) -> None:
        self.tell(fx.PollDue())
        self.run()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    # -- checking ------------------------------------------------------------------------------------------------

    def _carry_out(self, effect: fx.Effect) -> None:
        self.effects.append(effect)
        if isinstance(effect, fx.Commit):
            self._check_commit(effect.write)
        elif isinstance(effect, fx.Reply):
            assert effect.request not in self.replies, "answered twice"
            if isinstance(effect.result, ModeChange):
                assert effect.result.name in self.ledger.changes, "accepted before it was durable"
            self._check_claim_answer(effect.result)
            self.replies[effect.request] = effect.result
        elif isinstance(effect, fx.Publish):
            self._check_shown(effect.snapshot)
        elif isinstance(effect, fx.WatchProcess):
            assert (effect.pid, effect.start_time) in self.ledger.holders, "watched before it was durable"
            self.watched.append(effect)
        elif not isinstance(effect, fx.Undrain):
            self._check_acting(effect)
            self.asked.append(effect)

    def _check_commit(self, write: LedgerWrite) -> None:
        self.ledger.commit(write)
        acting = self.ledger.acting()
        assert len(acting) <= 1, f"two changes act at once: {acting}"
        self.passed += [change.state for change in write.changes]

    def _check_shown(self, snapshot: NodeSnapshot) -> None:
        for change in snapshot.changes:
            durable = self.ledger.changes[change.name]
            assert [s.state for s in change.switches] == [s.state for s in durable.switches], "shown, but not durable"
        assert {claim.name: claim for claim in snapshot.claims} == self.ledger.claims, "claims shown, but not durable"
        broken = broken_promises(snapshot, self.policy.slots_per_partition)
        assert not broken, broken

    def _check_claim_answer(self, answer: fx.Answer) -> None:
        """An answered claim is the durable and shown one, or, when it was released, neither."""
        if isinstance(answer, Claim):
            shown = {claim.name: claim for claim in self.snapshot.claims}
            assert self.ledger.claims.get(answer.name) in (answer, None)
            assert shown.get(answer.name) == self.ledger.claims.get(answer.name) or not self.snapshot.ready
        elif isinstance(answer, HolderRecord):
            assert answer in self.ledger.holders.values()
            assert answer in self.snapshot.claim_holders or not self.snapshot.ready

    def _check_acting(self, effect: Acting) -> None:
        states = ACTING_STATES.get(type(effect))
        if states is None or (isinstance(effect, fx.Scan) and effect.token == 0):
            return
        acting = self.ledger.acting()
        assert len(acting) == 1, f"{effect} although no change is journaled as acting"
        (switch,) = acting
        assert switch.state in states, f"{effect} in journaled state {switch.state}"
        if isinstance(effect, (fx.Drain, fx.WriteMode)):
            assert effect.gpu == switch.step.gpu
        if isinstance(effect, fx.WriteMode):
            wanted = switch.step.before if switch.state is S.ROLLING_BACK else switch.step.after
            assert effect.mode in (wanted.compute, wanted.memory), f"{effect} for {switch.step}"


def desk(*modes: str, policy: Policy = POLICY, node: PaperNode | None = None) -> Desk:
    """A started desk over a node of MI300X in these modes, its first scan done."""
    made = Desk(node or PaperNode(*modes), policy)
    made.start()
    made.run()
    return made


def wish_of(made: Desk, number: int) -> PartitionMode | None:
    record = made.ledger.gpus.get(ADDRESSES[number])
    return record.wish if record is not None else None
