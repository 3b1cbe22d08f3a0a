"""Listeners, connections and the end: from `serve` to SIGTERM, and the time that what runs gets after it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from functools import partial
from http import HTTPStatus

import aiohttp
from aiohttp import web

from aimd.dispatch.client import AsyncClient
from aimd.dispatch.gate import answers
from aimd.dispatch.gate.answers import GateError
from aimd.dispatch.gate.counters import Counters
from aimd.dispatch.gate.exchange import Means
from aimd.dispatch.gate.gate import Gate
from aimd.dispatch.gate.reach import Reach
from aimd.dispatch.gate.settings import Address, GateSettings
from aimd.dispatch.gate.watching import watch
from aimd.errors import ConflictError, InvalidInputError
from aimd.rundirs import DISPATCH_SOCKET, client_socket

BACKLOG = 1024
CLOSE_SECONDS = 1.0  # that connections get when nothing runs any more
DRAIN_LOOK_SECONDS = 0.05
UPSTREAM_LINE_BYTES = 65536  # the model server is trusted with longer fields than clients are


class Connection(web.RequestHandler):
    """A client's connection; what is not HTTP is answered with a problem, too."""

    def __init__(self, server: web.Server, settings: GateSettings) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=settings.idle_seconds,
            access_log=None,  # type: ignore[arg-type] # documented: None switches the access log off
            max_line_size=settings.line_bytes,
            max_field_size=settings.line_bytes,
            max_headers=settings.fields,
            lingering_time=CLOSE_SECONDS,
            auto_decompress=False,
        )
        self._model = settings.model

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
        words = " ".join((message or "it cannot be parsed").split())[:200]
        error = GateError(HTTPStatus.BAD_REQUEST, "malformed_http", f"the request is no HTTP/1.1: {words}", close=True)
        body = answers.body_of(error, model=self._model, number=None)
        response = web.Response(body=body, status=error.status, content_type=answers.PROBLEM_TYPE)
        response.force_close()
        return response


class Excess(asyncio.Protocol):
    """A connection beyond the limit: told so and closed."""

    def __init__(self, settings: GateSettings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._counters.turned_away.add()
        fact = f"the gate has {self._settings.connections} connections, which is its --connections"
        error = GateError(HTTPStatus.SERVICE_UNAVAILABLE, "gate_full", fact, retry_after=answers.BUSY_SECONDS)
        transport.write(answers.raw(error, model=self._settings.model))
        transport.close()


class Listeners:
    """The gate's sockets and the connections that come by them."""

    def __init__(self, gate: Gate, settings: GateSettings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._server = web.Server(gate.answer, handler_cancellation=True)
        self._listening: list[asyncio.Server] = []

    async def start(self) -> list[str]:
        """Listen; returns where, for people.

        Raises:
            InvalidInputError, ConflictError: an address cannot be listened on.
        """
        return [place for address in self._settings.listen for place in await self._listen(address)]

    async def _listen(self, address: Address) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            if address.path is not None:
                _check_unused(address.path)
                server = await loop.create_unix_server(self._accept, address.path, backlog=BACKLOG)
            else:
                server = await loop.create_server(self._accept, address.host, address.port, backlog=BACKLOG)
        except OSError as error:
            place = address.path or f"{address.host or '*'}:{address.port}"
            fact = f"the gate cannot listen on {place}: {os.strerror(error.errno or 0)}"
            raise InvalidInputError(fact, hint="choose another --listen") from error
        self._listening.append(server)
        return [_shown(one) for one in server.sockets]

    def _accept(self) -> asyncio.BaseProtocol:
        if len(self._server.connections) >= self._settings.connections:
            return Excess(self._settings, self._counters)
        return Connection(self._server, self._settings)

    async def close(self) -> None:
        """Stop listening and end all connections."""
        for server in self._listening:
            server.close()
        self._server.pre_shutdown()
        await self._server.shutdown(CLOSE_SECONDS)
        for address in self._settings.listen:
            if address.path is not None:
                with suppress(FileNotFoundError):
                    os.unlink(address.path)  # noqa: PTH108 - no other path is handled here


def run(settings: GateSettings) -> None:
    """`serve` in an event loop of its own."""
    asyncio.run(serve(settings))


async def serve(settings: GateSettings) -> None:
    """Serve until SIGTERM or SIGINT; then let what runs end, and refuse what is new.

    Raises:
        InvalidInputError, ConflictError: an address cannot be listened on, or the dispatch socket's place is unknown.
    """
    loop, stop, now = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, partial(_signalled, stop, now))
    async with running(settings) as (gate, places):
        sys.stderr.write(f"aimd gate is ready: model {settings.model}, on {', '.join(places)}\n")
        await stop.wait()
        await drain(gate, settings, now)


@asynccontextmanager
async def running(settings: GateSettings) -> AsyncIterator[tuple[Gate, list[str]]]:
    """A gate that serves, and where; at the end its connections are closed. Raises as `serve`."""
    path = client_socket(
        os.environ, os.getuid(), option=settings.socket, variable="AIMD_DISPATCH_SOCKET", file_name=DISPATCH_SOCKET
    )
    loop, counters = asyncio.get_running_loop(), Counters()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncClient(path, patience=settings.patience))
        session = await stack.enter_async_context(_session(settings))
        reach = Reach(path, settings.patience)
        gate = Gate(Means(settings, client, session, counters, loop.time), reach)
        listeners = Listeners(gate, settings, counters)
        stack.push_async_callback(listeners.close)
        watching = loop.create_task(watch(settings, reach, gate.exchanges, loop.time))
        stack.callback(watching.cancel)
        yield gate, await listeners.start()


def _signalled(stop: asyncio.Event, now: asyncio.Event) -> None:
    """The first signal ends the gate, the second one its patience."""
    (now if stop.is_set() else stop).set()


async def drain(gate: Gate, settings: GateSettings, now: asyncio.Event) -> None:
    """Let what is under way end, for as long as it may."""
    gate.draining = True
    until = asyncio.get_running_loop().time() + settings.drain_seconds
    while gate.exchanges and not now.is_set() and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - once
        await asyncio.sleep(DRAIN_LOOK_SECONDS)
    gate.abort_all()
    while gate.exchanges:  # noqa: ASYNC110 - their answers take no time
        await asyncio.sleep(DRAIN_LOOK_SECONDS)


def _session(settings: GateSettings) -> aiohttp.ClientSession:
    """To the model server. Its pool has no bound of its own: leases bound what is under way."""
    idle = settings.upstream_idle
    connector: aiohttp.BaseConnector = (
        aiohttp.TCPConnector(limit=0, keepalive_timeout=idle)
        if settings.upstream.path is None
        else aiohttp.UnixConnector(settings.upstream.path, limit=0, keepalive_timeout=idle)
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=settings.connect_seconds, sock_read=settings.upstream_seconds
        ),
        max_line_size=UPSTREAM_LINE_BYTES,
        max_field_size=UPSTREAM_LINE_BYTES,
    )


def _check_unused(path: str) -> None:
    """Raises ConflictError where somebody answers; asyncio replaces a socket that was left behind, and a live one too."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with closing(probe), suppress(FileNotFoundError, ConnectionRefusedError):
        probe.connect(path)
        raise ConflictError(f"somebody listens on {path} already", hint="end it, or choose another --listen")


def _shown(one: socket.socket) -> str:
    name = one.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
