"""One mode change under way: what each result means for the switch it stands at, and what to do next.

Each answer is (change, actions, note): with a note, the change is journaled before the actions run; without one,
nothing durable has changed (a retry).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aimd.domain.event import NodeEvent
from aimd.domain.gpu import BusyRule, Holder, Observed
from aimd.domain.plan import Reason, StepKind
from aimd.domain.switch import ModeChange, Switch, SwitchState
from aimd.planning import effects as fx
from aimd.planning.switching import RELOAD_DRIVER, SwitchEvent, advance, outcome_of, refused_write, retry_delay
from aimd.planning.verify import absent_members, in_mode, verify

Reached = tuple[ModeChange, tuple[fx.Effect, ...], NodeEvent | None]

HOLDER_POLL_SECONDS = 0.1
SCAN_RETRY_SECONDS = 0.1
LOAD_POLL_SECONDS = 0.25
FAILED_EFFECT_SECONDS = 0.5


class Transaction:
    """The change that holds the node-wide lock.

    Attributes:
        token: what results of the present step carry.
        learned_rule: set when an EBUSY has shown that the driver's rule is node-wide.
        registered: processes of claims with a place on the current GPU; they are waited for like KFD clients.
    """

    def __init__(self, change: ModeChange, token: int, settle_seconds: float, reload_seconds: float) -> None:
        self.change = change
        self.token = token
        self.learned_rule: BusyRule | None = None
        self._settle_seconds = settle_seconds
        self._reload_seconds = reload_seconds
        self.registered: tuple[Holder, ...] = ()
        self._refused: int | None = None  # errno of the last write that can be tried again
        self._wrote_back = False
        self._table: dict[tuple[SwitchState, type], Callable[[Any, Observed, fx.Instant], Reached]] = {
            (SwitchState.DRAINING, fx.Drained): self._drained,
            (SwitchState.WAITING, fx.HoldersSeen): self._holders_while_waiting,
            (SwitchState.SWITCHING, fx.WriteEnded): self._written,
            (SwitchState.SWITCHING, fx.HoldersSeen): self._holders_after_refusal,
            (SwitchState.RESCANNING, fx.Scanned): self._rescanned,
            (SwitchState.VERIFYING, fx.Woken): self._verified,
            (SwitchState.ROLLING_BACK, fx.WriteEnded): self._written,
            (SwitchState.ROLLING_BACK, fx.HoldersSeen): self._holders_after_refusal,
            (SwitchState.ROLLING_BACK, fx.Scanned): self._rolled_back,
        }

    @property
    def gpu(self) -> str:
        """PCI address of the GPU whose switch is under way."""
        return self._switch.step.gpu

    @property
    def _index(self) -> int:
        index = self.change.current
        assert index is not None
        return index

    @property
    def _switch(self) -> Switch:
        return self.change.switches[self._index]

    def resume(self, observed: Observed, now: fx.Instant) -> Reached:
        """Begin the current switch, or go on with one that was interrupted or waited for a driver load."""
        if self._switch.state is SwitchState.PLANNED:
            return self._begin(observed, now)
        if self._switch.state is SwitchState.AWAITING_RELOAD:
            return self._step(SwitchEvent.RELOADED, now, budget=self._reload_seconds)
        return self.change, self._actions(), None

    def handle(self, event: fx.Event, observed: Observed | None, now: fx.Instant) -> Reached:
        """The consequence of a result that carries the present token."""
        assert observed is not None
        if isinstance(event, fx.EffectFailed):
            return self._effect_failed(event, now)
        handler = self._table.get((self._switch.state, type(event)))
        if handler is not None:
            return handler(event, observed, now)
        return self.change, self._actions() if isinstance(event, fx.Woken) else (), None

    # -- results ---------------------------------------------------------------------------------------------

    def _begin(self, observed: Observed, now: fx.Instant) -> Reached:
        switch = self._switch
        step = switch.step
        if step.kind is StepKind.COMPUTE:
            gpu = observed.gpu(step.gpu)
            if gpu is not None and in_mode(gpu, step.after.compute):
                return self._step(SwitchEvent.NOTHING_TO_DO, now, observed=observed)
            if gpu is None or gpu.compute_mode is None:
                words = f"GPU {step.gpu} is gone or its mode cannot be read"
                return self._step(SwitchEvent.REFUSED, now, Reason.GPU_LOST, words)
            step = replace(step, before=gpu.mode)
        self._keep(replace(switch, step=step, began=now.monotonic))
        return self._step(SwitchEvent.BEGIN, now, budget=self.change.wait_seconds)

    def _drained(self, event: fx.Drained, _observed: Observed, now: fx.Instant) -> Reached:
        if event.left:
            words = f"requests are still running on GPU {self._switch.step.gpu}, of {_names(list(event.left))}"
            return self._step(SwitchEvent.DEADLINE, now, Reason.GPU_BUSY, words)
        return self._step(SwitchEvent.DRAINED, now)

    def _holders_while_waiting(self, event: fx.HoldersSeen, observed: Observed, now: fx.Instant) -> Reached:
        rule = self.learned_rule or observed.busy_rule
        step = self._switch.step
        if event.holders is None:
            if self._late(now):
                return self._step(SwitchEvent.DEADLINE, now, Reason.DEADLINE_EXCEEDED, event.failure)
            return self._retry(SwitchEvent.OCCUPIED, now, Reason.GPU_BUSY, event.failure, HOLDER_POLL_SECONDS)
        in_the_way = [h for h in event.holders if step.gpu in h.gpus or rule is BusyRule.NODE_WIDE]
        seen = {holder.pid for holder in in_the_way}
        in_the_way += [holder for holder in self.registered if holder.pid not in seen]
        if not in_the_way:
            return self._step(SwitchEvent.CLEAR, now)
        words = f"GPU {step.gpu} is in use by {_names(in_the_way)}"
        if rule is BusyRule.NODE_WIDE and not any(step.gpu in holder.gpus for holder in in_the_way):
            words += "; this driver switches no GPU while any process of the node uses one"
        if self._late(now):
            return self._step(SwitchEvent.DEADLINE, now, Reason.GPU_BUSY, words)
        return self._retry(SwitchEvent.OCCUPIED, now, Reason.GPU_BUSY, words, HOLDER_POLL_SECONDS)

    def _written(self, event: fx.WriteEnded, observed: Observed, now: fx.Instant) -> Reached:
        self._keep(replace(self._switch, write_seconds=self._switch.write_seconds + event.seconds))
        if event.errno == 0:
            self._wrote_back = self._switch.state is SwitchState.ROLLING_BACK
            words = None
            if self._switch.step.kind is StepKind.MEMORY:
                words = self._reload_wanted()
                self._keep(replace(self._switch, generation=observed.topology_generation))
            return self._step(SwitchEvent.WRITTEN, now, words=words, budget=self._settle_seconds)
        outcome = outcome_of(event.errno)
        if outcome.event is SwitchEvent.BUSY:
            self._refused = event.errno
            return self.change, (fx.ListHolders(self.token),), None
        words = refused_write(self._switch.step.gpu, self._switch.step.kind, event.errno)
        return self._step(outcome.event, now, outcome.reason, f"{words}; {outcome.hint}")

    def _reload_wanted(self) -> str:
        memory = self._switch.step.after.memory
        return f"{memory} is requested, the driver applies it when it is loaded again: {RELOAD_DRIVER}"

    def _holders_after_refusal(self, event: fx.HoldersSeen, observed: Observed, now: fx.Instant) -> Reached:
        """Name who is in the way of a write that was refused, learn the driver's rule from it, and try again.

        Of a driver whose files show the per-GPU rule nothing is learned: its holder may have left meanwhile.
        """
        if self._refused is None:
            return self.change, self._actions(), None
        refused, gpu = outcome_of(self._refused), self._switch.step.gpu
        holders = list(event.holders or ())
        own = [holder for holder in holders if gpu in holder.gpus]
        words = refused_write(gpu, self._switch.step.kind, self._refused)
        if own:
            words += f" by {_names(own)}"
        elif event.failure is not None:
            words += f", by whom is unknown: {event.failure}"
        elif holders and refused.reason is Reason.GPU_BUSY and observed.busy_rule is not BusyRule.PER_GPU:
            self.learned_rule = BusyRule.NODE_WIDE
            words += f", the driver's rule is node-wide, by {_names(holders)} on other GPUs"
        else:
            words += f"; {refused.hint}"
        if self._late(now):
            return self._step(SwitchEvent.DEADLINE, now, refused.reason, words)
        delay = retry_delay(self._switch.attempts)
        return self._retry(SwitchEvent.BUSY, now, refused.reason, words, delay)

    def _rescanned(self, event: fx.Scanned, observed: Observed, now: fx.Instant) -> Reached:
        if self._switch.step.kind is StepKind.MEMORY:
            return self._reloaded(event, observed, now)
        if event.observed is not None:
            return self._step(SwitchEvent.STABLE, now)
        words = f"the node could not be scanned: {event.failure}"
        if self._late(now):
            return self._step(SwitchEvent.DEADLINE, now, Reason.DEADLINE_EXCEEDED, words, budget=self._settle_seconds)
        return self._retry(SwitchEvent.UNSTABLE, now, Reason.DEADLINE_EXCEEDED, words, SCAN_RETRY_SECONDS)

    def _reloaded(self, event: fx.Scanned, observed: Observed, now: fx.Instant) -> Reached:
        """A driver load is complete when every GPU of the hive is there with partitions: they come one by one."""
        absent = absent_members(self._switch.step, observed)
        if event.observed is not None and not absent:
            return self._step(SwitchEvent.STABLE, now)
        words = f"the driver load is not complete: no partitions of {', '.join(f'GPU {gpu}' for gpu in absent)} yet"
        reason = Reason.DRIVER_FAILED
        if event.observed is None:
            reason, words = Reason.DEADLINE_EXCEEDED, f"the node could not be scanned: {event.failure}"
        if self._late(now):
            words += f"; waited {self._reload_seconds:g} s, {RELOAD_DRIVER}"
            return self._step(SwitchEvent.DEADLINE, now, reason, words)
        return self._retry(SwitchEvent.UNSTABLE, now, reason, words, LOAD_POLL_SECONDS)

    def _verified(self, _event: fx.Woken, observed: Observed, now: fx.Instant) -> Reached:
        step = self._switch.step
        verdict = verify(step, observed)
        if verdict is SwitchEvent.UNSTABLE:
            return self._step(verdict, now)
        if verdict is SwitchEvent.VERIFIED:
            return self._step(verdict, now, observed=observed)
        gpu = observed.gpu(step.gpu)
        shown = f"it shows {len(gpu.partitions)} partitions in {gpu.mode}" if gpu is not None else "it is gone"
        reason, words = {
            SwitchEvent.UNCHANGED: (Reason.NO_EFFECT, f"GPU {step.gpu}: the write succeeded without effect, {shown}"),
            SwitchEvent.MISMATCH: (
                Reason.FIRMWARE_REFUSED,
                f"GPU {step.gpu}: the driver reported success, but {shown} instead of {step.after}",
            ),
            SwitchEvent.BROKEN: (
                Reason.DRIVER_FAILED,
                f"GPU {step.gpu}: after the write KFD shows no partition of it; {RELOAD_DRIVER} or reboot",
            ),
        }[verdict]
        if step.kind is StepKind.MEMORY and verdict is SwitchEvent.UNCHANGED:
            reason = Reason.FIRMWARE_REFUSED
            words = f"GPU {step.gpu}: the driver was loaded again, but the memory mode is still {step.before.memory}"
        return self._step(verdict, now, reason, words, budget=self._settle_seconds)

    def _rolled_back(self, event: fx.Scanned, observed: Observed, now: fx.Instant) -> Reached:
        step = self._switch.step
        if event.observed is None:
            if self._late(now):
                return self._step(SwitchEvent.DEADLINE, now, Reason.ROLLBACK_FAILED, event.failure)
            return self._retry(SwitchEvent.UNSTABLE, now, Reason.ROLLBACK_FAILED, event.failure, SCAN_RETRY_SECONDS)
        gpu = observed.gpu(step.gpu)
        if gpu is not None and in_mode(gpu, step.before.compute) and gpu.consistent:
            told = [*([self._switch.message] if self._switch.message else []), f"rolled back to {step.before}"]
            return self._step(SwitchEvent.RESTORED, now, words="; ".join(told))
        shown = f"is in {gpu.mode} with {len(gpu.partitions)} partitions" if gpu is not None else "is gone"
        return self._step(SwitchEvent.UNRESTORED, now, Reason.ROLLBACK_FAILED, f"it {shown}")

    def _effect_failed(self, event: fx.EffectFailed, now: fx.Instant) -> Reached:
        """Do it again after a while, as long as there is time: a write that was done is a no-op the second time."""
        if self._late(now):
            return self._step(SwitchEvent.DEADLINE, now, Reason.DRIVER_FAILED, event.message)
        self._keep(replace(self._switch, message=event.message))
        return self.change, (fx.Wake(self.token, FAILED_EFFECT_SECONDS),), None

    # -- steps -----------------------------------------------------------------------------------------------

    def _late(self, now: fx.Instant) -> bool:
        deadline = self._switch.deadline
        return deadline is not None and now.monotonic >= deadline

    def _keep(self, switch: Switch) -> None:
        self.change = self.change.with_switch(self._index, switch)

    def _retry(self, event: SwitchEvent, now: fx.Instant, reason: Reason, words: str | None, seconds: float) -> Reached:
        """Stay in the state and come back to it; nothing durable changes. A roll back keeps saying why it is made."""
        told = (None, None) if self._switch.state is SwitchState.ROLLING_BACK else (reason, words)
        self._keep(advance(self._switch, event, now.monotonic, reason=told[0], message=told[1]))
        return self.change, (fx.Wake(self.token, seconds),), None

    def _step(
        self,
        event: SwitchEvent,
        now: fx.Instant,
        reason: Reason | None = None,
        words: str | None = None,
        *,
        budget: float | None = None,
        observed: Observed | None = None,
    ) -> Reached:
        """Go to the next state, with a new time budget if one is given; after a commit the next switch begins."""
        index = self._index
        if self._switch.state is SwitchState.ROLLING_BACK and reason is not None:
            gpu, before, cause = self._switch.step.gpu, self._switch.step.before, self._switch.message
            reason, words = Reason.ROLLBACK_FAILED, f"GPU {gpu} could not be brought back to {before}: {words}; {cause}"
        switch = advance(self._switch, event, now.monotonic, reason=reason, message=words)
        if budget is not None:
            switch = replace(switch, deadline=now.monotonic + budget)
        if reason is None and switch.state is not SwitchState.ROLLING_BACK and event is not SwitchEvent.RESTORED:
            switch = replace(switch, reason=None, message=words)  # what it waited for is past
        self.token += 1
        self.change = self.change.with_switch(index, switch)
        note = NodeEvent(f"switch_{switch.state}", self.change.name, _story(switch), now.wall)
        if not switch.final:
            return self.change, self._actions(), note
        undrain = fx.Undrain(switch.step.gpu)
        if switch.state is SwitchState.COMMITTED and self.change.current is not None and observed is not None:
            _, actions, _ = self._begin(observed, now)
            return self.change, (undrain, *actions), note
        return self.change, (undrain,), note

    def _actions(self) -> tuple[fx.Effect, ...]:
        """What the present state asks to be done."""
        switch, token = self._switch, self.token
        step = switch.step
        memory = step.kind is StepKind.MEMORY
        target = step.after.memory if memory else step.after.compute
        before = step.before.compute
        table: dict[SwitchState, tuple[fx.Effect, ...]] = {
            SwitchState.DRAINING: (fx.Drain(token, step.gpu, switch.deadline or 0.0),),
            SwitchState.WAITING: (fx.ListHolders(token),),
            SwitchState.SWITCHING: (fx.WriteMode(token, step.gpu, target),) if target is not None else (),
            SwitchState.RESCANNING: (fx.Scan(token),),
            SwitchState.VERIFYING: (fx.Wake(token, 0.0),),
            SwitchState.ROLLING_BACK: (fx.WriteMode(token, step.gpu, before),) if before is not None else (),
        }
        if switch.state is SwitchState.ROLLING_BACK and self._wrote_back:
            return (fx.Scan(token),)
        return table.get(switch.state, ())


def _names(holders: list[Holder]) -> str:
    return ", ".join(f"pid {holder.pid} ({holder.command or 'exited, not released yet'})" for holder in holders)


def _story(switch: Switch) -> str:
    step = switch.step
    told = f": {switch.message}" if switch.message else ""
    return f"{', '.join(step.gpus)}: {step.before} -> {step.after} is {switch.state}{told}"
