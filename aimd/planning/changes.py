"""The node's mode changes: which one runs, what each result means for it, and what is journaled of it.

One runs at a time (node-wide lock). One that rests (it waits for a driver load) does not hold the lock. What is shown of
the node meanwhile, and what claims do about it, is decided in reconcile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from aimd.domain.claim import Claim
from aimd.domain.event import NodeEvent
from aimd.domain.gpu import Holder
from aimd.domain.ledger import LedgerWrite
from aimd.domain.modes import PartitionMode
from aimd.domain.plan import Plan, Reason
from aimd.domain.switch import ModeChange, Switch, SwitchState
from aimd.errors import AimdError, ConflictError
from aimd.planning import effects as fx
from aimd.planning.node_state import NodeState
from aimd.planning.notes import under_way
from aimd.planning.policy import Policy
from aimd.planning.restart import abandon_rest, goes_on, reopened
from aimd.planning.transaction import Reached, Transaction
from aimd.planning.underway import NOTHING_UNDER_WAY, UnderWay
from aimd.planning.wishes import OpenWishes, kept_wishes, left_meanwhile

Effects = tuple[fx.Effect, ...]
Modes = Iterable[tuple[str, PartitionMode]]  # by PCI address


class Changes:
    """Mode changes over what is known of the node.

    Args:
        policy: settings; replaced when they are.
        node: keeps the changes, records and observation.
        wishes: are opened for GPUs that a change has left without theirs.
        boot_id: of the machine, now.
    """

    def __init__(self, policy: Policy, node: NodeState, wishes: OpenWishes, boot_id: str) -> None:
        self.policy = policy
        self._node = node
        self._wishes = wishes
        self._boot_id = boot_id
        self._to_resume: set[str] = set()
        self._transaction: Transaction | None = None
        self._token = 0

    # -- what runs -------------------------------------------------------------------------------------------

    @property
    def active(self) -> ModeChange | None:
        """The one that holds the lock."""
        return self._transaction.change if self._transaction is not None else None

    @property
    def under_way(self) -> UnderWay:
        return UnderWay.of(self._transaction.change) if self._transaction is not None else NOTHING_UNDER_WAY

    @property
    def hidden(self) -> frozenset[str]:
        """GPUs that are shown as they were until the switch has ended."""
        return self._transaction.change.between if self._transaction is not None else frozenset()

    @property
    def gpu(self) -> str | None:
        """PCI address of the GPU whose switch is under way."""
        return self._transaction.gpu if self._transaction is not None else None

    def awaits(self, token: int) -> bool:
        """Whether a result with this token is of the present step."""
        return self._transaction is not None and token == self._token

    # -- start -----------------------------------------------------------------------------------------------

    def started(self, changes: Iterable[ModeChange], now: fx.Instant, *, rebooted: bool) -> LedgerWrite:
        """Take over those of an earlier daemon; unfinished ones are reopened. Gives what of it is to be journaled."""
        node = self._node
        touched: list[ModeChange] = []
        wished = {}
        for change in changes:
            node.changes[change.name] = change
            if change.current is not None:
                touched.append(reopened(change, self._boot_id, now, self.policy, rebooted=rebooted))
                node.changes[change.name] = touched[-1]
                kept = {record.address: record for record in kept_wishes(touched[-1], node.records)}
                wished.update(kept)
                node.records.update(kept)
        return LedgerWrite(tuple(touched), tuple(wished.values()))

    # -- a new one -------------------------------------------------------------------------------------------

    def answer(self, name: str, wishes: tuple[tuple[str, PartitionMode], ...]) -> ModeChange | AimdError | None:
        """What a request for a change is answered without planning: it is known, or it cannot begin now."""
        known = self._node.changes.get(name)
        if known is None:
            return under_way(self._transaction.change) if self._transaction is not None else None
        if known.wishes == wishes:
            return known
        return ConflictError(
            f"plan {name} exists and asks for something else", code="name_taken", hint="choose another name"
        )

    def new(
        self, name: str, origin: str, wishes: Modes, planned: Plan, now: fx.Instant, uid: int | None = None
    ) -> ModeChange:
        """The change that carries the plan out; `uid` of who asked for it. It has to be kept, then begun."""
        switches = tuple(Switch(step) for step in planned.steps)
        budget = self.policy.wait_seconds
        return ModeChange(name, origin, tuple(wishes), switches, self._boot_id, now.wall, budget, uid)

    def keep(
        self, change: ModeChange, now: fx.Instant, kind: str, words: str, claims: tuple[Claim, ...] = ()
    ) -> Effects:
        """Remember and journal the change; one that has ended well also makes its modes the GPUs' wish."""
        self._node.keep(change)
        records = kept_wishes(change, self._node.records)
        self._node.records.update({record.address: record for record in records})
        self._wishes.open(left_meanwhile(change, records, self._node.observed))
        events = (NodeEvent(kind, change.name, words, now.wall),)
        return (fx.Commit(LedgerWrite(changes=(change,), gpus=records, events=events, claims=claims)),)

    # -- on its way ------------------------------------------------------------------------------------------

    def resumable(self) -> ModeChange | None:
        """The unfinished one that can go on now; those that rest come last."""
        for change in sorted(
            self._node.changes.values(), key=lambda change: change.state is SwitchState.AWAITING_RELOAD
        ):
            if change.current is not None and (change.name in self._to_resume or goes_on(change, self._node.observed)):
                self._to_resume.discard(change.name)
                return change
        return None

    def driver_loaded(self) -> None:
        """The driver was loaded: every unfinished change goes on."""
        self._to_resume |= {change.name for change in self._node.changes.values() if change.current is not None}

    def begin(self, change: ModeChange, now: fx.Instant) -> Reached:
        """Run the unfinished change from where it stands."""
        self._token += 1
        budgets = self.policy.settle_seconds, self.policy.reload_seconds
        self._transaction = Transaction(change, self._token, *budgets)
        return self._transaction.resume(self._node.observed, now)

    def handled(self, event: fx.Event, registered: tuple[Holder, ...], now: fx.Instant) -> Reached:
        """The consequence of a result of the present step; `registered` are processes of claims on its GPU."""
        transaction = self._transaction
        assert transaction is not None
        transaction.registered = registered
        if isinstance(event, fx.HoldersSeen) and event.holders is not None:
            self._node.amend(replace(self._node.observed, holders=event.holders))
        return transaction.handle(event, self._node.observed, now)

    def progress(self, reached: Reached, now: fx.Instant) -> tuple[ModeChange, Effects]:
        """Remember how far the running change has come, and give the lock back when it rests.

        Gives the change as it stands and what is to be journaled of it.
        """
        change, _, event = reached
        transaction = self._transaction
        assert transaction is not None
        if transaction.learned_rule is not None:
            self._node.amend(replace(self._node.observed, busy_rule=transaction.learned_rule))
        change = abandon_rest(change, now)
        self._token = transaction.token
        journal = self.keep(change, now, event.kind, event.message) if event is not None else ()
        self._node.changes[change.name] = change
        if change.resting:
            self._transaction = None
            failed = [s for s in change.switches if s.final and s.state is not SwitchState.COMMITTED]
            own = [switch for switch in failed if switch.reason is not Reason.EARLIER_STEP_FAILED]
            self._wishes.failed({gpu for switch in own for gpu in switch.step.gpus}, now.monotonic)
        return change, journal
