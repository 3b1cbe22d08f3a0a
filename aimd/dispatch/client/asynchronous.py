"""AsyncClient: leases for asyncio programs. See `aimd.dispatch.client` for what the calls of both clients share."""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from types import TracebackType

from aimd.dispatch.client.asking import class_number, socket_path, wait_ns
from aimd.dispatch.client.errors import of_lost_lease
from aimd.dispatch.client.lease import LeaseFacts
from aimd.dispatch.client.loopside import LoopConnection
from aimd.dispatch.client.records import Held, Ticket
from aimd.dispatch.values import Class


class AsyncLease(LeaseFacts):
    """The right to run one request on a partition, until it is released, taken or its life is over."""

    __slots__ = ("_line",)

    def __init__(self, line: LoopConnection, held: Held) -> None:
        super().__init__(held)
        self._line = line

    def release(self, ok: bool = True) -> None:
        """Give it back, once; `ok=False`: the request went wrong, which counts against the model's objective.

        No coroutine, since it does not wait: it can be called while a task is being cancelled. Does nothing if the
        lease is lost, released already, or that of a parent process. During an outage it is remembered.
        """
        self._line.release(self._held, ok=ok)

    async def renew(self) -> float:
        """Ask for another full life; returns the seconds that are left from now on.

        Raises:
            LeaseLostError: it is not held any more.
            RenewalRefusedError: others wait for what is guaranteed to them.
            DispatchUnreachableError: no answer within what was left of its life.
        """
        renewal = self._line.renew(self._held)
        await self._line.wait(renewal)
        if renewal.error is not None:
            raise renewal.error
        return self.remaining()


class AsyncPending:
    """An acquire under way, for pipelining: submit many, then await each, once."""

    __slots__ = ("_line", "_ticket")

    def __init__(self, line: LoopConnection, ticket: Ticket) -> None:
        self._line = line
        self._ticket = ticket

    async def result(self) -> AsyncLease:
        """Wait for the lease, for at most what the request said. Cancelling the task cancels the request.

        Raises:
            DispatchError: the request ended without a lease; the class says why.
        """
        ticket = self._ticket
        try:
            await self._line.wait(ticket)
        except BaseException:  # CancelledError above all; a grant that was faster is given back
            self.cancel()
            raise
        if ticket.error is not None:
            raise ticket.error
        if ticket.lease is None or self._line.foreign:
            raise of_lost_lease(0)
        return AsyncLease(self._line, ticket.lease)

    def __await__(self) -> Generator[None, None, AsyncLease]:
        return self.result().__await__()

    def cancel(self) -> None:
        """Nobody wants the lease any more: the daemon is told, and a grant that was faster is given back."""
        self._line.abandon(self._ticket)


class AsyncClient:
    """A connection to the daemon for the tasks of one event loop; made when first needed, and again when it breaks.

    After a fork the child has a connection of its own (in a loop of its own), and the parent's leases stay the parent's.
    """

    def __init__(self, socket: str | None = None, *, patience: float = 30.0) -> None:
        """Args:
            socket: path; else $AIMD_DISPATCH_SOCKET, else `dispatch.sock` in the runtime directory.
            patience: seconds for which a request without `timeout` waits for a daemon that is not there.

        Raises:
            InvalidInputError: no path is given and there is no default, or it is too long for a socket.
        """
        self._line = LoopConnection(socket_path(socket), int(patience * 1e9))
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
    ) -> AsyncPending:
        """Ask without waiting for the answer: many requests may be under way on the one connection.

        Raises:
            InvalidInputError: an argument is wrong.
            ClientClosedError: the client is closed.
            RuntimeError: no event loop runs here.
        """
        wait, number = wait_ns(timeout, complete_in, est_service), class_number(klass)
        line = self._line
        (ticket,) = line.acquire(model, partition or "", number, wait, no_wait=no_wait, renew=renew)
        return AsyncPending(line, ticket)

    async def acquire(
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
    ) -> AsyncLease:
        """Wait for a lease, which the caller releases.

        Raises:
            InvalidInputError: an argument is wrong.
            DispatchError: the request ended without a lease; the class says why.
        """
        return await self.submit(
            model,
            timeout=timeout,
            klass=klass,
            partition=partition,
            complete_in=complete_in,
            est_service=est_service,
            no_wait=no_wait,
            renew=renew,
        ).result()

    async def acquire_many(
        self,
        model: str,
        count: int,
        *,
        timeout: float | None = None,
        klass: str | Class | None = None,
        partition: str | None = None,
        no_wait: bool = False,
        renew: bool = False,
    ) -> list[AsyncLease]:
        """Ask for several leases at once and wait for all of them; if one is not to be had, none is kept.

        Those that are granted early are held while the others wait: more than the partition has slots never succeed.

        Raises:
            InvalidInputError: an argument is wrong.
            DispatchError: one of the requests ended without a lease.
        """
        wait, number = wait_ns(timeout, None, None), class_number(klass)
        line = self._line
        tickets = line.acquire(model, partition or "", number, wait, no_wait=no_wait, renew=renew, count=count)
        pending = [AsyncPending(line, ticket) for ticket in tickets]
        try:
            return [await each.result() for each in pending]
        except BaseException:
            for each in pending:
                each.cancel()
            raise

    @asynccontextmanager
    async def lease(
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
    ) -> AsyncIterator[AsyncLease]:
        """A lease for the time of a block; an exception in the block, CancelledError too, releases it as failed.

        Raises:
            InvalidInputError: an argument is wrong.
            DispatchError: the request ended without a lease; the class says why.
        """
        lease = await self.acquire(
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

    async def close(self) -> None:
        """End the connection; those who wait get ClientClosedError. Waits a second at most, for the daemon to hear of
        what was released. Leases that are held still stay with this process for the daemon's orphan grace.
        """
        await self._line.close()

    async def __aenter__(self) -> AsyncClient:  # noqa: PYI034 - Self needs Python 3.11
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _after_fork(self) -> None:
        self._line = self._line.forsake()


def _after_fork(reference: weakref.ref[AsyncClient]) -> None:
    client = reference()
    if client is not None:
        client._after_fork()  # noqa: SLF001 - of this module
