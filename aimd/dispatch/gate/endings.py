"""How a request can end other than by the model server's whole answer, and what its client is told if it can be told."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from aimd.dispatch.gate import answers
from aimd.dispatch.gate.answers import GateError
from aimd.dispatch.gate.settings import GateSettings


class Stage(Enum):
    """Where a request is: WAITING for its lease, RUNNING with it (or without one, where none is needed)."""

    WAITING = "waiting"
    RUNNING = "running"


class Abort(Enum):
    """Why a request is ended from the side."""

    UNREACHABLE = "aimd_unreachable"
    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"
    LEASE_LOST = "lease_lost"
    DRAINED = "gate_draining"


class ClientGoneError(Exception):
    """The client does not take its response any more."""


class Cut(web.StreamResponse):
    """No end of a response: the connection is closed, so that its client sees that something is missing."""

    def __init__(self, request: web.BaseRequest, begun: web.StreamResponse | None, *, at_once: bool = False) -> None:
        """Args:
        begun: the response that was begun.
        at_once: do not wait until what was written is taken.
        """
        super().__init__()
        by_close = begun is not None and not {"Content-Length", "Transfer-Encoding"} & begun.headers.keys()
        if request.transport is not None and (at_once or by_close):
            if by_close:  # an orderly end would look like the end of such a body
                _reset_at_end(request.transport)
            request.transport.abort()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """What aiohttp asks for in order to finish a response; an error of the connection makes it close that."""
        raise ConnectionResetError(f"{request.method} {request.path} was cut")


def _reset_at_end(transport: asyncio.Transport) -> None:
    """Have the kernel end the connection by a reset (tcp(7), SO_LINGER); a Unix socket has none."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def failure_of(error: BaseException, settings: GateSettings) -> GateError:
    """The answer for what went wrong with the model server."""
    where = settings.upstream.path or settings.upstream.origin
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        fact = f"model server {where} took no connection within {settings.connect_seconds:g} s"
        return GateError(HTTPStatus.GATEWAY_TIMEOUT, "upstream_timeout", fact)
    if isinstance(error, asyncio.TimeoutError):
        fact = f"model server {where} sent nothing for {settings.upstream_seconds:g} s"
        return GateError(HTTPStatus.GATEWAY_TIMEOUT, "upstream_timeout", fact)
    if isinstance(error, aiohttp.ClientConnectorError):
        fact = f"model server {where} cannot be reached: {error.os_error.strerror or error.os_error}"
        return GateError(HTTPStatus.BAD_GATEWAY, "upstream_unreachable", fact, hint="is it started, and on that port?")
    if isinstance(error, aiohttp.ClientResponseError):
        fact = f"model server {where} answered what is no HTTP: {' '.join(error.message.split())[:200]}"
        return GateError(HTTPStatus.BAD_GATEWAY, "upstream_malformed", fact)
    fact = f"model server {where} ended the connection without a whole answer"
    return GateError(HTTPStatus.BAD_GATEWAY, "upstream_closed", fact)


def malformed(error: web.RequestPayloadError) -> GateError:
    """The answer for a body that is no HTTP."""
    return GateError(
        HTTPStatus.BAD_REQUEST, "malformed_body", f"the request's body cannot be read: {error}", close=True
    )


def _stalled(settings: GateSettings) -> GateError:
    fact = f"nothing more of the request's body came for {settings.client_seconds:g} s, and its slot is needed"
    return GateError(HTTPStatus.REQUEST_TIMEOUT, "client_stalled", fact, close=True)


def _lost(settings: GateSettings) -> GateError:
    return GateError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "lease_lost",
        f"aimd took back the lease of model {settings.model!r} while the request ran",
        hint="others wait for what is guaranteed to them, or the request ran for longer than aimd's lease_max_seconds",
        retry_after=answers.BUSY_SECONDS,
    )


def draining(settings: GateSettings) -> GateError:
    """The answer of a gate that is about to end."""
    return GateError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        Abort.DRAINED.value,
        f"the gate of model {settings.model!r} is about to end and takes no requests",
        retry_after=answers.BUSY_SECONDS,
        close=True,
    )


REFUSALS: dict[Abort, Callable[[GateSettings], GateError]] = {
    Abort.CLIENT_STALLED: _stalled,
    Abort.LEASE_LOST: _lost,
    Abort.DRAINED: draining,
}
"""What a client is told that has been told nothing yet; one that is gone is told nothing."""
