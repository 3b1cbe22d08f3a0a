"""Leases of this process, across connections: adopted, renewed, and released until the daemon has said so.

Sans-io: frames go to the outbox, time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable

from aimd.dispatch.client.errors import DispatchError, RenewalRefusedError, of_lost_lease
from aimd.dispatch.client.outbox import Outbox
from aimd.dispatch.client.records import Held, LeaseState, Renewal
from aimd.dispatch.values import Fault
from aimd.protocol import frames
from aimd.protocol.frames import FrameKind, ReleaseFlag

_RENEWAL_PAUSE = 50_000_000  # ns; at least this between two renewals of a lease that nobody asked for


class Leases:
    """Held ones by id, and those whose release was not confirmed yet.

    A release that was sent just before the daemon was killed may never have been read: it is sent again on the next
    connection, where the daemon answers that the lease is stale if it knew already.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._held: dict[int, Held] = {}
        self._unconfirmed: dict[int, ReleaseFlag] = {}
        self._renewing: dict[int, Held] = {}

    def take(self, held: Held, *, renew: bool) -> None:
        """Remember a grant."""
        self._held[held.lease] = held
        if renew:
            held.renew_at = held.expires - held.life // 2
            self._renewing[held.lease] = held

    def release(self, held: Held, *, ok: bool) -> None:
        """Give it back; of a lease that is not held any more nothing happens."""
        if held.state is LeaseState.HELD:
            self._forget(held, LeaseState.RELEASED)
            flags = self._unconfirmed[held.lease] = ReleaseFlag(0) if ok else ReleaseFlag.FAILED
            self._outbox.send(frames.release(held.lease, flags))

    def renew(self, held: Held) -> Renewal:
        """Ask for another life of it; settled at once if it is not held any more."""
        renewal = Renewal(held)
        if held.state is LeaseState.HELD:
            held.renewals.append(renewal)
            self._outbox.send(frames.renew(held.lease))
        else:
            self._outbox.settle(renewal, of_lost_lease(held.lease))
        return renewal

    def renew_due(self, now: int) -> None:
        """Renew those whose time has come."""
        for held in self._renewing.values():
            if held.renew_at is not None and held.renew_at <= now:
                held.renew_at = self._next_renewal(held, now)
                self._outbox.send(frames.renew(held.lease))

    def next_due(self) -> int | None:
        """The earliest instant at which `renew_due` has something to do."""
        return min((held.renew_at for held in self._renewing.values() if held.renew_at is not None), default=None)

    @staticmethod
    def _next_renewal(held: Held, now: int) -> int:
        return now + max((held.expires - now) // 2, _RENEWAL_PAUSE)

    def _forget(self, held: Held, state: LeaseState) -> None:
        held.state = state
        self._held.pop(held.lease, None)
        self._renewing.pop(held.lease, None)
        if held.renewals:
            self._answer(held, of_lost_lease(held.lease))

    def _answer(self, held: Held, error: DispatchError | None = None) -> None:
        renewals, held.renewals = held.renewals, []
        for renewal in renewals:
            self._outbox.settle(renewal, error)

    # The daemon's answers.

    def released(self, answer: frames.Released) -> None:
        self._unconfirmed.pop(answer.lease, None)

    def extended(self, answer: frames.Renewed | frames.Adopted, now: int) -> None:
        held = self._held.get(answer.lease)
        if held is None:
            return
        held.expires = now + answer.lease_ns
        if held.renew_at is not None:
            held.renew_at = self._next_renewal(held, now)
        if isinstance(answer, frames.Renewed):
            self._answer(held)

    def taken(self, answer: frames.Taken) -> None:
        held = self._held.get(answer.lease)
        if held is not None:
            self._forget(held, LeaseState.LOST)

    def refused(self, answer: frames.Refused) -> None:
        """Of a cancel nothing follows: the grant or the end that came first has been told already."""
        if answer.asked == FrameKind.RELEASE:
            self._unconfirmed.pop(answer.number, None)
        held = self._held.get(answer.number)
        if held is None or answer.asked not in (FrameKind.RENEW, FrameKind.ADOPT):
            return
        if answer.fault == Fault.RECLAIM:
            sentence = f"lease {held.lease:#x} is not renewed: others wait for what is guaranteed to them"
            self._answer(held, RenewalRefusedError(sentence, outcome=Fault.RECLAIM.name.lower()))
        else:
            self._forget(held, LeaseState.LOST)

    # The life of a connection.

    def connected(self) -> None:
        """Say on a new connection what runs and what was given back; the latter first, to make room."""
        for lease, flags in self._unconfirmed.items():
            self._outbox.send(frames.release(lease, flags))
        for held in self._held.values():
            self._outbox.send(frames.adopt(held.lease))
            if held.renewals:
                self._outbox.send(frames.renew(held.lease))

    def fail(self, error: Callable[[], DispatchError]) -> None:
        """Settle all who wait for a renewal; the leases stay as they are."""
        for held in self._held.values():
            renewals, held.renewals = held.renewals, []
            for renewal in renewals:
                self._outbox.settle(renewal, error())

    @property
    def unconfirmed(self) -> int:
        """Releases that the daemon has not confirmed yet."""
        return len(self._unconfirmed)

    def __bool__(self) -> bool:
        """Something is held or has to be given back still."""
        return bool(self._held or self._unconfirmed)
