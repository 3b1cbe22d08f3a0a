"""What follows when a write has failed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from aimd.adapters.kube.answers import wants_credentials
from aimd.adapters.kube.patience import Patience, pause
from aimd.errors import (
    AimdError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    ThrottledError,
    UnreachableError,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How to go on.

    Attributes:
        again: it is to be tried again.
        seconds: to wait before.
        everyone: it is the server's state and not this work's: nothing else is tried before either.
        reload: credentials have to be read again.
    """

    again: bool
    seconds: float = 0.0
    everyone: bool = False
    reload: bool = False


def verdict(error: AimdError, failures: int, chance: float, patience: Patience) -> Verdict:
    """Of a failed attempt.

    Args:
        failures: in a row before this one: of the server's where it is its state, else of this work's.
        chance: in [0, 1], for the pause.
    """
    if isinstance(error, NotFoundError | InvalidInputError):
        return Verdict(again=False)
    if isinstance(error, ConflictError):
        return Verdict(again=True, seconds=pause(patience.conflict, patience.longest, failures, chance))
    seconds = pause(patience.first, patience.longest, failures, chance)
    if isinstance(error, ThrottledError):
        return Verdict(again=True, seconds=seconds + min(error.retry_after_seconds, patience.obeyed), everyone=True)
    if wants_credentials(error):
        return Verdict(again=True, seconds=seconds, everyone=True, reload=True)
    return Verdict(again=True, seconds=seconds, everyone=isinstance(error, UnreachableError))
