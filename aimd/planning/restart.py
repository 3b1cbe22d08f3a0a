"""What becomes of an interrupted or parked mode change, and of the steps after one that did not succeed."""

from __future__ import annotations

from dataclasses import replace

from aimd.domain.gpu import Observed
from aimd.domain.plan import Reason, StepKind
from aimd.domain.switch import ModeChange, SwitchState
from aimd.planning.effects import Instant
from aimd.planning.policy import Policy
from aimd.planning.switching import SwitchEvent, advance
from aimd.planning.verify import verify


def reopened(change: ModeChange, boot_id: str, now: Instant, policy: Policy, *, rebooted: bool) -> ModeChange:
    """The unfinished change as it goes on after the daemon, or the machine, was started again."""
    index = change.current
    assert index is not None
    happened = SwitchEvent.REBOOTED if rebooted else SwitchEvent.RESTARTED
    reason = Reason.INTERRUPTED_BY_REBOOT if rebooted else None
    words = "the machine was rebooted; the driver has chosen the compute mode anew" if rebooted else None
    switch = advance(change.switches[index], happened, now.monotonic, reason=reason, message=words)
    if not switch.final:
        loading = switch.step.kind is StepKind.MEMORY and switch.state is SwitchState.RESCANNING
        budget = policy.reload_seconds if loading else change.wait_seconds
        switch = replace(switch, deadline=now.monotonic + budget)
        # A roll back has to end with the reason it is made for, and a reload is still what is waited for.
        if switch.state not in (SwitchState.ROLLING_BACK, SwitchState.AWAITING_RELOAD):
            switch = replace(switch, reason=None, message=None)
    return abandon_rest(replace(change.with_switch(index, switch), boot_id=boot_id), now)


def goes_on(change: ModeChange, observed: Observed) -> bool:
    """Whether the change needs no driver load any more: it never did, or its memory mode is there already."""
    if change.state is not SwitchState.AWAITING_RELOAD:
        return True
    assert change.current is not None
    return verify(change.switches[change.current].step, observed) is SwitchEvent.VERIFIED


def abandon_rest(change: ModeChange, now: Instant) -> ModeChange:
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
