"""aimctl's exit codes, as tables. Scripts rely on them: they change with a major version only."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from aimd.ctl.client import AnswerTimeoutError, ProblemError
from aimd.ctl.fields import flag, items, text
from aimd.errors import (
    AimdError,
    ConflictError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)


class Exit(IntEnum):
    """What a script can tell from the exit code; the last two are those a shell shows for SIGINT and SIGPIPE."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3
    DENIED = 4
    CONFLICT = 5
    NOT_FOUND = 6
    TIMEOUT = 7
    INTERRUPTED = 130
    PIPE_CLOSED = 141


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

BY_ERROR: tuple[tuple[type[AimdError], Exit], ...] = (
    (AnswerTimeoutError, Exit.TIMEOUT),
    (UnreachableError, Exit.UNREACHABLE),
    (DeniedError, Exit.DENIED),
    (NotFoundError, Exit.NOT_FOUND),
    (ConflictError, Exit.CONFLICT),
    (InvalidInputError, Exit.USAGE),
    (RefusedError, Exit.REFUSED),
)

# Reasons of a failed change that may well succeed later; every other reason is a refusal.
BY_REASON: dict[str, Exit] = {
    "gpu_busy": Exit.CONFLICT,
    "gpu_in_reset": Exit.CONFLICT,
    "deadline_exceeded": Exit.CONFLICT,
}


def of_error(error: AimdError) -> Exit:
    """Exit code for an error; REFUSED for what the tables do not name."""
    if isinstance(error, ProblemError):
        return BY_STATUS.get(error.status, Exit.REFUSED)
    return next((code for kind, code in BY_ERROR if isinstance(error, kind)), Exit.REFUSED)


def of_plan(plan: Mapping[str, Any]) -> Exit:
    """Exit code for a PlanMessage: whether it would be carried out."""
    return Exit.REFUSED if items(plan, "refusals") else Exit.OK


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
