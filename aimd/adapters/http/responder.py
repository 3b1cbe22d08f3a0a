"""From an HTTP request to its answer: checks what all requests have in common, calls the operation, writes the result."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import hdrs, web

from aimd.adapters.http.api import Api
from aimd.adapters.http.call import Answer, Call, Document, Result, Stream
from aimd.adapters.http.connection import Connection
from aimd.adapters.http.limits import Limits
from aimd.adapters.http.problems import PROBLEM_TYPE, HttpError, internal_problem, problem_of
from aimd.adapters.http.routes import Route, RouteTable
from aimd.errors import AimdError, InvalidInputError
from aimd.protocol.messages import ProblemMessage, to_json

log = logging.getLogger("aimd.api")

HOSTS = frozenset({"aimd", "localhost"})
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Responder:
    """Answers the requests of all connections."""

    def __init__(self, routes: RouteTable, api: Api, limits: Limits) -> None:
        self._routes = routes
        self._api = api
        self._limits = limits
        self._streams: set[asyncio.Task[object]] = set()
        self._ending = False

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Write the answer to the request and return it; every error leaves as a problem."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        try:
            return await self._answered(request, connection)
        except HttpError as error:
            return await _sent(request, _problem(problem_of(error), error.headers))
        except AimdError as error:
            return await _sent(request, _problem(problem_of(error)))
        except Exception:
            name = f"{request.method} {request.rel_url.raw_path}"
            log.exception("%a failed", name)
            if request.writer.output_size:  # in the middle of a stream: a clean end would be a lie
                connection.drop()
            return await _sent(request, _problem(internal_problem(name)))
        finally:
            connection.answered()

    def end_streams(self) -> None:
        """Let all streams end properly, and all to come at once."""
        self._ending = True
        for task in self._streams:
            task.cancel()

    async def _answered(self, request: web.BaseRequest, connection: Connection) -> web.StreamResponse:
        _check_host(request)
        raw_path = request.rel_url.raw_path
        if request.method == hdrs.METH_OPTIONS:
            allowed = self._routes.methods(raw_path)
            connection.request_received()
            return await _sent(request, web.Response(status=HTTPStatus.NO_CONTENT, headers={hdrs.ALLOW: allowed}))
        route, variables = self._routes.find(request.method, raw_path)
        query = _query(route, request)
        content = await self._body(request) if route.body is not None else b""
        connection.request_received()
        call = Call(connection.peer, variables, query, content)
        result = await self._result(route, call)
        if isinstance(result, Stream):
            return await self._stream(request, result)
        return await _sent(request, _response(result))

    async def _result(self, route: Route, call: Call) -> Result:
        try:
            return await asyncio.wait_for(route.operation(self._api, call), self._limits.answer_seconds)
        except asyncio.TimeoutError:
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "timeout",
                f"{route.method} {route.path} was not done within {self._limits.answer_seconds:g} s",
                hint="the daemon's log may tell what it waits for; a repeated request is the same request",
            ) from None

    async def _body(self, request: web.BaseRequest) -> bytes:
        limit, seconds = self._limits.body_bytes, self._limits.body_seconds
        too_large = HttpError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body_too_large",
            f"the request's body is larger than {limit} bytes",
            hint="no request of this API is as large",
        )
        if (request.content_length or 0) > limit:
            raise too_large
        await _invite_body(request)
        try:
            return await asyncio.wait_for(request.read(), seconds)
        except web.HTTPRequestEntityTooLarge:
            raise too_large from None
        except web.RequestPayloadError as error:
            raise HttpError(
                HTTPStatus.BAD_REQUEST, "malformed_http", f"the request's body is malformed: {error}"
            ) from (error)
        except asyncio.TimeoutError:
            raise HttpError(
                HTTPStatus.REQUEST_TIMEOUT,
                "request_timeout",
                f"the request's body was not complete within {seconds:g} s",
            ) from None

    async def _stream(self, request: web.BaseRequest, stream: Stream) -> web.StreamResponse:
        """NDJSON: one message a line, as they come."""
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "application/x-ndjson"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            if request.method != hdrs.METH_HEAD and not self._ending:
                async for message in stream.messages:
                    await response.write(to_json(message) + b"\n")
        except asyncio.CancelledError:
            if not self._ending:
                raise
        except ConnectionError:
            return response
        finally:
            self._streams.discard(task)
            await stream.messages.aclose()
        response.force_close()
        return await _sent(request, response)


def _check_host(request: web.BaseRequest) -> None:
    """A browser that was led here by a foreign page says so; a client of this socket has no other name for it."""
    hosts = request.headers.getall(hdrs.HOST, [])
    named = request.host if len(hosts) == 1 else ", ".join(hosts)  # the host of an absolute target, if there is one
    if len(hosts) != 1 or named.partition(":")[0].lower() not in HOSTS:
        raise InvalidInputError(f"Host is {named!r}, expected aimd or localhost", code="host_invalid")


def _query(route: Route, request: web.BaseRequest) -> dict[str, str]:
    """The query's parameters; raises InvalidInputError for those that the route does not know, or twice."""
    given = request.rel_url.query
    known = [parameter.name for parameter in route.query]
    for name in given:
        if name not in known:
            expected = f"expected {' or '.join(known)}" if known else "it takes none"
            raise InvalidInputError(f"query parameter {name!r} is unknown to {route.path}, {expected}")
        if len(given.getall(name)) > 1:
            raise InvalidInputError(f"query parameter {name!r} is there more than once, expected one value")
    return dict(given)


async def _invite_body(request: web.BaseRequest) -> None:
    expectation = request.headers.get(hdrs.EXPECT)
    if expectation is None:
        return
    if expectation.lower() != "100-continue":
        raise HttpError(
            HTTPStatus.EXPECTATION_FAILED, "expectation_failed", f"Expect is {expectation!r}, expected 100-continue"
        )
    if request.transport is not None:
        request.transport.write(CONTINUE)


def _response(result: Result) -> web.Response:
    if isinstance(result, Answer):
        return web.Response(body=to_json(result.message), status=result.status, content_type="application/json")
    assert isinstance(result, Document)
    return web.Response(body=result.body, status=result.status, content_type="application/json")


def _problem(problem: ProblemMessage, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=to_json(problem), status=problem.status, content_type=PROBLEM_TYPE, headers=headers)


async def _sent(request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
    """Written here, so that it is known when; aiohttp finds nothing left to do.

    If the client has gone, aiohttp finds that out once more, and ends the connection.
    """
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await response.write_eof()
    return response
