"""What a dispatch client raises: one tree, its leaves told apart by what the caller can do.

`outcome` is the daemon's own word (a label of its metrics), `retry_after` its advice.
"""

from __future__ import annotations

from aimd.dispatch.values import Fault, Outcome
from aimd.errors import AimdError, ConflictError, DeniedError, GoneError, NotFoundError, UnreachableError


class DispatchError(AimdError):
    """Base of what a dispatch client raises, but for InvalidInputError of wrong arguments.

    Attributes:
        outcome: what the daemon answered, like "queue_full_model"; None if it did not answer.
        retry_after: seconds after which another try is likely to succeed; None when unknown.
    """

    code = "dispatch"

    def __init__(
        self, message: str, *, outcome: str | None = None, retry_after: float | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, code=outcome, hint=hint)
        self.outcome = outcome
        self.retry_after = retry_after


class QueueFullError(DispatchError, ConflictError):
    """Too much waits already, or this request made way for a higher class: try again after `retry_after`."""

    code = "queue_full"


class ExpiredError(DispatchError, ConflictError):
    """No slot became free in time: the request is of no use any more (outcome expired or deadline_passed)."""

    code = "expired"


class WouldBlockError(DispatchError, ConflictError):
    """Asked for with no_wait, and no slot is free now."""

    code = "would_block"


class DrainingError(DispatchError, ConflictError):
    """The partition lets nobody in since it is about to be switched: try again later, it may be another one then."""

    code = "draining"


class UnknownModelError(DispatchError, NotFoundError):
    """The node does not serve this model, or not on this partition (any more)."""

    code = "unknown_model"


class UnauthorisedError(DispatchError, DeniedError):
    """The daemon's policy does not let this process use the model, the partition or the class."""

    code = "unauthorised"


class LeaseLostError(DispatchError, GoneError):
    """The lease has ended without being released: stop using the partition, and ask anew."""

    code = "lease_lost"


class RenewalRefusedError(DispatchError, ConflictError):
    """Others wait for what is guaranteed to them: finish within what is left of the lease."""

    code = "reclaim"


class DispatchUnreachableError(DispatchError, UnreachableError):
    """The daemon was not there, or did not answer, for as long as the request could wait."""

    code = "dispatch_unreachable"


class DispatchProtocolError(DispatchError):
    """Client and daemon do not understand each other: one of them is to be brought to the other's version."""

    code = "dispatch_protocol"


class ClientClosedError(DispatchError):
    """The client was closed, before or while it was asked."""

    code = "client_closed"


_MEANINGS: dict[int, tuple[type[DispatchError], str]] = {
    Outcome.QUEUE_FULL_MODEL: (QueueFullError, "the model's queue is full"),
    Outcome.QUEUE_FULL_PARTITION: (QueueFullError, "the partition's queue is full"),
    Outcome.QUEUE_FULL_CONN: (QueueFullError, "this connection has as many requests waiting as it may have"),
    Outcome.QUEUE_FULL_UID: (QueueFullError, "this user has as many requests waiting as it may have"),
    Outcome.SHED: (QueueFullError, "the request made way for one of a higher class"),
    Outcome.MEMORY_OVERRUN: (QueueFullError, "the model holds more memory than it was given"),
    Outcome.DEADLINE_PASSED: (ExpiredError, "there was no time left to wait when the daemon read the request"),
    Outcome.EXPIRED: (ExpiredError, "no slot became free in time"),
    Outcome.CANCELLED: (ClientClosedError, "the request was cancelled"),
    Outcome.WOULD_BLOCK: (WouldBlockError, "no slot is free now"),
    Outcome.DRAINING: (DrainingError, "the partition is about to be switched and lets nobody in"),
    Outcome.UNKNOWN_MODEL: (UnknownModelError, "no such model is served"),
    Outcome.UNKNOWN_PARTITION: (UnknownModelError, "no such partition serves it"),
    Outcome.PARTITION_GONE: (UnknownModelError, "its partition is gone"),
    Outcome.MODEL_GONE: (UnknownModelError, "it is not served there any more"),
    Outcome.UNAUTHORISED: (UnauthorisedError, "this process may not use it, or not in this class"),
}


def of_outcome(model: str, outcome: int, retry_after_ns: int = 0, sentence: str = "") -> DispatchError:
    """The error of an acquire (or, with the daemon's own sentence, of an open) that ended without a lease."""
    kind, meaning = _MEANINGS.get(outcome, (DispatchError, f"the daemon answered outcome {outcome}"))
    label = Outcome(outcome).name.lower() if outcome in _MEANINGS else None
    retry_after = retry_after_ns / 1e9 if retry_after_ns > 0 else None
    return kind(f"no lease for model {model!r}: {sentence or meaning}", outcome=label, retry_after=retry_after)


def of_lost_lease(lease: int, fault: int | None = None) -> LeaseLostError:
    """The error of a lease that the daemon (fault: why it said so) or this process does not have any more."""
    if fault == Fault.NOT_OWNER:
        return LeaseLostError(
            f"lease {lease:#x} belongs to another process", hint="a process forked off asks for leases of its own"
        )
    return LeaseLostError(f"lease {lease:#x} has ended", hint="use nothing of its partition without another lease")
