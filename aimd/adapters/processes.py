"""Processes of this machine: who they are (/proc), who belongs to a holder, and when all of those have ended (pidfd)."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

from aimd.domain.process import Process
from aimd.domain.scope import holder_of_scope
from aimd.errors import NotFoundError, UnreachableError
from aimd.ports import Remains

COMMAND_LIMIT = 200
CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))  # the latter beside version 1
LOOK_SECONDS = 1.0  # between two looks at a holder's children
# Before nobody is said to be left: the kernel shows no environment while a process executes another program.
MORE_LOOKS, MORE_LOOKS_SECONDS = 3, 0.05
MOST_LISTINGS = 100  # of /proc for one look; one that finds nobody new is the last
MARKER = "AIM_HOLDER"

Identity = tuple[int, int]  # pid and start time

# Of another process's files: it has ended, or this one may not look. Anything else (EMFILE) says nothing about it.
_GONE = (errno.ENOENT, errno.ESRCH)
_HIDDEN = (errno.EACCES, errno.EPERM)


def command_of(pid: int) -> str | None:
    """Command line (cut at 200 characters; the thread name for kernel threads), None if there is no such process."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        text = b" ".join(words).decode("utf-8", "replace").strip()
        if not text:
            text = Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return None
    return text[:COMMAND_LIMIT] or None


def boot_id() -> str:
    """Random id of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


def start_time_of(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat (clock ticks after boot), None if there is no such process or it is a zombie.

    Raises:
        OSError: it could not be read, which says nothing about the process.
    """
    found = _stat(pid)
    return found.start_time if found.state != "Z" else None


def marker_of(pid: int, start_time: int) -> str:
    """Value of AIM_HOLDER in the environment of a holder: whoever inherits it belongs to that holder."""
    return f"{pid}:{start_time}"


def scope_holder_of(pid: int) -> Identity | None:
    """The holder whose scope the process is in: the system's manager has put it there, and it cannot leave by itself.

    Raises:
        OSError: no descriptors or no memory is left.
    """
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError as error:
        if error.errno in (*_GONE, *_HIDDEN):
            return None
        raise
    path = next((line[3:] for line in groups if line.startswith("0::")), "")
    return holder_of_scope(path)


def _scope_populated(holder: Identity) -> bool:
    """Whether the kernel counts a process in the holder's scope; False where its control group is not shown here."""
    name = f"system.slice/aimd-claim-*-{holder[0]}.{holder[1]}.scope/cgroup.events"
    for events in (path for top in CGROUPS for path in top.glob(name)):
        try:
            if "populated 1" in events.read_text("ascii").splitlines():
                return True
        except OSError as error:
            if error.errno not in (*_GONE, errno.ENODEV):  # ENODEV: removed after it was opened
                raise
    return False


def marked_holder_of(pid: int) -> Identity | None:
    """The holder that the environment of a process names, None if it names none."""
    prefix = f"{MARKER}=".encode()
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        told = next(entry for entry in environment if entry.startswith(prefix))
        leader, _, start = told[len(prefix) :].partition(b":")
        return int(leader), int(start)
    except (OSError, StopIteration, ValueError):
        return None


class LinuxProcesses:
    """ports.Processes by /proc and pidfd_open(2).

    A holder's processes are those in its scope (aimctl exec makes one where it may), those that inherited its AIM_HOLDER
    (wherever they were reparented to) and those that were seen below it in the process tree. Environments can be read by
    root and by the same user only. Outside of a scope, a process that cleared its environment is missed if its parents
    ended within a second of its start.
    """

    def __init__(self) -> None:
        self._seen: dict[Identity, set[Identity]] = {}  # processes below a watched holder, at the last look
        self._lock = threading.Lock()
        self._tree: tuple[float, dict[int, list[int]]] = (float("-inf"), {})  # CLOCK_MONOTONIC seconds of the reading

    def identify(self, pid: int) -> Process:
        try:
            start_time = start_time_of(pid)
        except OSError as error:
            raise UnreachableError(f"process {pid} cannot be looked at: {error.strerror}") from error
        if start_time is None:
            raise NotFoundError(f"process {pid} is not there (any more)", code="unknown_process")
        return Process(pid, start_time, command_of(pid))

    def members(self, pid: int, start_time: int) -> tuple[Process, ...]:
        holder = (pid, start_time)
        try:
            found = self._living(holder)
        except OSError:
            found = {holder}
        return tuple(Process(*member, command_of(member[0])) for member in sorted(found))

    async def ended(self, pid: int, start_time: int, known: Sequence[Process] = ()) -> Remains:
        holder, before = (pid, start_time), {(process.pid, process.start_time) for process in known}
        self._seen.setdefault(holder, set()).update(before)
        try:
            watched = await self._leader_ended(holder) or bool(known)
            left = await self._others_left(holder, before)
        finally:
            self._seen.pop(holder, None)
        living = tuple(Process(*one, command_of(one[0])) for one in sorted(left))
        return Remains(watched or bool(living), living)

    async def _others_left(self, holder: Identity, before: set[Identity]) -> set[Identity]:
        """Wait until nothing is left of the holder, or others than before."""
        while True:
            left = await self._left(holder)
            if left is not None and (not left or left != before):
                return left
            await asyncio.sleep(LOOK_SECONDS)

    async def _leader_ended(self, holder: Identity) -> bool:
        """Wait for the end of the holder itself; False if it was not there."""
        while True:
            try:
                descriptor = os.pidfd_open(holder[0])
            except ProcessLookupError:
                return False
            except OSError:  # no descriptors or no memory left: nothing is known of the process
                await asyncio.sleep(LOOK_SECONDS)
                continue
            try:
                if _stat(holder[0]).start_time != holder[1] or _readable(descriptor):
                    return False  # the pid is another process's, or it is dead
                await self._readable_later(descriptor, holder)
            except OSError:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            finally:
                os.close(descriptor)
            return True

    async def _readable_later(self, descriptor: int, holder: Identity) -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(descriptor, over.set)
        ended = asyncio.ensure_future(over.wait())
        try:
            while not over.is_set():
                await self._look(holder)
                await asyncio.wait({ended}, timeout=LOOK_SECONDS)  # not wait_for(): see daemon.published
        finally:
            ended.cancel()
            loop.remove_reader(descriptor)

    async def _look(self, holder: Identity) -> None:
        try:
            self._seen[holder] = await asyncio.to_thread(self._below, holder, frozenset())
        except OSError:
            return  # looked at again in a moment

    async def _left(self, holder: Identity) -> set[Identity] | None:
        """Living processes of the holder that no other of them has started; None if that cannot be told now."""
        try:
            left = await asyncio.to_thread(self._living, holder)
            for _ in range(MORE_LOOKS):
                if not left:
                    await asyncio.sleep(MORE_LOOKS_SECONDS)
                    left = await asyncio.to_thread(self._living, holder)
            if not left and await asyncio.to_thread(_scope_populated, holder):
                return None  # /proc is read one by one: what forked and ended meanwhile was missed
            self._seen[holder] = left
            told, pids = {one: _stat(one[0]) for one in left}, {pid for pid, _ in left}
            # one that has ended meanwhile is nobody's child any more, and nothing that is left either
            return {one for one, stat in told.items() if stat.start_time == one[1] and stat.parent not in pids}
        except OSError:
            return None

    def _living(self, holder: Identity) -> set[Identity]:
        return self._below(holder, _marked(holder))

    def _below(self, holder: Identity, more: AbstractSet[Identity]) -> set[Identity]:
        with self._lock:  # one reading serves all holders
            if time.monotonic() - self._tree[0] >= LOOK_SECONDS / 2:
                self._tree = (time.monotonic(), _children())
            children = self._tree[1]
        return _below({holder, *self._seen.get(holder, ()), *more}, children)


class _Stat(NamedTuple):
    state: str
    parent: int
    start_time: int | None


def _stat(pid: int) -> _Stat:
    """The fields of /proc/<pid>/stat; "Z" without a start time if there is no such process, OSError if it is not told."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError as error:
        if error.errno in _GONE:
            return _Stat("Z", 0, None)
        raise
    fields = text.rpartition(")")[2].split()  # the command before it may hold spaces and parentheses
    return _Stat(fields[0], int(fields[1]), int(fields[19]))


def _readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _below(roots: Iterable[Identity], children: Mapping[int, list[int]]) -> set[Identity]:
    """Those of the processes that live, and their living descendants; raises OSError if that cannot be told."""
    found: set[Identity] = set()
    todo = [pid for pid, start_time in roots if start_time_of(pid) == start_time]
    while todo:
        pid = todo.pop()
        start_time = start_time_of(pid)
        if start_time is not None and (pid, start_time) not in found:
            found.add((pid, start_time))
            todo += children.get(pid, ())
    return found


def _pids() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def _children() -> dict[int, list[int]]:
    """All processes of the machine by their parent."""
    found: dict[int, list[int]] = {}
    for pid in _pids():
        found.setdefault(_stat(pid).parent, []).append(pid)
    return found


def _marked(holder: Identity) -> set[Identity]:
    """Living processes whose scope or environment names the holder; raises OSError if that cannot be told.

    While /proc is read, one that was not reached yet may start another and end. So it is listed until nobody is new.
    """
    marker = f"{MARKER}={marker_of(*holder)}".encode()
    found, seen = set(), set[int]()
    for _ in range(MOST_LISTINGS):
        new = set(_pids()) - seen
        if not new:
            break
        seen |= new
        for pid in sorted(new):
            of_it = marker in _environment(pid).split(b"\0") or scope_holder_of(pid) == holder
            start_time = start_time_of(pid) if of_it else None
            if start_time is not None:
                found.add((pid, start_time))
    return found


def _environment(pid: int) -> bytes:
    """Empty if the process has ended, or may not be looked at; raises OSError if that cannot be told."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError as error:
        if error.errno in (*_GONE, *_HIDDEN):
            return b""
        raise
