"""Who a process is: from the pid that the kernel told to its pod and the holders that it belongs to (/proc)."""

from __future__ import annotations

from pathlib import Path

from aimd.adapters.processes import Identity, marked_holder_of, scope_holder_of, start_time_of
from aimd.adapters.unix.peer import Operators, Peer, peer_by_pid
from aimd.domain.serving import Caller


def caller_of(pid: int, start_time: int, uid: int, gid: int, operators: Operators) -> Caller | None:
    """The process of this identity as it is now, None if it has ended (its pid may be another's).

    Its scope is the system manager's word, its environment its own (see `holder_of`).
    """
    peer = peer_by_pid(pid, uid)
    try:
        holders = {(pid, start_time), *_holders_above(peer)}
        if start_time_of(pid) != start_time:
            return None
    except OSError:
        return None
    pod = (peer.pod or "") if peer.in_pod else None
    return Caller(pid, uid, gid, pod, operators.include(peer), frozenset(holders))


def holders_of_process(peer: Peer) -> frozenset[Identity]:
    """Identities of the claim holders that the process could be or belong to; empty if it has ended."""
    try:
        start_time = start_time_of(peer.pid)
        return frozenset({(peer.pid, start_time), *_holders_above(peer)}) if start_time is not None else frozenset()
    except OSError:
        return frozenset()


def _holders_above(peer: Peer) -> set[Identity]:
    """Raises OSError if no descriptors or no memory is left."""
    named, placed = marked_holder_of(peer.pid), scope_holder_of(peer.pid)
    believed = named if named is not None and _could_be(peer, named[0]) else None
    return {holder for holder in (believed, placed) if holder is not None}


def holder_of(pid: int) -> Identity | None:
    """Pid and start time of the claim holder that a process belongs to, None if neither scope nor environment tells it.

    Anybody can write the name of a holder into an environment: it is believed where both run as the same user in the same
    pod, or outside of pods, who could as well have had the holder itself ask; and of a holder that has ended.
    """
    try:
        placed = scope_holder_of(pid)
    except OSError:
        placed = None
    if placed is not None:
        return placed
    named, uid = marked_holder_of(pid), _uid_of(pid)
    if named is None or uid is None:
        return None
    return named if _uid_of(named[0]) is None or _could_be(peer_by_pid(pid, uid), named[0]) else None


def pod_of(pid: int, start_time: int) -> str | None:
    """UID of the pod that the process of this identity runs in; None outside of pods, or if it has ended.

    Raises:
        OSError: the process cannot be looked at.
    """
    pod = peer_by_pid(pid, 0).pod
    try:
        return pod if start_time_of(pid) == start_time else None
    except (FileNotFoundError, ProcessLookupError):
        return None


def _could_be(peer: Peer, holder: int) -> bool:
    """Whether the process runs as the user of this holder, and in the same pod if in any; user 0 is another in each pod."""
    uid = _uid_of(holder)
    if uid != peer.uid:
        return False
    other = peer_by_pid(holder, peer.uid)
    return (peer.in_pod, peer.pod) == (other.in_pod, other.pod) and (peer.pod is not None or not peer.in_pod)


def _uid_of(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
