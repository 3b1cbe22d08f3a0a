"""Who is calling: credentials of the process at the other end of a Unix socket, and whether it may change things.

Nothing that the caller says is believed: pid and user are the kernel's word, the pod is that of its control group. In a
pod's own pid namespace a process has another number; the kernel tells the daemon its own (unix(7), SO_PEERCRED).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from aimd.adapters.unix.pod_groups import pod_of_groups
from aimd.errors import DeniedError

_UCRED = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)
_INT = struct.Struct("i")
_SO_PEERPIDFD = 77  # asm-generic/socket.h, Linux 6.5; Python has no name for it


@dataclass(frozen=True, slots=True)
class Peer:
    """The calling process at the time it connected.

    `account` is what connections are counted by: the uid, but for pods the pod, since most run as root. `pod` is the
    pod's UID, None outside of pods and where it cannot be told. A process in the daemon's own pod counts as one of the
    node: who gets in there may do all that the daemon may.
    """

    pid: int
    uid: int
    in_pod: bool
    account: str
    pod: str | None = None


def peer_of(connection: socket.socket) -> Peer:
    """The process that connected to the Unix socket; raises OSError if the connection has gone."""
    pid, uid, _gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return _peer(pid, uid, _cgroup_of_peer(connection, pid))


def peer_by_pid(pid: int, uid: int) -> Peer:
    """The process of this pid; whether it is still the one that was meant is the caller's to check afterwards."""
    return _peer(pid, uid, _cgroup_of(pid))


def _cgroup_of_peer(connection: socket.socket, pid: int) -> str | None:
    """None if the process has ended meanwhile: its pid may be another's, of the node perhaps."""
    try:
        told = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _INT.size)
    except OSError as error:
        return _cgroup_of(pid) if error.errno == errno.ENOPROTOOPT else None  # the former: Linux before 6.5
    (descriptor,) = _INT.unpack(told)
    try:
        cgroup = _cgroup_of(pid)
        return None if _ended(descriptor) else cgroup
    finally:
        os.close(descriptor)


def _ended(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _cgroup_of(pid: int | str) -> str | None:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text("ascii", "replace")
    except OSError:
        return None


def _peer(pid: int, uid: int, cgroup: str | None) -> Peer:
    """A process whose cgroup cannot be looked at counts as one in a pod."""
    told = pod_of_groups(cgroup) if cgroup is not None else ""
    if told is None or (told and told == pod_of_groups(_cgroup_of("self") or "")):
        return Peer(pid, uid, in_pod=False, account=f"uid {uid}")
    if not told:
        return Peer(pid, uid, in_pod=True, account="pods")
    return Peer(pid, uid, in_pod=True, account=f"pod {told}", pod=told)


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
