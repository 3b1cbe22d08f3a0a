"""The one exception tree of aimd. Leaves are told apart by what the caller can do, not by where they arose.

Every message names the object, the fact and what was expected; `hint` says what to do next, `code` is stable and
appears in API problems, in events and in aimctl's output.
"""

from __future__ import annotations


class AimdError(Exception):
    """Base of all errors that aimd raises on purpose.

    Attributes:
        code: stable identifier in snake_case.
        hint: one sentence that says what to do, or None.
    """

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class InvalidInputError(AimdError):
    """The request itself is wrong: correct it and send it again."""

    code = "invalid"


class ConfigError(InvalidInputError):
    """aimd.toml cannot be read or does not say what it may say."""

    code = "config_invalid"


class NotFoundError(AimdError):
    """The named object does not exist."""

    code = "not_found"


class GoneError(AimdError):
    """It was there and is no longer kept: ask for the present state and go on from it."""

    code = "gone"


class RefusedError(AimdError):
    """Understood, and decided no; `code` is a Reason."""

    code = "refused"


class ConflictError(AimdError):
    """Not now: something else is under way or holds the object. Trying later can succeed."""

    code = "conflict"


class DeniedError(AimdError):
    """The caller may not do this."""

    code = "denied"


class UnauthenticatedError(DeniedError):
    """The other end does not know (any more) who asks: newer credentials can help."""

    code = "unauthenticated"


class UnreachableError(AimdError):
    """Nobody answers at the other end (daemon, simulated node, API server), or not as agreed."""

    code = "unreachable"


class ThrottledError(UnreachableError):
    """The other end has too much to do.

    Attributes:
        retry_after_seconds: how long it wants to be left alone, 0 if it does not say.
    """

    code = "throttled"

    def __init__(self, message: str, *, retry_after_seconds: float = 0.0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class OverdueError(AimdError):
    """What was waited for had not come when the time was over; it may come later."""

    code = "overdue"


class UnstableError(AimdError):
    """The topology kept moving while it was read; the next scan will do."""

    code = "topology_unstable"


class LedgerError(AimdError):
    """The ledger could not be read or written."""

    code = "ledger"


class DriverError(AimdError):
    """A file of the GPU driver could not be read or written.

    Attributes:
        errno: the errno of the system call, untranslated.
        path: the file, relative to the sysfs root.
    """

    code = "driver"

    def __init__(self, message: str, *, errno: int, path: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno
        self.path = path


class CdiError(AimdError):
    """A file for the container runtime could not be written or removed: room or rights are missing."""

    code = "cdi"
