"""One request on its way to the model server and back. However it ends, its lease is given back once.

What the model server did wrong (no connection, no answer in time, an answer that breaks off, a status of 500 and more)
gives it back as failed, which is bad for the model's objective; a client that goes away or stalls does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from aimd.dispatch.client import AsyncClient, AsyncLease, DispatchError, DispatchProtocolError, DispatchUnreachableError
from aimd.dispatch.gate import answers, fields
from aimd.dispatch.gate.answers import GateError
from aimd.dispatch.gate.asking import Ask
from aimd.dispatch.gate.counters import Counters
from aimd.dispatch.gate.endings import REFUSALS, Abort, ClientGoneError, Cut, Stage, failure_of, malformed
from aimd.dispatch.gate.settings import GateSettings
from aimd.dispatch.gate.upload import Upload


@dataclass(frozen=True)
class Means:
    """What all exchanges of a gate share."""

    settings: GateSettings
    client: AsyncClient
    session: aiohttp.ClientSession
    counters: Counters
    clock: Callable[[], float]


class Exchange:
    """A request from its arrival to the end of its response.

    Attributes:
        began: when it arrived.
        writing_since: since when the client is to take a piece of the response; None else.
    """

    def __init__(self, means: Means, request: web.BaseRequest, ask: Ask | None, number: str) -> None:
        """Args:
        ask: what to ask of aimd; None: it needs no lease.
        number: the request's id.
        """
        self.began = means.clock()
        self.stage = Stage.WAITING
        self.request = request
        self.number = number
        self.writing_since: float | None = None
        self.lease: AsyncLease | None = None
        self._means = means
        self._ask = ask
        self._klass = "none" if ask is None else ask.klass or "default"
        self._waited = 0.0
        self._failed = False
        self._aborted: Abort | None = None
        self._task = asyncio.current_task()
        self._upload: Upload | None = None
        self._response: web.StreamResponse | None = None

    # -- from the side ---------------------------------------------------------------------------------------

    def abort(self, reason: Abort) -> None:
        """End it; the first reason counts."""
        if self._aborted is None and self._task is not None:
            self._aborted = reason
            self._task.cancel()

    def stalled_since(self) -> float | None:
        """Since when the client is what everything waits for."""
        if self.writing_since is not None:
            return self.writing_since
        return None if self._upload is None else self._upload.reading_since

    # -- its way ---------------------------------------------------------------------------------------------

    async def carry(self) -> web.StreamResponse:
        """The response to it, written already as far as it came.

        Raises:
            GateError: nothing was written, this is the answer.
        """
        try:
            if self._ask is not None:
                self.lease = await self._acquire(self._ask)
            else:
                self._count("free")
            self.stage = Stage.RUNNING
            return await self._forward()
        except asyncio.CancelledError:
            if self._aborted is None:
                self._means.counters.cut.add(Abort.CLIENT_GONE.value)
                raise
            _uncancel(self._task)
            return self._end(self._aborted)
        finally:
            self._release()
            self._means.counters.duration.add(self._klass, self._means.clock() - self.began)

    async def _acquire(self, ask: Ask) -> AsyncLease | None:
        settings = self._means.settings
        try:
            lease = await self._means.client.acquire(
                settings.model,
                klass=ask.klass,
                partition=settings.partition,
                timeout=ask.timeout,
                complete_in=ask.complete_in,
                est_service=ask.est_service,
                no_wait=ask.no_wait,
                renew=True,
            )
        except asyncio.CancelledError:
            if self._aborted is not Abort.UNREACHABLE or self.request.transport is None:
                raise
            _uncancel(self._task)
            self._aborted = None
            self._check_open("it is not there")
            return None
        except (DispatchUnreachableError, DispatchProtocolError) as error:
            self._check_open(error.message)
            return None
        except DispatchError as error:
            self._count(error.code)
            raise answers.of_dispatch(error) from error
        self._klass = lease.klass.name.lower()
        self._waited = self._means.clock() - self.began
        self._means.counters.wait.add(self._klass, self._waited)
        self._count("granted")
        return lease

    def _check_open(self, fact: str) -> None:
        """Raises GateError if the request must not pass now that aimd could not be asked."""
        policy = "open" if self._means.settings.fail_open else "closed"
        self._means.counters.unreachable.add(policy)
        if self._means.settings.fail_open:
            self._count("passed")
            return
        self._count(DispatchUnreachableError.code)
        raise GateError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            DispatchUnreachableError.code,
            f"no lease for model {self._means.settings.model!r}: aimd could not be asked: {fact}",
            hint="start aimd; with --fail open the gate lets requests pass meanwhile",
            retry_after=answers.AWAY_SECONDS,
        )

    def _release(self) -> None:
        if self.lease is not None:
            if self.lease.lost:
                self._means.counters.lost.add()
            self.lease.release(ok=not self._failed)
            self.lease = None

    # -- through the model server ----------------------------------------------------------------------------

    async def _forward(self) -> web.StreamResponse:
        request = self.request
        if request.can_read_body:
            self._upload = Upload(request, self._means.clock)
        try:
            async with self._means.session.request(
                request.method,
                self._url(),
                headers=self._fields(),
                data=self._upload,
                allow_redirects=False,
            ) as upstream:
                return await self._relay(upstream)
        except ClientGoneError:
            self._means.counters.cut.add(Abort.CLIENT_GONE.value)
            return Cut(self.request, self._response)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            return self._broken(error)

    def _url(self) -> URL:
        upstream, target = self._means.settings.upstream, self.request.raw_path
        return URL(f"{upstream.origin}{upstream.prefix}{target}", encoded=True)

    def _fields(self) -> CIMultiDict[str]:
        request = self.request
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        return fields.to_upstream(
            request.headers,
            version=f"{request.version.major}.{request.version.minor}",
            peer=peer[0] if isinstance(peer, tuple) else None,
            number=self.number,
            preserve_host=self._means.settings.preserve_host,
        )

    async def _relay(self, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        self._failed = upstream.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if self._failed:
            self._means.counters.failures.add("status")
        headers = fields.to_client(upstream.headers, number=self.number, waited=self._waited)
        response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=headers)
        self._response = response
        await self._written(response.prepare(self.request))
        self._means.counters.first_byte.add(self._klass, self._means.clock() - self.began)
        self._means.counters.answers.add(str(upstream.status))
        async for piece in upstream.content.iter_any():
            if upstream.content.at_eof():
                self._release()  # the partition is free, however slowly the client takes the rest
            await self._written(response.write(piece))
        self._release()
        await self._written(response.write_eof())
        return response

    async def _written(self, writing: Awaitable[object]) -> None:
        self.writing_since = self._means.clock()
        try:
            await writing
        except ConnectionError as error:
            raise ClientGoneError from error
        finally:
            self.writing_since = None

    # -- other ends ------------------------------------------------------------------------------------------

    def _broken(self, error: BaseException) -> web.StreamResponse:
        """What the model server began or should have begun breaks off."""
        if self._upload is not None and self._upload.failure is not None:
            refusal = malformed(self._upload.failure)
        else:
            self._failed = True
            refusal = failure_of(error, self._means.settings)
            self._means.counters.failures.add(refusal.code)
        if self._response is None:
            raise refusal from error
        self._means.counters.cut.add(refusal.code)
        return Cut(self.request, self._response)

    def _end(self, reason: Abort) -> web.StreamResponse:
        """Ended from the side."""
        self._means.counters.cut.add(reason.value)
        refusal = REFUSALS.get(reason)
        if self.stage is Stage.WAITING:
            self._count(reason.value)
        if refusal is None or self._response is not None:
            return Cut(self.request, self._response, at_once=reason is Abort.CLIENT_STALLED)
        raise refusal(self._means.settings)

    def _count(self, outcome: str) -> None:
        self._means.counters.requests.add(self._klass, outcome)


def _uncancel(task: asyncio.Task[None] | None) -> None:
    """Say that the cancellation was taken note of; Python 3.11 counts them."""
    if task is not None and hasattr(task, "uncancel"):
        task.uncancel()
