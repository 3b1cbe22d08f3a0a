"""The local API on its Unix socket: listener, connections, routes and answers put together."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from aimd.adapters.http.api import Api, NodeFacts
from aimd.adapters.http.connection import Connection, server_of
from aimd.adapters.http.crowd import Admission
from aimd.adapters.http.limits import Limits
from aimd.adapters.http.listener import Listener
from aimd.adapters.http.resources import ROUTES
from aimd.adapters.http.responder import Responder
from aimd.adapters.http.routes import RouteTable
from aimd.adapters.unix.listening import listen
from aimd.adapters.unix.peer import Operators, Peer
from aimd.domain.cluster import ClusterStanding
from aimd.ports import ControlPlane, TrafficSource

__all__ = ["LocalApi", "NodeFacts"]

CLOSE_SECONDS = 1.0


class LocalApi:
    """The API on one Unix socket.

    Args:
        control: the daemon.
        operators: who may change things.
        facts: what /v1/node tells.
        traffic: what /v1/models tells.
        limits: what a client may cost.
        cluster: what /v1/cluster tells; None where none is configured.
    """

    def __init__(
        self,
        control: ControlPlane,
        operators: Operators,
        facts: NodeFacts,
        traffic: TrafficSource,
        limits: Limits | None = None,
        cluster: Callable[[], ClusterStanding] | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._admission: Admission[Connection] = Admission(self._limits, operators)
        api = Api(control, operators, facts, traffic, cluster)
        self._responder = Responder(RouteTable(ROUTES), api, self._limits)
        self._listener: Listener | None = None

    async def start(self, path: Path, given: socket.socket | None = None) -> None:
        """Serve `given`, a listening socket, which is closed at the end; else listen on the path.

        A socket file left there by a dead daemon is replaced (the caller holds the daemon's lock).
        """
        self._server = server_of(self._responder.respond, self._limits)
        listening = given or listen(path, self._limits.backlog)
        self._listener = Listener(listening, self._limits, self._admission, self._connection)
        self._listener.start()

    async def close(self) -> None:
        """Stop listening, end streams, let running requests have a moment, end all connections."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        await listener.close()
        self._responder.end_streams()
        self._server.pre_shutdown()
        await self._server.shutdown(CLOSE_SECONDS)

    def _connection(self, peer: Peer) -> Connection:
        return Connection(self._server, peer, self._limits, self._admission.forget)
