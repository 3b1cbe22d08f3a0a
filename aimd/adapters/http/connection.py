"""One HTTP connection: aiohttp's protocol with deadlines, a bounded head, and problems for what is not HTTP.

aiohttp has limits for a header's length and for idle keep-alive connections; the time and size of a whole head and a
client that does not read are its user's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from http import HTTPStatus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from aimd.adapters.http.limits import Limits
from aimd.adapters.http.problems import PROBLEM_TYPE, HttpError, problem_of, raw_response
from aimd.adapters.unix.peer import Peer
from aimd.protocol.messages import to_json


class Phase(Enum):
    """What a connection does: WAITING for a request's head, RECEIVING its body, SERVING it."""

    WAITING = "waiting"
    RECEIVING = "receiving"
    SERVING = "serving"


class Connection(web.RequestHandler):
    """A connection from its accept to its end.

    Attributes:
        peer: who connected.
        phase: what it does.
        since: when it began to do so; the loop's seconds.
    """

    def __init__(self, server: web.Server, peer: Peer, limits: Limits, ended: Callable[[Connection], None]) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.idle_seconds,
            tcp_keepalive=False,
            access_log=None,  # type: ignore[arg-type] # documented: None switches the access log off
            max_line_size=limits.line_bytes,
            max_field_size=limits.line_bytes,
            max_headers=limits.headers,
            lingering_time=limits.body_seconds,
            auto_decompress=False,  # a compressed body is no JSON, and nothing to inflate
        )
        self.peer = peer
        self.phase = Phase.WAITING
        self.since = loop.time()
        self._limits = limits
        self._ended = ended
        self._clock = loop
        self._head_bytes = 0
        self._head_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._dropped = False

    @property
    def replaceable(self) -> bool:
        """Whether it may be ended for another one's sake: nobody waits for its answer, or its client does not read."""
        return self.phase is not Phase.SERVING or self.writing_paused

    def drop(self) -> None:
        """End it at once."""
        self._dropped = True
        if self.transport is not None:
            self.transport.abort()

    # -- what happens to it ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._expect_head()
        if self._dropped:
            self.drop()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_deadline()
        self._stop_write_deadline()
        self._ended(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.phase is Phase.WAITING:
            self._expect_head()
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(_head_too_large(f"more than {self._limits.head_bytes} bytes"))
                return
            self._head_bytes += len(data)
        super().data_received(data)

    def head_received(self) -> None:
        """A request's head is complete; its body may still come."""
        self._stop_head_deadline()
        self._enter(Phase.RECEIVING)

    def request_received(self) -> None:
        """All of the request is there."""
        self._enter(Phase.SERVING)

    def answered(self) -> None:
        """The answer was written; the next request may come.

        If a part of it came behind this one already, that is not known here, and it has until the connection is idle
        for too long.
        """
        self._head_bytes = 0
        self._enter(Phase.WAITING)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self._clock.call_later(self._limits.write_seconds, self.drop)

    def resume_writing(self) -> None:
        self._stop_write_deadline()
        super().resume_writing()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is not HTTP (status 400), as a problem."""
        if status != HTTPStatus.BAD_REQUEST:
            return super().handle_error(request, status, exc, message)
        if isinstance(exc, LineTooLong):
            error = _head_too_large(f"a line of it more than {self._limits.line_bytes} bytes")
        else:
            words = " ".join((message or "it cannot be parsed").split())[:200]
            error = HttpError(HTTPStatus.BAD_REQUEST, "malformed_http", f"the request is no HTTP/1.1: {words}")
        problem = problem_of(error)
        response = web.Response(body=to_json(problem), status=problem.status, content_type=PROBLEM_TYPE)
        response.force_close()
        return response

    # -- deadlines -------------------------------------------------------------------------------------------

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.since = self._clock.time()

    def _expect_head(self) -> None:
        if self._head_deadline is None:
            self._head_deadline = self._clock.call_later(self._limits.head_seconds, self._head_is_late)

    def _stop_head_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _stop_write_deadline(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _head_is_late(self) -> None:
        seconds = f"within {self._limits.head_seconds:g} s"
        self._refuse(
            HttpError(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", f"the request's head was not complete {seconds}")
        )

    def _refuse(self, error: HttpError) -> None:
        """Say why and end the connection; one that has sent nothing is not told, it has asked nothing."""
        if self.transport is not None and self._head_bytes:
            self.transport.write(raw_response(error))
        self.force_close()


def server_of(respond: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], limits: Limits) -> web.Server:
    """The server of such connections: each request is given to `respond`, one of a connection at a time.

    A request whose client has hung up is cancelled: a watch would wait for ever for something to write.
    """
    loop = asyncio.get_running_loop()

    def request(
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        assert isinstance(protocol, Connection)
        protocol.head_received()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=limits.body_bytes)

    return web.Server(respond, request_factory=request, handler_cancellation=True)


def _head_too_large(fact: str) -> HttpError:
    return HttpError(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", f"the request's head is too large: {fact}"
    )
