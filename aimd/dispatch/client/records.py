"""What a dispatch client remembers: models that were opened, acquires and renewals under way, leases that run.

Plain state, changed by `requests` and `leases` alone. Instants and durations are integers, nanoseconds of one
monotonic clock.
"""

from __future__ import annotations

from enum import Enum
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import Future

    from aimd.dispatch.client.errors import DispatchError


class LeaseState(Enum):
    HELD = "held"
    RELEASED = "released"
    LOST = "lost"


class Held:
    """A lease as far as this process knows.

    Attributes:
        expires: the instant at which the daemon takes it back if it is not renewed.
        life: from a grant or renewal to that.
        renew_at: when to renew it unasked; None: never.
        renewals: those under way that somebody waits for.
    """

    __slots__ = ("expires", "guaranteed", "klass", "lease", "life", "partition", "renew_at", "renewals", "state")

    def __init__(self, lease: int, partition: str, klass: int, *, guaranteed: bool, now: int, life: int) -> None:
        self.lease = lease
        self.partition = partition
        self.klass = klass
        self.guaranteed = guaranteed
        self.life = life
        self.expires = now + life
        self.renew_at: int | None = None
        self.renewals: list[Renewal] = []
        self.state = LeaseState.HELD


class Question:
    """Something that the daemon is to answer and that somebody waits for.

    Attributes:
        settled: answered or given up; `error` says how if it did not go well.
        limit: the instant at which waiting ends though nothing was answered; None: not bounded by this side.
        waker: of a thread that waits and does not read itself. `future`: of a task that waits.
    """

    __slots__ = ("error", "future", "limit", "settled", "waker")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.settled = False
        self.error: DispatchError | None = None
        self.waker: Lock | None = None
        self.future: Future[None] | None = None


class Ticket(Question):
    """An acquire.

    Attributes:
        start_by: the instant from which on a grant is of no use; None: the daemon knows, by the model's budget.
        handle: with which it was sent.
        reopened: its model was opened again because the handle was of no use any more; that is done once.
        abandoned: nobody wants the lease any more.
        lease: what it was granted.
    """

    __slots__ = (
        "abandoned",
        "flags",
        "handle",
        "klass",
        "lease",
        "queued",
        "renew",
        "reopened",
        "request",
        "start_by",
        "target",
    )

    def __init__(
        self, target: Target, klass: int, flags: int, *, start_by: int | None, limit: int | None, renew: bool
    ) -> None:
        self.limit = limit
        self.settled = False
        self.error = None
        self.waker = None
        self.future = None
        self.target = target
        self.klass = klass
        self.flags = flags
        self.start_by = start_by
        self.renew = renew
        self.request = -1
        self.handle = -1
        self.queued = False
        self.reopened = False
        self.abandoned = False
        self.lease: Held | None = None


class Renewal(Question):
    """A renewal that somebody waits for."""

    __slots__ = ("held",)

    def __init__(self, held: Held) -> None:
        super().__init__(held.expires)
        self.held = held


class Target:
    """A model, on a partition or wherever the daemon has it.

    Attributes:
        handle: its number on the present connection; None: not opened (yet).
        place: the partition that the daemon named.
        opening: an OPEN is under way or waits for its turn.
        parked: acquires that wait for the handle.
    """

    __slots__ = ("handle", "model", "opening", "parked", "partition", "place")

    def __init__(self, model: str, partition: str) -> None:
        self.model = model
        self.partition = partition
        self.handle: int | None = None
        self.place = partition
        self.opening = False
        self.parked: list[Ticket] = []
