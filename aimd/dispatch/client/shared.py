"""One connection that many threads share: whoever waits first reads for all (leader and followers).

A thread that is alone pays for no other thread: it sends, polls and reads itself. When the leader has its own answer it
passes the role on. What nobody waits for (a lease that is taken, a daemon that restarts, renewals) is seen by a
keeper thread that looks in a few times a second and at once when the connection ends.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from random import random
from threading import Lock
from time import monotonic_ns

from aimd.dispatch.client.errors import of_lost_lease
from aimd.dispatch.client.keeper import Keeper, Signal
from aimd.dispatch.client.records import Held, Question, Renewal, Ticket
from aimd.dispatch.client.session import Session

_SLICE = 0.5  # s; longest wait before limits are looked at anew: they change when a connection ends
_READ_BYTES = 8192
_IDLE_LOOK = 1.0  # s between the keeper's looks while nothing is held and nobody waits
_BUSY_LOOK = 0.25  # s between them otherwise: how late a lease that was taken is seen when nobody reads
_LINGER = 1.0  # s for which `close` waits until the daemon has confirmed what was released


class SharedConnection:
    """A session with its socket, for any number of threads of one process.

    Attributes:
        foreign: this is the child of the process that made it; the leases are the parent's.
    """

    def __init__(self, path: str, patience: int) -> None:
        self.foreign = False
        self._path = path
        self._patience = patience
        self._lock = Lock()  # of all below; never held while waiting
        self._session = Session(path, patience, random)
        self._followers: dict[Question, Lock] = {}
        self._led = False
        self._socket: socket.socket | None = None
        self._poller = select.poll()  # the leader's, as is the right to replace the socket
        self._mask = 0  # for what the socket is polled
        self._wake = Signal()
        self._poller.register(self._wake, select.POLLIN)
        self._keeper: Keeper | None = None

    # For callers.

    def acquire(
        self, model: str, partition: str, klass: int, wait: int, *, no_wait: bool, renew: bool, count: int = 1
    ) -> list[Ticket]:
        """Ask for so many leases, by one write if the socket takes it."""
        acquire, now = self._session.acquire, monotonic_ns()
        with self._lock:
            tickets = [acquire(now, model, partition, klass, wait, no_wait=no_wait, renew=renew) for _ in range(count)]
            self._flush()
        return tickets

    def release(self, held: Held, *, ok: bool) -> None:
        """Without waiting; the daemon's confirmation is read by whoever reads next."""
        if not self.foreign:
            with self._lock:
                self._session.leases.release(held, ok=ok)
                self._flush()

    def renew(self, held: Held) -> Renewal:
        if self.foreign:
            raise of_lost_lease(held.lease)
        with self._lock:
            renewal = self._session.renew(held)
            self._flush()
        return renewal

    def abandon(self, ticket: Ticket) -> None:
        if not self.foreign:
            with self._lock:
                self._session.requests.abandon(ticket)
                self._flush()

    def wait(self, question: Question) -> None:
        """Return when it is settled: answered, or given up at its limit."""
        try:
            while not question.settled:
                with self._lock:
                    seconds = self._seconds_left(question)
                    lead = not self._led and not question.settled
                    if lead:
                        self._led = True
                    elif not question.settled:
                        self._follow(question)
                if lead:
                    self._lead(question)
                elif not question.settled and question.waker is not None:
                    question.waker.acquire(timeout=seconds)
        finally:
            with self._lock:
                self._followers.pop(question, None)
                self._hand_over()

    def close(self) -> None:
        """Fail all who wait, and give the daemon a moment to confirm what was released."""
        with self._lock:
            if self._session.closed:
                return
            self._session.close()
            self._settle()
            self._wake.set()
        until = monotonic_ns() + int(_LINGER * 1e9)
        while not self._retire(last=monotonic_ns() >= until):
            pass
        if self._keeper is not None:
            self._keeper.wake()

    def look_soon(self) -> None:
        """There is something new to look after: a lease to renew."""
        if self._keeper is not None and not self.foreign:
            self._keeper.wake()

    def forsake(self) -> SharedConnection:
        """In a child after a fork: the same daemon, a connection of its own. Only descriptors are touched here: the
        lock may be held, for ever, by a thread of the parent.
        """
        self.foreign = True
        if self._socket is not None:
            self._socket.close()
        self._wake.close()
        if self._keeper is not None:
            self._keeper.forsake()
        return SharedConnection(self._path, self._patience)

    # Below, under the lock.

    def _seconds_left(self, question: Question) -> float:
        limit = self._session.limit(question)
        if limit is None:
            return _SLICE
        left = limit - monotonic_ns()
        if left <= 0 and not question.settled:
            self._session.give_up(question)
            self._flush()
        return min(max(left, 0) / 1e9, _SLICE)

    def _follow(self, question: Question) -> None:
        if question.waker is None:
            question.waker = Lock()
        question.waker.acquire(blocking=False)  # a late signal may have left it open
        self._followers[question] = question.waker

    def _hand_over(self) -> None:
        if not self._led and self._followers:
            question = next(iter(self._followers))
            self._followers.pop(question).release()

    def _settle(self) -> None:
        settled = self._session.outbox.settled
        if settled:
            for question in settled:
                waker = self._followers.pop(question, None)
                if waker is not None:
                    waker.release()
            settled.clear()

    def _flush(self) -> None:
        """Send what the socket takes. The rest is sent by the leader, or by the keeper if there is none."""
        data = self._session.outbox.data
        if data and self._socket is not None:
            with suppress(OSError):  # full: later; broken: whoever reads next sees it
                sent = self._socket.send(data, socket.MSG_NOSIGNAL)
                del data[:sent]
            if data:
                self._wake.set()
                if self._keeper is not None:
                    self._keeper.wake()
        self._settle()

    # Below, for the leader alone.

    def _lead(self, question: Question) -> None:
        """Read for all until the question is settled or its limit has come."""
        try:
            while not question.settled:
                with self._lock:
                    seconds = self._seconds_left(question)
                if question.settled:
                    break
                self._step(seconds)
        finally:
            with self._lock:
                self._led = False

    def _step(self, seconds: float) -> None:
        """Connect, or wait for the socket and read it once."""
        if self._socket is None:
            with self._lock:
                pause = self._connect()
            if pause > 0:
                self._poller.poll(min(pause, seconds) * 1e3)
            return
        outbox = self._session.outbox
        mask = select.POLLIN | select.POLLOUT if outbox.data else select.POLLIN
        if mask != self._mask:
            self._poller.modify(self._socket, mask)
            self._mask = mask
        for descriptor, _ in self._poller.poll(seconds * 1e3):
            if descriptor == self._wake.descriptor:
                self._wake.clear()
                continue
            with self._lock:
                self._read()
                self._flush()

    def _connect(self) -> float:
        """Try it if it is time to; returns the seconds until the next attempt, 0 if it went well."""
        now = monotonic_ns()
        if now < self._session.connect_at:
            return (self._session.connect_at - now) / 1e9
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(self._path)
        except OSError as error:  # BlockingIOError, too: the daemon's backlog is full
            connection.close()
            self._session.disconnected(now, os.strerror(error.errno or 0))
            return (self._session.connect_at - now) / 1e9
        self._socket = connection
        self._mask = select.POLLIN
        self._poller.register(connection, self._mask)
        self._session.connected(now)
        self._flush()
        if self._keeper is None:
            self._keeper = Keeper(self)
        return 0

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            data, reason = b"", os.strerror(error.errno or 0)
        else:
            reason = "the daemon closed the connection"
        now = monotonic_ns()
        if data:
            self._session.received(now, data)
        else:
            self._session.disconnected(now, reason)
        if not self._session.is_connected:
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._poller.unregister(self._socket)
            self._socket.close()
            self._socket = None

    # For the keeper.

    def look(self) -> tuple[float, int] | None:
        """See to what nobody waits for. Returns the seconds until the next look and a descriptor to watch for its end
        (-1: none), or None when closed.
        """
        with self._lock:
            session = self._session
            if session.closed:
                return None
            session.leases.renew_due(monotonic_ns())
            self._flush()
            lead = not self._led and (self._socket is not None or session.needs_connection)
            self._led = self._led or lead
        if lead:
            try:
                self._step(0)
            finally:
                with self._lock:
                    self._led = False
                    self._hand_over()
        with self._lock:
            return self._pause(), self._socket.fileno() if lead and self._socket is not None else -1

    def _pause(self) -> float:
        session, now = self._session, monotonic_ns()
        if session.outbox.data:
            return 0.01
        pause = _BUSY_LOOK if session.needs_connection else _IDLE_LOOK
        due = session.leases.next_due()
        if not session.is_connected and session.needs_connection:
            due = session.connect_at if due is None else min(due, session.connect_at)
        return pause if due is None else min(pause, max(due - now, 1_000_000) / 1e9)

    def _retire(self, *, last: bool) -> bool:
        """Part of `close`: lead, read what comes, and shut everything when nothing is left to hear (or at `last`)."""
        with self._lock:
            if self._led and not last:
                lead = False
            else:
                lead = self._led = True
        if not lead:
            self._nap()
            return False
        if self._socket is not None and self._session.leases.unconfirmed and not last:
            self._step(0.05)
            with self._lock:
                self._led = False
            return False
        with self._lock:
            self._session.disconnected(monotonic_ns(), "the client was closed")
            self._drop()
            self._wake.close()
        return True

    @staticmethod
    def _nap() -> None:
        select.select([], [], [], 0.001)
