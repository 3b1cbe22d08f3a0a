"""One connection that the tasks of an event loop share.

The socket is watched by the loop itself (add_reader) instead of through a transport: a frame that fits is sent at once,
what arrives is parsed in the callback that reads it, and a child after a fork can drop the socket without touching the
parent's loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from random import random
from time import monotonic_ns

from aimd.dispatch.client.errors import of_lost_lease
from aimd.dispatch.client.records import Held, Question, Renewal, Ticket
from aimd.dispatch.client.session import Session

_READ_BYTES = 8192
_SLICE = 0.5  # s; longest wait before a limit is looked at anew: it changes when the connection ends
_LINGER = 1.0  # s for which `close` waits until the daemon has confirmed what was released


class LoopConnection:
    """A session with its socket, in the event loop that runs when it is first used.

    Attributes:
        foreign: this is the child of the process that made it; the leases are the parent's.
    """

    def __init__(self, path: str, patience: int) -> None:
        self.foreign = False
        self._path = path
        self._patience = patience
        self._session = Session(path, patience, random)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0

    def acquire(
        self, model: str, partition: str, klass: int, wait: int, *, no_wait: bool, renew: bool, count: int = 1
    ) -> list[Ticket]:
        """Ask for so many leases, by one write if the socket takes it."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        acquire, now = self._session.acquire, monotonic_ns()
        tickets = [acquire(now, model, partition, klass, wait, no_wait=no_wait, renew=renew) for _ in range(count)]
        self._pump()
        return tickets

    def release(self, held: Held, *, ok: bool) -> None:
        if not self.foreign:
            self._session.leases.release(held, ok=ok)
            self._pump()

    def renew(self, held: Held) -> Renewal:
        if self.foreign:
            raise of_lost_lease(held.lease)
        renewal = self._session.renew(held)
        self._pump()
        return renewal

    def abandon(self, ticket: Ticket) -> None:
        if not self.foreign:
            self._session.requests.abandon(ticket)
            self._pump()

    async def wait(self, question: Question) -> None:
        """Return when it is settled: answered, or given up at its limit."""
        loop = asyncio.get_running_loop()
        while not question.settled:
            limit = self._session.limit(question)
            left = _SLICE if limit is None else (limit - monotonic_ns()) / 1e9
            if left <= 0:
                self._session.give_up(question)
                self._pump()
                return
            future = question.future = loop.create_future()
            timer = loop.call_later(min(left, _SLICE), _set, future)
            try:
                await future
            finally:
                timer.cancel()
                question.future = None

    async def close(self) -> None:
        """Fail all who wait, and give the daemon a moment to confirm what was released."""
        if self._session.closed:
            return
        self._session.close()
        self._pump()
        until = monotonic_ns() + int(_LINGER * 1e9)
        while self._socket is not None and self._session.leases.unconfirmed and monotonic_ns() < until:  # noqa: ASYNC110 - rarely, and briefly
            await asyncio.sleep(0.001)
        self._session.disconnected(monotonic_ns(), "the client was closed")
        self._drop()
        if self._timer is not None:
            self._timer.cancel()

    def forsake(self) -> LoopConnection:
        """In a child after a fork: the same daemon, a connection of its own. The parent's loop shares its epoll with
        the child's copy, so the socket is closed without telling the loop.
        """
        self.foreign = True
        if self._socket is not None:
            self._socket.close()
        return LoopConnection(self._path, self._patience)

    def _pump(self) -> None:
        """After each change: connect, send, wake, and set the timer for what is due later."""
        if self._loop is None or self.foreign:
            return
        session = self._session
        if self._socket is None and session.needs_connection and not session.closed:
            self._connect()
        data = session.outbox.data
        if data and self._socket is not None:
            with suppress(OSError):  # full: later; broken: the reader sees it
                sent = self._socket.send(data, socket.MSG_NOSIGNAL)
                del data[:sent]
            if bool(data) != self._writing:
                self._watch_writing(bool(data))
        for question in session.outbox.settled:
            if question.future is not None:
                _set(question.future)
        session.outbox.settled.clear()
        self._set_timer()

    def _watch_writing(self, wanted: bool) -> None:
        if self._loop is not None and self._socket is not None:
            self._writing = wanted
            if wanted:
                self._loop.add_writer(self._socket, self._writable)
            else:
                self._loop.remove_writer(self._socket)

    def _writable(self) -> None:
        self._pump()
        if not self._session.outbox.data and self._writing:
            self._watch_writing(False)

    def _connect(self) -> None:
        now = monotonic_ns()
        if now < self._session.connect_at or self._loop is None:
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(self._path)  # on a Unix socket at once, or not at all (a full backlog)
        except OSError as error:
            connection.close()
            self._session.disconnected(now, os.strerror(error.errno or 0))
            return
        self._socket = connection
        self._loop.add_reader(connection, self._readable)
        self._session.connected(now)

    def _readable(self) -> None:
        if self._socket is None:
            return
        reason = "the daemon closed the connection"
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            data, reason = b"", os.strerror(error.errno or 0)
        now = monotonic_ns()
        if data:
            self._session.received(now, data)
        else:
            self._session.disconnected(now, reason)
        if not self._session.is_connected:
            self._drop()
        self._pump()

    def _drop(self) -> None:
        if self._socket is not None and self._loop is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._socket)
                self._loop.remove_writer(self._socket)
            self._writing = False
            self._socket.close()
            self._socket = None

    def _set_timer(self) -> None:
        """For the next renewal, or the next attempt to connect."""
        session = self._session
        due = session.leases.next_due()
        if self._socket is None and session.needs_connection and not session.closed:
            due = session.connect_at if due is None else min(due, session.connect_at)
        if due is None or self._loop is None or (self._timer is not None and due >= self._timer_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_later(max(due - monotonic_ns(), 0) / 1e9, self._due)

    def _due(self) -> None:
        self._timer = None
        self._session.leases.renew_due(monotonic_ns())
        self._pump()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
