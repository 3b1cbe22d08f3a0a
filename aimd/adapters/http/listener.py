"""The listening socket: takes connections in small batches, and pauses while there are no file descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections import deque
from collections.abc import Callable

from aimd.adapters.http.connection import Connection
from aimd.adapters.http.crowd import Admission
from aimd.adapters.http.limits import Limits
from aimd.adapters.http.problems import HttpError, raw_response
from aimd.adapters.unix.peer import Peer, peer_of

log = logging.getLogger("aimd.api")

NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """Takes the connections of a listening socket, which it owns.

    asyncio's own servers accept as many at a time as the backlog holds, give each a task, and say nothing of who it is.
    """

    def __init__(
        self,
        listening: socket.socket,
        limits: Limits,
        admission: Admission[Connection],
        connection: Callable[[Peer], Connection],
        peer: Callable[[socket.socket], Peer] = peer_of,
    ) -> None:
        self._socket = listening
        self._limits = limits
        self._admission = admission
        self._connection = connection
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._told = False
        self._turned_away: deque[socket.socket] = deque()

    def start(self) -> None:
        """Begin, or go on after a pause."""
        self._pause = None
        self._loop.add_reader(self._socket, self._accept)

    async def close(self) -> None:
        """Stop listening; connections go on."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        while self._turned_away:
            self._turned_away.popleft().close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(self._limits.accepts):
            try:
                accepted, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in NO_RESOURCES:
                    raise
                self._wait_for_resources(error)
                return
            self._told = False
            self._take(accepted)

    def _wait_for_resources(self, error: OSError) -> None:
        """The socket stays readable, so looking again at once would spin."""
        if not self._told:
            log.error("no connection can be taken: %s; trying again every %g s", error, self._limits.retry_seconds)
            self._told = True
        self._loop.remove_reader(self._socket)
        self._pause = self._loop.call_later(self._limits.retry_seconds, self.start)

    def _take(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        try:
            peer = self._peer(accepted)
            self._admission.make_room(peer)
        except HttpError as error:
            self._turn_away(accepted, error)
            return
        except OSError:  # it has gone already
            accepted.close()
            return
        connection = self._connection(peer)
        self._admission.admit(connection)
        task = self._loop.create_task(self._serve(accepted, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _turn_away(self, accepted: socket.socket, error: HttpError) -> None:
        """Answer what was not asked yet, and listen to the question: a closed socket would break its client's pipe."""
        with contextlib.suppress(OSError):
            accepted.send(raw_response(error))
            accepted.shutdown(socket.SHUT_WR)
        if len(self._turned_away) == self._limits.turned_away:
            self._turned_away.popleft().close()
        self._turned_away.append(accepted)
        self._loop.call_later(self._limits.retry_seconds, self._close_turned_away, accepted)

    def _close_turned_away(self, connection: socket.socket) -> None:
        with contextlib.suppress(ValueError):  # others came meanwhile
            self._turned_away.remove(connection)
        connection.close()

    async def _serve(self, accepted: socket.socket, connection: Connection) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:
            self._admission.forget(connection)
            accepted.close()
