"""Who is calling: credentials of the process at the other end of a Unix socket, and whether it may change things."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from aimd.errors import DeniedError

_UCRED = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)


@dataclass(frozen=True, slots=True)
class Peer:
    """The calling process at the time it connected."""

    pid: int
    uid: int
    in_pod: bool


def peer_of(request: web.Request) -> Peer:
    """The peer of the request's connection.

    Raises:
        DeniedError: the connection is no Unix socket or has gone.
    """
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None or connection.family != socket.AF_UNIX:
        raise DeniedError("the caller cannot be identified, expected a connection to the Unix socket")
    pid, uid, _gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, uid, _in_pod(pid))


def _in_pod(pid: int) -> bool:
    """Whether the process lives in a pod's cgroup; one that cannot be looked at counts as such."""
    try:
        return "kubepods" in Path(f"/proc/{pid}/cgroup").read_text("ascii", "replace")
    except OSError:
        return True


@dataclass(frozen=True, slots=True)
class Operators:
    """The uids that may change things: root, the daemon's own and the configured ones."""

    uids: frozenset[int]

    def require(self, peer: Peer) -> None:
        """Raise DeniedError unless the peer may change things. Root in a pod is uid 0 here, too: never a pod."""
        if peer.in_pod:
            raise DeniedError(
                f"pid {peer.pid} runs in a pod, and pods change no partition modes",
                hint="ask an operator of the node",
            )
        if peer.uid not in self.uids:
            raise DeniedError(
                f"uid {peer.uid} may read but not change the node, expected root or an operator",
                hint="run it as root, or add the user to operators in aimd.toml",
            )
