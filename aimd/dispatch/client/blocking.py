"""Client: leases for programs with threads. See `aimd.dispatch.client` for what the calls of both clients have in common."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from aimd.dispatch.client.asking import class_number, socket_path, wait_ns
from aimd.dispatch.client.errors import of_lost_lease
from aimd.dispatch.client.lease import LeaseFacts
from aimd.dispatch.client.records import Held, Ticket
from aimd.dispatch.client.shared import SharedConnection
from aimd.dispatch.values import Class


class Lease(LeaseFacts):
    """The right to run one request on a partition, until it is released, taken or its life is over."""

    __slots__ = ("_line",)

    def __init__(self, line: SharedConnection, held: Held) -> None:
        super().__init__(held)
        self._line = line

    def release(self, ok: bool = True) -> None:
        """Give it back, once; `ok=False`: the request went wrong, which counts against the model's objective.

        Does not wait, and does nothing if the lease is lost, released already, or that of a parent process. During an
        outage it is remembered and said to the daemon that comes back.
        """
        self._line.release(self._held, ok=ok)

    def renew(self) -> float:
        """Ask for another full life; returns the seconds that are left from now on.

        Raises:
            LeaseLostError: it is not held any more.
            RenewalRefusedError: others wait for what is guaranteed to them.
            DispatchUnreachableError: no answer within what was left of its life.
        """
        renewal = self._line.renew(self._held)
        self._line.wait(renewal)
        if renewal.error is not None:
            raise renewal.error
        return self.remaining()


class Pending:
    """An acquire under way, for pipelining: submit many, then ask each for its result."""

    __slots__ = ("_line", "_ticket")

    def __init__(self, line: SharedConnection, ticket: Ticket) -> None:
        self._line = line
        self._ticket = ticket

    def result(self) -> Lease:
        """Wait for the lease, for at most what the request said; one thread at a time. An interrupt cancels it.

        Raises:
            DispatchError: the request ended without a lease; the class says why.
        """
        ticket = self._ticket
        if self._line.foreign:
            raise of_lost_lease(0) if ticket.lease is None else of_lost_lease(ticket.lease.lease)
        try:
            self._line.wait(ticket)
        except BaseException:  # KeyboardInterrupt, or what another signal handler raises
            self.cancel()
            raise
        if ticket.error is not None:
            raise ticket.error
        assert ticket.lease is not None
        if ticket.renew:
            self._line.look_soon()
        return Lease(self._line, ticket.lease)

    def cancel(self) -> None:
        """Nobody wants the lease any more: the daemon is told, and a grant that was faster is given back."""
        self._line.abandon(self._ticket)


class Client:
    """A connection to the daemon for any number of threads; made when first needed, and again when it breaks.

    After a fork the child has a connection of its own, and the parent's leases stay the parent's.
    """

    def __init__(self, socket: str | None = None, *, patience: float = 30.0) -> None:
        """Args:
            socket: path; else $AIMD_DISPATCH_SOCKET, else `dispatch.sock` in the runtime directory.
            patience: seconds for which a request without `timeout` waits for a daemon that is not there.

        Raises:
            InvalidInputError: no path is given and there is no default, or it is too long for a socket.
        """
        self._line = SharedConnection(socket_path(socket), int(patience * 1e9))
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _after_fork(reference))

    def submit(
        self,
        model: str,
        *,
        timeout: float | None = None,
        klass: str | Class | None = None,
        partition: str | None = None,
        complete_in: float | None = None,
        est_service: float | None = None,
        no_wait: bool = False,
        renew: bool = False,
    ) -> Pending:
        """Ask without waiting for the answer: many requests may be under way on the one connection.

        Raises:
            InvalidInputError: an argument is wrong.
            ClientClosedError: the client is closed.
        """
        wait, number = wait_ns(timeout, complete_in, est_service), class_number(klass)
        line = self._line
        (ticket,) = line.acquire(model, partition or "", number, wait, no_wait=no_wait, renew=renew)
        return Pending(line, ticket)

    def acquire(
        self,
        model: str,
        *,
        timeout: float | None = None,
        klass: str | Class | None = None,
        partition: str | None = None,
        complete_in: float | None = None,
        est_service: float | None = None,
        no_wait: bool = False,
        renew: bool = False,
    ) -> Lease:
        """Wait for a lease, which the caller releases.

        Raises:
            InvalidInputError: an argument is wrong.
            DispatchError: the request ended without a lease; the class says why.
        """
        return self.submit(
            model,
            timeout=timeout,
            klass=klass,
            partition=partition,
            complete_in=complete_in,
            est_service=est_service,
            no_wait=no_wait,
            renew=renew,
        ).result()

    def acquire_many(
        self,
        model: str,
        count: int,
        *,
        timeout: float | None = None,
        klass: str | Class | None = None,
        partition: str | None = None,
        no_wait: bool = False,
        renew: bool = False,
    ) -> list[Lease]:
        """Ask for several leases at once and wait for all of them; if one is not to be had, none is kept.

        Those that are granted early are held while the others wait: more than the partition has slots never succeed.

        Raises:
            InvalidInputError: an argument is wrong.
            DispatchError: one of the requests ended without a lease.
        """
        wait, number = wait_ns(timeout, None, None), class_number(klass)
        line = self._line
        tickets = line.acquire(model, partition or "", number, wait, no_wait=no_wait, renew=renew, count=count)
        pending = [Pending(line, ticket) for ticket in tickets]
        try:
            return [each.result() for each in pending]
        except BaseException:
            for each in pending:
                each.cancel()
            raise

    @contextmanager
    def lease(
        self,
        model: str,
        *,
        timeout: float | None = None,
        klass: str | Class | None = None,
        partition: str | None = None,
        complete_in: float | None = None,
        est_service: float | None = None,
        no_wait: bool = False,
        renew: bool = False,
    ) -> Iterator[Lease]:
        """A lease for the time of a block; an exception in the block releases it as failed.

        Raises:
            InvalidInputError: an argument is wrong.
            DispatchError: the request ended without a lease; the class says why.
        """
        lease = self.acquire(
            model,
            timeout=timeout,
            klass=klass,
            partition=partition,
            complete_in=complete_in,
            est_service=est_service,
            no_wait=no_wait,
            renew=renew,
        )
        try:
            yield lease
        except BaseException:
            lease.release(ok=False)
            raise
        lease.release()

    def close(self) -> None:
        """End the connection; those who wait get ClientClosedError. Waits a second at most, for the daemon to hear of
        what was released. Leases that are held still stay with this process for the daemon's orphan grace.
        """
        self._line.close()

    def __enter__(self) -> Client:  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _after_fork(self) -> None:
        self._line = self._line.forsake()


def _after_fork(reference: weakref.ref[Client]) -> None:
    client = reference()
    if client is not None:
        client._after_fork()  # noqa: SLF001 - of this module
