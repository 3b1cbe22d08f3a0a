"""A mode change as it is journaled: the steps of a plan and how far each has come."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from aimd.domain.modes import PartitionMode
from aimd.domain.plan import Reason, Step


class SwitchState(str, Enum):
    """Where one step stands; planning/switching.py has the transitions."""

    PLANNED = "planned"
    DRAINING = "draining"
    WAITING = "waiting_for_clients"
    SWITCHING = "switching"
    AWAITING_RELOAD = "awaiting_reload"
    RESCANNING = "rescanning"
    VERIFYING = "verifying"
    ROLLING_BACK = "rolling_back"
    COMMITTED = "committed"
    FAILED = "failed"
    NEEDS_OPERATOR = "needs_operator"

    __str__ = str.__str__


FINAL = frozenset({SwitchState.COMMITTED, SwitchState.FAILED, SwitchState.NEEDS_OPERATOR})
# Written, or maybe written: the partitions are about to be others, whatever the daemon that began this remembers.
BETWEEN = frozenset({SwitchState.SWITCHING, SwitchState.RESCANNING, SwitchState.VERIFYING, SwitchState.ROLLING_BACK})


@dataclass(frozen=True, slots=True)
class Switch:
    """One step under way.

    Attributes:
        attempts: writes refused with a retryable errno so far.
        deadline: CLOCK_MONOTONIC seconds of boot `ModeChange.boot_id`; None before the step has begun.
        reason, message: why it failed or waits, once known.
        began, ended: CLOCK_MONOTONIC seconds.
        write_seconds: time spent inside the driver's write, for comparison with the whole.
        generation: KFD's generation_id when a memory mode was requested; each driver load counts it anew.
    """

    step: Step
    state: SwitchState = SwitchState.PLANNED
    attempts: int = 0
    deadline: float | None = None
    reason: Reason | None = None
    message: str | None = None
    began: float | None = None
    ended: float | None = None
    write_seconds: float = 0.0
    generation: int | None = None

    @property
    def final(self) -> bool:
        return self.state in FINAL


@dataclass(frozen=True, slots=True)
class ModeChange:
    """A transaction that a client or the configured layout asked for.

    Attributes:
        name: chosen by the client; the same name with the same wishes is the same request.
        origin: "client", "claim" (it makes room for one) or "wish" (carried out later, when the GPU became idle).
        requester_uid: uid of the peer or of the claim's owner, None for the daemon itself.
        created_at: seconds since the epoch, for people.
        wait_seconds: budget of each step for draining, waiting and retrying.
    """

    name: str
    origin: str
    wishes: tuple[tuple[str, PartitionMode], ...]
    switches: tuple[Switch, ...]
    boot_id: str
    created_at: float
    wait_seconds: float
    requester_uid: int | None = None

    @property
    def current(self) -> int | None:
        """Index of the first switch that has not ended, or None."""
        return next((index for index, switch in enumerate(self.switches) if not switch.final), None)

    @property
    def state(self) -> SwitchState:
        """State of the whole: of the current switch, or of the worst ended one."""
        if self.current is not None:
            return self.switches[self.current].state
        for worst in (SwitchState.NEEDS_OPERATOR, SwitchState.FAILED):
            if any(switch.state is worst for switch in self.switches):
                return worst
        return SwitchState.COMMITTED

    @property
    def resting(self) -> bool:
        """Whether it has ended or waits for a driver load: it does not hold the node-wide lock."""
        return self.current is None or self.state is SwitchState.AWAITING_RELOAD

    @property
    def between(self) -> frozenset[str]:
        """GPUs whose partitions are between two modes."""
        index = self.current
        if index is None or self.switches[index].state not in BETWEEN:
            return frozenset()
        return frozenset(self.switches[index].step.gpus)

    def with_switch(self, index: int, switch: Switch) -> ModeChange:
        switches = (*self.switches[:index], switch, *self.switches[index + 1 :])
        return replace(self, switches=switches)
