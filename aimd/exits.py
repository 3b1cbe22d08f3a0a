"""Exit codes and error output of all commands: `aimd`, `aimd sim` and aimctl. Needs the standard library alone.

Scripts rely on the codes: they change with a major version only.
"""

from __future__ import annotations

from enum import IntEnum

from aimd.errors import (
    AimdError,
    ConflictError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    OverdueError,
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


BY_ERROR: tuple[tuple[type[AimdError], Exit], ...] = (
    (UnreachableError, Exit.UNREACHABLE),
    (DeniedError, Exit.DENIED),
    (NotFoundError, Exit.NOT_FOUND),
    (ConflictError, Exit.CONFLICT),
    (InvalidInputError, Exit.USAGE),
    (RefusedError, Exit.REFUSED),
    (OverdueError, Exit.TIMEOUT),
)


def of_error(error: AimdError) -> Exit:
    """Exit code for an error; REFUSED for what the table does not name."""
    return next((code for kind, code in BY_ERROR if isinstance(error, kind)), Exit.REFUSED)


def told(error: AimdError) -> str:
    """The error for stderr: `error:` with one sentence and, where there is something to do, `hint:` below it."""
    return f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else "")
