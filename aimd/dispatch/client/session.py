"""A process's conversation with the daemon, across connections: bytes in, answered questions out.

Sans-io, in the style of h11: a driver owns the socket, the clock and those who wait. It calls `connected` when a
connection is there, sends `outbox.data`, hands what it reads to `received`, says `disconnected` when the connection
ends, and wakes those in `outbox.settled`. A session is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable

from aimd.dispatch.client.errors import (
    ClientClosedError,
    DispatchError,
    DispatchProtocolError,
    DispatchUnreachableError,
    UnauthorisedError,
)
from aimd.dispatch.client.leases import Leases
from aimd.dispatch.client.outbox import Outbox
from aimd.dispatch.client.records import Held, Question, Renewal, Ticket
from aimd.dispatch.client.requests import Requests
from aimd.errors import InvalidInputError
from aimd.protocol import frames
from aimd.protocol.frames import AcquireFlag, FrameError

ANSWER_GRACE = 1_000_000_000  # ns that the daemon gets, past the end of a wait, to say how the wait ended
NO_WAIT_PATIENCE = 1_000_000_000  # ns that a request that will not queue waits for a daemon that restarts
_FIRST_PAUSE = 10_000_000  # ns between two attempts to connect; doubled up to the longest, then jittered
_LONGEST_PAUSE = 250_000_000  # short, since a Unix socket that is not there costs a microsecond to try
_STABLE = 1_000_000_000  # ns; a connection that lasted this long starts the pauses anew
_SAME_VERSION = "bring aimd and its client to the same version"
_PASSING = frozenset({FrameError.TOO_MANY_CONNECTIONS, FrameError.TOO_SLOW, FrameError.UNKNOWN_HANDLE})
"""Errors after which another connection can succeed; the others would come again."""


class Session:
    """What lives as long as the client, while connections come and go.

    Attributes:
        connect_at: the instant of the next attempt to connect; meaningful while not connected.
    """

    def __init__(self, address: str, patience: int, chance: Callable[[], float]) -> None:
        """Args:
        address: named in errors.
        patience: ns for which a request that bears no wait of its own waits for a daemon that is not there.
        chance: uniform in [0, 1), for jitter.
        """
        self.address = address
        self.outbox = Outbox()
        self.leases = Leases(self.outbox)
        self.requests = Requests(self.outbox, self.leases)
        self.connect_at = 0
        self.closed = False
        self._patience = patience
        self._chance = chance
        self._attempts = 0
        self._since = 0
        self._welcomed = False
        self._trouble = "it was not tried yet"
        self._buffer = bytearray()

    @property
    def is_connected(self) -> bool:
        return self.outbox.open

    @property
    def needs_connection(self) -> bool:
        """Something waits to be said to the daemon, or heard from it."""
        return bool(self.leases) or bool(self.requests)

    # What callers ask.

    def acquire(
        self, now: int, model: str, partition: str, klass: int, wait: int, *, no_wait: bool, renew: bool
    ) -> Ticket:
        """Ask for a lease; `klass` and `wait` (ns) as on the wire.

        Raises:
            ClientClosedError: the client is closed.
            InvalidInputError: model or partition is no name.
        """
        if self.closed:
            raise _closed()
        target = self.requests.target(model, partition)
        start_by = None if wait < 0 else now + wait
        flags = AcquireFlag.NO_WAIT if no_wait else 0
        if start_by is None:
            limit = now + (min(self._patience, NO_WAIT_PATIENCE) if no_wait else self._patience)
        else:
            limit = start_by
            flags |= AcquireFlag.QUIET  # QUEUED matters where this side does not know how long the daemon will wait
        ticket = Ticket(target, klass, flags, start_by=start_by, limit=limit, renew=renew)
        self.requests.submit(ticket, now)
        return ticket

    def renew(self, held: Held) -> Renewal:
        if self.closed:
            raise _closed()
        return self.leases.renew(held)

    def limit(self, question: Question) -> int | None:
        """When `give_up` is due if nothing was answered: the end of its wait, and some more while it may be answered."""
        limit = question.limit
        return limit if limit is None or not self.outbox.open else limit + ANSWER_GRACE

    def give_up(self, question: Question) -> None:
        """Its limit has passed without an answer."""
        if isinstance(question, Ticket):
            self.requests.abandon(question)
        self.outbox.settle(question, self._unreachable())

    def _unreachable(self) -> DispatchUnreachableError:
        if self.outbox.open:
            fact, hint = (
                "took the request and did not answer in time",
                "see whether the daemon is stopped or overloaded",
            )
        else:
            fact = f"could not be reached in time: {self._trouble}"
            hint = "start aimd, or name its socket by AIMD_DISPATCH_SOCKET or Client(socket)"
        return DispatchUnreachableError(f"aimd at {self.address} {fact}", hint=hint)

    def close(self) -> None:
        """Fail all who wait. Releases that are not confirmed stay to be sent."""
        self.closed = True
        self._fail(_closed)

    # What happens to connections.

    def connected(self, now: int) -> None:
        """A connection was made: begin it, and say again what matters."""
        self._buffer.clear()
        self._since, self._welcomed = now, False
        self.outbox.open = True
        self.outbox.send(frames.hello())
        self.leases.connected()
        self.requests.connected()

    def disconnected(self, now: int, reason: str) -> None:
        """The connection has ended, or could not be made."""
        if self.outbox.open:
            self.outbox.open = False
            self.outbox.data.clear()
            self.requests.disconnected(now + self._patience)
            if self._welcomed and now - self._since >= _STABLE:
                self._attempts = 0
        self._trouble = reason
        pause = min(_FIRST_PAUSE << min(self._attempts, 10), _LONGEST_PAUSE)
        self._attempts += 1
        self.connect_at = now + int(pause * (0.5 + self._chance() / 2))

    def received(self, now: int, data: bytes) -> None:
        """Bytes from the daemon. Afterwards `is_connected` is false if they ended the connection."""
        self._buffer += data
        try:
            for frame in frames.split(self._buffer):
                self._answered(now, frames.answer(frame))
                if not self.outbox.open:
                    return
        except InvalidInputError as error:
            self.disconnected(now, error.message)
            sentence = f"aimd at {self.address} cannot be understood: {error.message}"
            self._fail(lambda: DispatchProtocolError(sentence, hint=_SAME_VERSION))

    def _answered(self, now: int, answer: frames.Answer) -> None:  # one branch per kind, the frequent ones first
        if isinstance(answer, frames.Granted):
            self.requests.granted(answer, now)
        elif isinstance(answer, frames.Released):
            self.leases.released(answer)
        elif isinstance(answer, frames.Ended):
            self.requests.ended(answer, now)
        elif isinstance(answer, frames.Queued):
            self.requests.queued(answer)
        elif isinstance(answer, frames.Renewed | frames.Adopted):
            self.leases.extended(answer, now)
        elif isinstance(answer, frames.Taken):
            self.leases.taken(answer)
        elif isinstance(answer, frames.Refused):
            self.leases.refused(answer)
        elif isinstance(answer, frames.Opened):
            self.requests.opened(answer, now)
        elif isinstance(answer, frames.Denied):
            self.requests.denied(answer)
        elif isinstance(answer, frames.Welcome):
            if answer.version != frames.VERSION:
                raise InvalidInputError(f"it speaks version {answer.version}, {frames.VERSION} is expected")
            self._welcomed = True
        else:
            self._ended(now, answer)

    def _ended(self, now: int, answer: frames.Error) -> None:
        self.disconnected(now, f"it ended the connection: {answer.message}")
        if answer.error in _PASSING:
            return
        if answer.error == FrameError.NOT_VISIBLE:
            sentence = f"aimd at {self.address} refuses this process: {answer.message}"
            hint = "run it where the daemon sees it: in the host's PID namespace or one below"
            self._fail(lambda: UnauthorisedError(sentence, hint=hint))
        else:
            sentence = f"aimd at {self.address} ended the connection: {answer.message}"
            self._fail(lambda: DispatchProtocolError(sentence, hint=_SAME_VERSION))

    def _fail(self, error: Callable[[], DispatchError]) -> None:
        self.requests.fail(error)
        self.leases.fail(error)


def _closed() -> ClientClosedError:
    return ClientClosedError("the dispatch client is closed", hint="make another Client")
