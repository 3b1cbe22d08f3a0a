"""The life of one switch as tables: state x event -> state, and errno -> event.

A pair that is not in a table is illegal: `advance` raises and changes nothing.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from enum import Enum

from aimd.domain.plan import Reason, StepKind
from aimd.domain.switch import FINAL, Switch, SwitchState


class SwitchEvent(str, Enum):
    """What can happen to a switch."""

    BEGIN = "begin"
    NOTHING_TO_DO = "nothing_to_do"
    ABANDONED = "abandoned"
    DRAINED = "drained"
    OCCUPIED = "occupied"
    CLEAR = "clear"
    WRITTEN = "written"
    BUSY = "busy"
    REFUSED = "refused"
    BROKEN = "broken"
    RELOADED = "reloaded"
    STABLE = "stable"
    UNSTABLE = "unstable"
    VERIFIED = "verified"
    UNCHANGED = "unchanged"
    MISMATCH = "mismatch"
    RESTORED = "restored"
    UNRESTORED = "unrestored"
    DEADLINE = "deadline"
    RESTARTED = "restarted"
    REBOOTED = "rebooted"

    __str__ = str.__str__


Table = dict[tuple[SwitchState, SwitchEvent], SwitchState]
_S, _E = SwitchState, SwitchEvent

COMPUTE: Table = {
    (_S.PLANNED, _E.BEGIN): _S.DRAINING,
    (_S.PLANNED, _E.NOTHING_TO_DO): _S.COMMITTED,
    (_S.PLANNED, _E.ABANDONED): _S.FAILED,
    (_S.PLANNED, _E.REFUSED): _S.FAILED,
    (_S.PLANNED, _E.RESTARTED): _S.PLANNED,
    (_S.PLANNED, _E.REBOOTED): _S.FAILED,
    (_S.DRAINING, _E.DRAINED): _S.WAITING,
    (_S.DRAINING, _E.DEADLINE): _S.FAILED,
    (_S.DRAINING, _E.RESTARTED): _S.DRAINING,
    (_S.DRAINING, _E.REBOOTED): _S.FAILED,
    (_S.WAITING, _E.OCCUPIED): _S.WAITING,
    (_S.WAITING, _E.CLEAR): _S.SWITCHING,
    (_S.WAITING, _E.DEADLINE): _S.FAILED,
    (_S.WAITING, _E.RESTARTED): _S.DRAINING,  # admission is memory of the daemon: close it again
    (_S.WAITING, _E.REBOOTED): _S.FAILED,
    (_S.SWITCHING, _E.WRITTEN): _S.RESCANNING,
    (_S.SWITCHING, _E.BUSY): _S.SWITCHING,
    (_S.SWITCHING, _E.REFUSED): _S.FAILED,
    (_S.SWITCHING, _E.BROKEN): _S.NEEDS_OPERATOR,
    (_S.SWITCHING, _E.DEADLINE): _S.FAILED,
    (_S.SWITCHING, _E.RESTARTED): _S.SWITCHING,  # writing the mode that is already current is a no-op in the driver
    (_S.SWITCHING, _E.REBOOTED): _S.FAILED,
    (_S.RESCANNING, _E.STABLE): _S.VERIFYING,
    (_S.RESCANNING, _E.UNSTABLE): _S.RESCANNING,
    (_S.RESCANNING, _E.DEADLINE): _S.ROLLING_BACK,
    (_S.RESCANNING, _E.RESTARTED): _S.RESCANNING,
    (_S.RESCANNING, _E.REBOOTED): _S.FAILED,
    (_S.VERIFYING, _E.VERIFIED): _S.COMMITTED,
    (_S.VERIFYING, _E.UNCHANGED): _S.FAILED,
    (_S.VERIFYING, _E.MISMATCH): _S.ROLLING_BACK,
    (_S.VERIFYING, _E.BROKEN): _S.NEEDS_OPERATOR,
    (_S.VERIFYING, _E.RESTARTED): _S.RESCANNING,
    (_S.VERIFYING, _E.REBOOTED): _S.FAILED,
    (_S.ROLLING_BACK, _E.WRITTEN): _S.ROLLING_BACK,
    (_S.ROLLING_BACK, _E.UNSTABLE): _S.ROLLING_BACK,
    (_S.ROLLING_BACK, _E.BUSY): _S.ROLLING_BACK,
    (_S.ROLLING_BACK, _E.RESTORED): _S.FAILED,
    (_S.ROLLING_BACK, _E.UNRESTORED): _S.NEEDS_OPERATOR,
    (_S.ROLLING_BACK, _E.REFUSED): _S.NEEDS_OPERATOR,
    (_S.ROLLING_BACK, _E.BROKEN): _S.NEEDS_OPERATOR,
    (_S.ROLLING_BACK, _E.DEADLINE): _S.NEEDS_OPERATOR,
    (_S.ROLLING_BACK, _E.RESTARTED): _S.ROLLING_BACK,
    (_S.ROLLING_BACK, _E.REBOOTED): _S.FAILED,
}

MEMORY: Table = {
    (_S.PLANNED, _E.BEGIN): _S.SWITCHING,  # the write only records a request: nobody has to leave for it
    (_S.PLANNED, _E.NOTHING_TO_DO): _S.COMMITTED,
    (_S.PLANNED, _E.ABANDONED): _S.FAILED,
    (_S.PLANNED, _E.REFUSED): _S.FAILED,
    (_S.PLANNED, _E.RESTARTED): _S.PLANNED,
    (_S.PLANNED, _E.REBOOTED): _S.FAILED,
    (_S.SWITCHING, _E.WRITTEN): _S.AWAITING_RELOAD,
    (_S.SWITCHING, _E.BUSY): _S.SWITCHING,
    (_S.SWITCHING, _E.REFUSED): _S.FAILED,
    (_S.SWITCHING, _E.BROKEN): _S.NEEDS_OPERATOR,
    (_S.SWITCHING, _E.DEADLINE): _S.FAILED,
    (_S.SWITCHING, _E.RESTARTED): _S.SWITCHING,
    (_S.SWITCHING, _E.REBOOTED): _S.RESCANNING,  # the write may have been done before the reboot: look
    (_S.AWAITING_RELOAD, _E.RELOADED): _S.RESCANNING,
    (_S.AWAITING_RELOAD, _E.RESTARTED): _S.AWAITING_RELOAD,
    (_S.AWAITING_RELOAD, _E.REBOOTED): _S.RESCANNING,
    (_S.RESCANNING, _E.STABLE): _S.VERIFYING,
    (_S.RESCANNING, _E.UNSTABLE): _S.RESCANNING,
    (_S.RESCANNING, _E.DEADLINE): _S.NEEDS_OPERATOR,
    (_S.RESCANNING, _E.RESTARTED): _S.RESCANNING,
    (_S.RESCANNING, _E.REBOOTED): _S.RESCANNING,
    (_S.VERIFYING, _E.VERIFIED): _S.COMMITTED,
    (_S.VERIFYING, _E.UNCHANGED): _S.FAILED,
    (_S.VERIFYING, _E.UNSTABLE): _S.RESCANNING,  # a GPU of the hive has left again
    (_S.VERIFYING, _E.MISMATCH): _S.NEEDS_OPERATOR,
    (_S.VERIFYING, _E.BROKEN): _S.NEEDS_OPERATOR,
    (_S.VERIFYING, _E.RESTARTED): _S.RESCANNING,
    (_S.VERIFYING, _E.REBOOTED): _S.RESCANNING,
}

TABLES = {StepKind.COMPUTE: COMPUTE, StepKind.MEMORY: MEMORY}


class IllegalTransitionError(Exception):
    """A state and an event that do not go together: a defect of the caller."""


def advance(
    switch: Switch, event: SwitchEvent, now: float, *, reason: Reason | None = None, message: str | None = None
) -> Switch:
    """The switch after the event; `now` is CLOCK_MONOTONIC seconds and is kept as its end when the state is final.

    Raises:
        IllegalTransitionError: the table of the step's kind has no such pair.
    """
    state = TABLES[switch.step.kind].get((switch.state, event))
    if state is None:
        raise IllegalTransitionError(f"{switch.step.kind} switch: {event} does not go with {switch.state}")
    return replace(
        switch,
        state=state,
        attempts=switch.attempts + (event is SwitchEvent.BUSY),
        reason=reason or switch.reason,
        message=message or switch.message,
        ended=now if state in FINAL else None,
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an errno of a mode write means: the event, the reason, and for people the fact and what to do about it."""

    event: SwitchEvent
    reason: Reason
    fact: str
    hint: str


RELOAD_DRIVER = "stop all users of the GPUs and reload the amdgpu driver (modprobe -r amdgpu && modprobe amdgpu)"

# Sources: hardware notes 1.3 (kernel functions per row). EACCES and EROFS come from open(2), all others from write(2).
ERRNO_OUTCOMES: dict[int, Outcome] = {
    errno.EBUSY: Outcome(
        _E.BUSY,
        Reason.GPU_BUSY,
        "the driver says the GPU is in use",
        "no process that is seen here holds it: one that has ended may not be released yet, or it is in another pid "
        "namespace",
    ),
    errno.EPERM: Outcome(
        _E.BUSY, Reason.GPU_IN_RESET, "the GPU is in reset", "the kernel log says why, and whether it ended"
    ),
    errno.EINTR: Outcome(_E.BUSY, Reason.GPU_BUSY, "the write was interrupted", "it is tried again until the deadline"),
    errno.EINVAL: Outcome(
        _E.REFUSED,
        Reason.MODE_NOT_AVAILABLE,
        "the driver does not accept this mode",
        "expected one that the GPU offers in its present memory mode, see aimctl describe gpu and the kernel log",
    ),
    errno.EACCES: Outcome(
        _E.REFUSED,
        Reason.NOT_PERMITTED,
        "the file may not be written",
        "run aimd as root or let its user write the file (group and udev rule); a file of mode 0444 cannot be written "
        "by anybody",
    ),
    errno.EROFS: Outcome(
        _E.REFUSED,
        Reason.NOT_PERMITTED,
        "sysfs is mounted read-only here",
        "run aimd where /sys is writable: a unit without ProtectKernelTunables=, a container with /sys mounted "
        "read-write",
    ),
    errno.EIO: Outcome(_E.BROKEN, Reason.DRIVER_FAILED, "the driver could not bring the GPU up again", RELOAD_DRIVER),
    errno.ENODEV: Outcome(
        _E.BROKEN,
        Reason.GPU_LOST,
        "the GPU is gone from the bus",
        "the kernel log says why; a reboot may bring it back",
    ),
    errno.ENOENT: Outcome(
        _E.BROKEN,
        Reason.GPU_LOST,
        "the file is gone, expected it where the amdgpu driver has the GPU",
        "the kernel log says why; " + RELOAD_DRIVER,
    ),
}


def outcome_of(code: int) -> Outcome:
    """Outcome of a mode write that failed with this errno; an unknown one is never retried blindly."""
    unexpected = Outcome(
        SwitchEvent.BROKEN, Reason.DRIVER_FAILED, "this is no error that a mode write is known to have", RELOAD_DRIVER
    )
    return ERRNO_OUTCOMES.get(code, unexpected)


def refused_write(gpu: str, kind: StepKind, code: int) -> str:
    """How a mode write that failed is told: object, errno and fact."""
    name = "current_memory_partition" if kind is StepKind.MEMORY else "current_compute_partition"
    return (
        f"GPU {gpu}: writing {name} failed with {errno.errorcode.get(code, f'errno {code}')}: {outcome_of(code).fact}"
    )


def retry_delay(attempts: int) -> float:
    """Seconds before the next write after `attempts` refused ones: 20 ms, doubled, at most 1 s."""
    return min(0.02 * 2.0 ** min(attempts, 10), 1.0)
