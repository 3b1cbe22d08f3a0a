"""Acquires under way and the models they are for, across connections: opened, sent, answered, sent again.

Sans-io: frames go to the outbox, time is an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count

from aimd.dispatch.client.errors import DispatchError, of_outcome
from aimd.dispatch.client.leases import Leases
from aimd.dispatch.client.outbox import Outbox
from aimd.dispatch.client.records import Held, Target, Ticket
from aimd.dispatch.values import Outcome
from aimd.protocol import frames

_OPENS_AT_ONCE = 16  # the daemon bounds them per connection (ERROR 12), without saying at how many
_STALE_HANDLE = frozenset(
    {Outcome.PARTITION_GONE, Outcome.MODEL_GONE, Outcome.UNKNOWN_MODEL, Outcome.UNKNOWN_PARTITION}
)


class Requests:
    """The acquires of one process. A ticket is parked at its target, or sent, or settled."""

    def __init__(self, outbox: Outbox, leases: Leases) -> None:
        self._outbox = outbox
        self._leases = leases
        self._targets: dict[tuple[str, str], Target] = {}
        self._sent: dict[int, Ticket] = {}
        self._to_open: deque[Target] = deque()
        self._opening: dict[int, Target] = {}
        self._numbers = count(1)

    def target(self, model: str, partition: str) -> Target:
        """The target of these names, which are checked at first sight.

        Raises:
            InvalidInputError: they are no names.
        """
        key = model, partition
        target = self._targets.get(key)
        if target is None:
            frames.open_model(0, model, partition)
            target = self._targets[key] = Target(model, partition)
        return target

    def submit(self, ticket: Ticket, now: int) -> None:
        """Send it, or park it until its target has a handle."""
        target = ticket.target
        if target.handle is not None:
            self._send(ticket, target.handle, now)
            return
        target.parked.append(ticket)
        if self._outbox.open:
            self._open(target)

    def _send(self, ticket: Ticket, handle: int, now: int) -> None:
        ticket.handle, ticket.request = handle, next(self._numbers)
        wait = frames.DEFAULT_WAIT if ticket.start_by is None else max(0, ticket.start_by - now)
        self._sent[ticket.request] = ticket
        self._outbox.send(frames.acquire(handle, ticket.request, wait, ticket.klass, ticket.flags))

    def _open(self, target: Target) -> None:
        if target.opening:
            return
        target.opening = True
        self._to_open.append(target)
        self._open_more()

    def _open_more(self) -> None:
        while self._to_open and len(self._opening) < _OPENS_AT_ONCE:
            target = self._to_open.popleft()
            tag = next(self._numbers)
            self._opening[tag] = target
            self._outbox.send(frames.open_model(tag, target.model, target.partition))

    # The daemon's answers.

    def opened(self, answer: frames.Opened, now: int) -> None:
        target = self._answered(answer.tag)
        if target is not None:
            target.handle, target.place = answer.handle, answer.partition
            parked, target.parked = target.parked, []
            for ticket in parked:
                self._send(ticket, answer.handle, now)

    def denied(self, answer: frames.Denied) -> None:
        target = self._answered(answer.tag)
        if target is not None:
            parked, target.parked = target.parked, []
            for ticket in parked:
                self._outbox.settle(ticket, of_outcome(target.model, answer.outcome, sentence=answer.message))

    def _answered(self, tag: int) -> Target | None:
        target = self._opening.pop(tag, None)
        if target is not None:
            target.opening = False
            self._open_more()
        return target

    def granted(self, answer: frames.Granted, now: int) -> None:
        ticket = self._sent.pop(answer.request, None)
        place = "" if ticket is None else ticket.target.place
        held = Held(answer.lease, place, answer.klass, guaranteed=answer.guaranteed, now=now, life=answer.lease_ns)
        self._leases.take(held, renew=ticket is not None and ticket.renew)
        if ticket is None or ticket.abandoned:
            self._leases.release(held, ok=True)  # it was served in time; that nobody wants it is not the daemon's fault
        else:
            ticket.lease = held
            self._outbox.settle(ticket)

    def queued(self, answer: frames.Queued) -> None:
        ticket = self._sent.get(answer.request)
        if ticket is not None:
            ticket.queued = True
            if ticket.start_by is None:
                ticket.limit = None  # the daemon knows the model's budget, and ends the request by it

    def ended(self, answer: frames.Ended, now: int) -> None:
        ticket = self._sent.pop(answer.request, None)
        if ticket is None or ticket.abandoned:
            return
        stale = answer.outcome in _STALE_HANDLE
        if (stale or answer.outcome == Outcome.DRAINING) and ticket.target.handle == ticket.handle:
            ticket.target.handle = None  # the model may be elsewhere by now: whoever comes next opens it again
        if stale and not ticket.reopened:
            ticket.reopened = True
            self.submit(ticket, now)
        else:
            self._outbox.settle(ticket, of_outcome(ticket.target.model, answer.outcome, answer.retry_after_ns))

    # What happens to requests without an answer.

    def abandon(self, ticket: Ticket) -> None:
        """Nobody waits for it any more: what it was granted, or will be, is released."""
        if ticket.abandoned:
            return
        ticket.abandoned = True
        if ticket.lease is not None:
            self._leases.release(ticket.lease, ok=True)
        elif ticket.request in self._sent:
            self._outbox.send(frames.cancel(ticket.request))
        elif ticket in ticket.target.parked:
            ticket.target.parked.remove(ticket)

    def disconnected(self, outage_limit: int) -> None:
        """Handles are void, what was sent is to be sent again. Who waits by the model's budget waits until the limit."""
        unanswered = [ticket for ticket in self._sent.values() if not ticket.abandoned]
        self._sent.clear()
        self._opening.clear()
        self._to_open.clear()
        for target in self._targets.values():
            target.handle, target.opening = None, False
        for ticket in reversed(unanswered):
            ticket.queued = False
            ticket.limit = outage_limit if ticket.limit is None else ticket.limit
            ticket.target.parked.insert(0, ticket)

    def connected(self) -> None:
        """Ask anew for the handles of all who wait."""
        for target in self._targets.values():
            if target.parked:
                self._open(target)

    def fail(self, error: Callable[[], DispatchError]) -> None:
        """Settle all who wait."""
        for ticket in self._sent.values():
            if not ticket.abandoned:
                self._outbox.settle(ticket, error())
        for target in self._targets.values():
            for ticket in target.parked:
                self._outbox.settle(ticket, error())
            target.parked = []
        self._sent.clear()

    def __bool__(self) -> bool:
        """Somebody waits."""
        return bool(self._sent) or any(target.parked for target in self._targets.values())
