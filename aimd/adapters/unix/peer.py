"""Who is calling: credentials of the process at the other end of a Unix socket, and whether it may change things."""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from aimd.errors import DeniedError

_UCRED = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)
_POD = re.compile(r"pod([0-9a-f]{8}[-_0-9a-f]{27,28})")  # kubepods-besteffort-pod<uid>.slice, or kubepods/pod<uid>


@dataclass(frozen=True, slots=True)
class Peer:
    """The calling process at the time it connected.

    `account` is what connections are counted by: the uid, but for pods the pod, since most run as root. `pod` is the
    pod's UID, None outside of pods and where it cannot be told.
    """

    pid: int
    uid: int
    in_pod: bool
    account: str
    pod: str | None = None


def peer_of(connection: socket.socket) -> Peer:
    """The process that connected to the Unix socket; raises OSError if the connection has gone."""
    pid, uid, _gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return _peer(pid, uid, _cgroup_of(pid))


def peer_by_pid(pid: int, uid: int) -> Peer:
    """The process of this pid; whether it is still the one that was meant is the caller's to check afterwards."""
    return _peer(pid, uid, _cgroup_of(pid))


def _cgroup_of(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text("ascii", "replace")
    except OSError:
        return None


def _peer(pid: int, uid: int, cgroup: str | None) -> Peer:
    """A process whose cgroup cannot be looked at counts as one in a pod."""
    if cgroup is not None and "kubepods" not in cgroup:
        return Peer(pid, uid, in_pod=False, account=f"uid {uid}")
    pod = _POD.search(cgroup) if cgroup is not None else None
    if pod is None:
        return Peer(pid, uid, in_pod=True, account="pods")
    name = pod[1].replace("_", "-")  # systemd's slices have no dashes in a part of a name
    return Peer(pid, uid, in_pod=True, account=f"pod {name}", pod=name)


@dataclass(frozen=True, slots=True)
class Operators:
    """The uids that may change things: root, the daemon's own and the configured ones."""

    uids: frozenset[int]

    def include(self, peer: Peer) -> bool:
        """Whether the peer may change things. Root in a pod is uid 0 here, too: never a pod."""
        return not peer.in_pod and peer.uid in self.uids

    def require(self, peer: Peer) -> None:
        """Raise DeniedError unless the peer may change things."""
        if peer.in_pod:
            raise DeniedError(
                f"pid {peer.pid} runs in a pod, and pods change nothing on the node, expected an operator",
                hint="ask an operator of the node",
            )
        if peer.uid not in self.uids:
            raise DeniedError(
                f"uid {peer.uid} may read but not change the node, expected root or an operator",
                hint="run it as root, or add the user to operators in aimd.toml",
            )

    def require_for(self, peer: Peer, owner_uid: int) -> None:
        """Raise DeniedError unless the peer may change things, or owns this one."""
        if peer.in_pod or peer.uid != owner_uid:
            self.require(peer)
