"""What a list and the events of a watch make of what is known, and what follows when a watch ends. Pure.

Versions of one resource are numbers that grow with each change (KEP-5504), so that an event which is not newer than
all before it is late or told twice, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from aimd.adapters.kube.answers import status_failure, wants_credentials
from aimd.adapters.kube.patience import Patience, pause
from aimd.errors import AimdError, GoneError, NotFoundError, ThrottledError, UnauthenticatedError, UnreachableError

Object = Mapping[str, Any]
T = TypeVar("T")
WATCH_ERROR = "watch_error"
GARBLED = "garbled"
ENDED = "ended"  # reason of a watch that the API server has ended in its time


@dataclass(frozen=True)
class Known(Generic[T]):
    """What is there, as of a version of the resource.

    Attributes:
        version: where a watch goes on.
        things: what `translate` made of each object, by its UID; never changed, only replaced.
    """

    version: str
    things: Mapping[str, T] = field(default_factory=dict)


def listed(answer: Any, translate: Callable[[Object], T]) -> Known[T]:
    """What a list says. UnreachableError (garbled) if it is none."""
    try:
        version = answer["metadata"]["resourceVersion"]
        things = {item["metadata"]["uid"]: translate(item) for item in answer["items"] or ()}
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UnreachableError(f"a list is not as agreed ({error!r})", code=GARBLED) from error
    if not isinstance(version, str) or version in ("", "0"):
        raise UnreachableError(f"a list is of version {version!r}, expected a number above 0", code=GARBLED)
    return Known(version, things)


def applied(known: Known[T], event: Any, translate: Callable[[Object], T]) -> Known[T]:
    """What is known after an event of the watch; the same object if the event is no news.

    Raises:
        GoneError: the watch cannot go on from its version.
        AimdError: another ERROR event, as answers.status_failure sees it, UnreachableError (watch_error) for most.
        UnreachableError: garbled; it may have been an event of any kind.
    """
    try:
        kind, item = event["type"], event["object"]
        if kind == "ERROR":
            raise _told(item)
        version, uid = item["metadata"]["resourceVersion"], item["metadata"].get("uid")
        if not newer(version, known.version):
            return known
        if kind == "BOOKMARK":
            return Known(version, known.things)
        if kind == "DELETED":
            return Known(version, {key: thing for key, thing in known.things.items() if key != uid})
        if kind in ("ADDED", "MODIFIED"):
            return Known(version, {**known.things, item["metadata"]["uid"]: translate(item)})
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UnreachableError(f"an event is not as agreed ({error!r})", code=GARBLED) from error
    raise UnreachableError(f"an event is {kind!r}, expected ADDED, MODIFIED, DELETED, BOOKMARK or ERROR", code=GARBLED)


def newer(version: str, than: str) -> bool:
    """Whether a version is of a later change; ValueError if one is no number."""
    return int(version) > int(than)


def _told(status: Object) -> AimdError:
    error = status_failure("watch", status, int(status.get("code") or 0))
    if isinstance(error, GoneError | ThrottledError | UnauthenticatedError):
        return error
    return UnreachableError(error.message, code=WATCH_ERROR)


@dataclass(frozen=True, slots=True)
class Restart:
    """How to go on when a watch has ended.

    Attributes:
        reason: a word, for metrics.
        relist: what is known cannot be continued.
        reload: credentials have to be read again.
        seconds: to wait before.
        failures: in a row, this one included.
    """

    reason: str
    relist: bool
    reload: bool
    seconds: float
    failures: int


def restart(
    error: AimdError | None, lived: float, asked: float, failures: int, chance: float, patience: Patience
) -> Restart:
    """What follows the end of a watch, or of the list before it.

    Args:
        error: why it ended; None if the server ended it properly.
        lived: seconds since the watch began, 0 if it did not.
        asked: seconds after which the server was asked to end it.
        failures: in a row before this one.
        chance: in [0, 1], for the pause.
    """
    if error is None and lived >= asked - 1:
        return Restart(ENDED, relist=False, reload=False, seconds=0.0, failures=0)
    before = 0 if lived >= patience.healthy else failures
    seconds = pause(patience.first, patience.longest, before, chance)
    if isinstance(error, ThrottledError):
        seconds += min(error.retry_after_seconds, patience.obeyed)
    lost = isinstance(error, GoneError | NotFoundError) or (error is not None and error.code == WATCH_ERROR)
    return Restart(
        error.code if error is not None else "ended_early",
        relist=lost,
        reload=error is not None and wants_credentials(error),
        seconds=seconds,
        failures=before + 1,
    )
