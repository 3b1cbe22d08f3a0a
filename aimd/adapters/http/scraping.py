"""The metrics endpoint: /metrics, /healthz, /readyz on TCP and on a Unix socket, for everyone; nothing can be changed here.

With the connections, limits and admission of the local API. Who connects by TCP is not known, so all of an address share
what it may have.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from http import HTTPStatus
from pathlib import Path

from aiohttp import hdrs, web

from aimd.adapters.http.connection import Connection, server_of
from aimd.adapters.http.crowd import Admission
from aimd.adapters.http.health import Examined, not_alive, not_ready
from aimd.adapters.http.limits import Limits
from aimd.adapters.http.listener import Listener
from aimd.adapters.http.problems import PROBLEM_TYPE, HttpError, internal_problem, problem_of
from aimd.adapters.unix.listening import listen
from aimd.adapters.unix.peer import Operators, Peer, peer_of
from aimd.errors import UnreachableError
from aimd.ports import MetricsPages
from aimd.protocol.messages import HealthMessage, ProblemMessage, to_json

log = logging.getLogger("aimd.metrics")

# A scraper has one connection, or one for each page. Nobody sends a body, or long fields.
LIMITS = Limits(
    body_bytes=0,
    head_bytes=16 * 1024,
    headers=48,
    body_seconds=1.0,
    idle_seconds=90.0,
    answer_seconds=20.0,
    write_seconds=10.0,
    connections=64,
    reserved=0,
    per_account=64,
)
CLOSE_SECONDS = 1.0
ALLOWED = "GET, HEAD"


def listen_tcp(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket at an IPv4 or IPv6 address; raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, port))
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening


def peer_by_address(connection: socket.socket) -> Peer:
    """Somebody who connected by TCP, never an operator; raises OSError if the connection has gone."""
    address = connection.getpeername()[0]
    return Peer(pid=0, uid=-1, in_pod=True, account=f"address {address}")


class MetricsEndpoint:
    """Serves pages and checks on any number of sockets, each of which has its own share of connections.

    Args:
        pages: of metrics.
        control: whose health is told.
    """

    def __init__(self, pages: MetricsPages, control: Examined, limits: Limits = LIMITS) -> None:
        self._pages = pages
        self._control = control
        self._limits = limits
        self._listeners: list[Listener] = []
        self._server: web.Server | None = None

    def serve(self, listening: socket.socket) -> None:
        """Serve on a listening socket, which is closed in the end."""
        if self._server is None:
            self._server = server_of(self._respond, self._limits)
        server = self._server
        admission: Admission[Connection] = Admission(self._limits, Operators(frozenset()))
        listener = Listener(
            listening,
            self._limits,
            admission,
            lambda peer: Connection(server, peer, self._limits, admission.forget),
            peer_of if listening.family == socket.AF_UNIX else peer_by_address,
        )
        listener.start()
        self._listeners.append(listener)

    def serve_path(self, path: Path) -> None:
        """Serve on a Unix socket at the path; a file left by a dead daemon is replaced."""
        self.serve(listen(path, self._limits.backlog))

    def serve_tcp(self, host: str, port: int) -> None:
        """Serve at a TCP address.

        Raises:
            UnreachableError: it cannot be had.
        """
        try:
            self.serve(listen_tcp(host, port, self._limits.backlog))
        except OSError as error:
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            raise UnreachableError(
                f"metrics cannot be served at {where}: {error.strerror}",
                code="address_in_use",
                hint='choose another address in aimd.toml: [metrics] listen = "ADDRESS:PORT", or "off"',
            ) from error

    async def close(self) -> None:
        """Stop listening, let running requests have a moment, end all connections."""
        listeners, self._listeners = self._listeners, []
        await asyncio.gather(*(listener.close() for listener in listeners))
        if self._server is not None:
            self._server.pre_shutdown()
            await self._server.shutdown(CLOSE_SECONDS)

    async def _respond(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.request_received()
        try:
            response = await self._answer(request)
        except HttpError as error:
            response = _problem(problem_of(error), error.headers)
        except Exception:  # the API's handler: a page that fails must not end the daemon
            log.exception("%a failed", request.rel_url.raw_path)
            response = _problem(internal_problem(f"{request.method} {request.rel_url.raw_path}"))
        try:
            with contextlib.suppress(ConnectionError):
                await response.prepare(request)
                await response.write_eof()
        finally:
            connection.answered()
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        path = request.rel_url.raw_path
        if path not in ("/metrics", "/healthz", "/health", "/readyz"):
            raise HttpError(
                HTTPStatus.NOT_FOUND, "unknown_path", f"{path!a} is not here", hint="/metrics, /healthz and /readyz are"
            )
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            fact = f"{request.method} is not allowed here, expected {ALLOWED}"
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", fact, Allow=ALLOWED)
        if path == "/metrics":
            return await self._page(request)
        return _health(not_ready(self._control) if path == "/readyz" else not_alive(self._control))

    async def _page(self, request: web.BaseRequest) -> web.Response:
        accept = ",".join(request.headers.getall(hdrs.ACCEPT, []))
        encoding = ",".join(request.headers.getall(hdrs.ACCEPT_ENCODING, []))
        try:
            page = await asyncio.wait_for(self._pages.page(accept, encoding), self._limits.answer_seconds)
        except asyncio.TimeoutError:
            fact = f"the page was not made within {self._limits.answer_seconds:g} s"
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "timeout", fact) from None
        headers = {hdrs.CONTENT_TYPE: page.content_type, hdrs.VARY: "Accept, Accept-Encoding"}
        if page.content_encoding is not None:
            headers[hdrs.CONTENT_ENCODING] = page.content_encoding
        return web.Response(body=page.body, headers=headers)


def _health(failing: dict[str, str]) -> web.Response:
    message = HealthMessage(status="failing" if failing else "ok", failing=failing)
    status = HTTPStatus.SERVICE_UNAVAILABLE if failing else HTTPStatus.OK
    return web.Response(body=to_json(message), status=status, content_type="application/json")


def _problem(problem: ProblemMessage, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=to_json(problem), status=problem.status, content_type=PROBLEM_TYPE, headers=headers)
