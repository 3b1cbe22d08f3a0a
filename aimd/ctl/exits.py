"""aimctl's exit codes for what only aimctl meets: answers of the daemon, plans and mode changes, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aimd import exits
from aimd.ctl.client import AnswerTimeoutError, ProblemError
from aimd.ctl.fields import flag, items, text
from aimd.errors import AimdError
from aimd.exits import Exit

BY_STATUS: dict[int, Exit] = {
    400: Exit.USAGE,
    403: Exit.DENIED,
    404: Exit.NOT_FOUND,
    408: Exit.TIMEOUT,
    409: Exit.CONFLICT,
    422: Exit.REFUSED,
    503: Exit.UNREACHABLE,
    504: Exit.TIMEOUT,
}

# Reasons of a refusal or of a failed change that may well succeed later; every other reason is a refusal.
BY_REASON: dict[str, Exit] = {
    "gpu_busy": Exit.CONFLICT,
    "gpu_in_use": Exit.CONFLICT,
    "gpu_in_reset": Exit.CONFLICT,
    "deadline_exceeded": Exit.CONFLICT,
}


def of_error(error: AimdError) -> Exit:
    """Exit code for an error; REFUSED for what the tables do not name."""
    if isinstance(error, ProblemError):
        code = BY_STATUS.get(error.status, Exit.REFUSED)
        if code is not Exit.REFUSED:
            return code
        return _of_refusals(error.refusals) if error.refusals else BY_REASON.get(error.code, code)
    return Exit.TIMEOUT if isinstance(error, AnswerTimeoutError) else exits.of_error(error)


def of_plan(plan: Mapping[str, Any]) -> Exit:
    """Exit code for a PlanMessage: whether it would be carried out."""
    refusals = items(plan, "refusals")
    return _of_refusals(refusals) if refusals else Exit.OK


def _of_refusals(refusals: list[dict[str, Any]]) -> Exit:
    """What is in use or busy may be free later: a conflict, if nothing else is refused."""
    codes = {BY_REASON.get(text(refusal, "reason"), Exit.REFUSED) for refusal in refusals}
    return codes.pop() if len(codes) == 1 else Exit.REFUSED


def of_change(change: Mapping[str, Any]) -> Exit:
    """Exit code for a ChangeMessage; one that has not ended has been accepted, which is OK.

    A failed change has one switch with the cause, the later ones fail with `earlier_step_failed`.
    """
    if not flag(change, "final") or text(change, "state") == "committed":
        return Exit.OK
    if text(change, "state") == "failed":
        for switch in items(change, "switches"):
            if text(switch, "reason") in BY_REASON:
                return BY_REASON[text(switch, "reason")]
    return Exit.REFUSED
