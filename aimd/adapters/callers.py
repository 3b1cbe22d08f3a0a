"""Who asks at the dispatch socket: from the pid that the kernel told to a caller with pod and holders (/proc)."""

from __future__ import annotations

from pathlib import Path

from aimd.adapters.processes import marked_holder_of, scope_holder_of, start_time_of
from aimd.adapters.unix.peer import Operators, peer_by_pid
from aimd.domain.serving import Caller


def caller_of(pid: int, start_time: int, uid: int, gid: int, operators: Operators) -> Caller | None:
    """The process of this identity as it is now, None if it has ended (its pid may be another's).

    Its environment names the holder that it belongs to. Anybody can write that: it is believed where both run as the
    same user, who could as well have had the holder itself ask. Its scope is the system manager's word.
    """
    peer = peer_by_pid(pid, uid)
    holders = {(pid, start_time)}
    named = marked_holder_of(pid)
    if named is not None and _uid_of(named[0]) == uid:
        holders.add(named)
    try:
        placed = scope_holder_of(pid)
        if placed is not None:
            holders.add(placed)
        if start_time_of(pid) != start_time:
            return None
    except OSError:
        return None
    pod = (peer.pod or "") if peer.in_pod else None
    return Caller(pid, uid, gid, pod, operators.include(peer), frozenset(holders))


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


def _uid_of(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
