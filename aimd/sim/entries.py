"""Entries of a simulated file tree, and the walk from a path to an entry. Knows nothing of GPUs.

Contents are made when they are asked for, so that a tree of thousands of files costs nothing until somebody looks.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Mapping

from aimd.sim.driver import WriteOutcome

LINK_LIMIT = 40  # MAXSYMLINKS of the kernel


class Directory:
    """A folder; `build(now)` gives its present entries and is expected to keep what it made."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[[float], Mapping[str, Entry]]) -> None:
        self._build = build

    def children(self, now: float) -> dict[str, Entry]:
        return dict(self._build(now))

    def child(self, name: str, now: float) -> Entry | None:
        return self._build(now).get(name)


class File:
    """A file of sysfs: `mode` has the permission bits, contents and effects are the driver's.

    Reading and writing raise `Blocked` where the driver would sleep on a lock, else OSError.
    """

    __slots__ = ("_may_open", "_read", "_write", "mode")

    def __init__(
        self,
        read: Callable[[float], str | bytes] | None,
        *,
        mode: int = 0o444,
        write: Callable[[bytes, float], WriteOutcome] | None = None,
        may_open: Callable[[], int] | None = None,
    ) -> None:
        self.mode = mode
        self._read = read
        self._write = write
        self._may_open = may_open

    def read(self, now: float) -> bytes:
        if self._read is None:
            raise failure(errno.EIO)
        content = self._read(now)
        return content if isinstance(content, bytes) else content.encode()

    def write(self, data: bytes, now: float) -> WriteOutcome:
        """Carry out one command. EIO for a file without a store function, as in sysfs."""
        if self._write is None:
            return WriteOutcome(now, errno.EIO)
        return self._write(data, now)

    def check_open_for_write(self) -> None:
        """EACCES without a write bit, for root too (KERNFS_ROOT_EXTRA_OPEN_PERM_CHECK), or what `may_open` says."""
        code = errno.EACCES if not self.mode & 0o222 else self._may_open() if self._may_open is not None else 0
        if code:
            raise failure(code)


class Link:
    """A symbolic link; the target is relative to the folder that holds it."""

    __slots__ = ("target",)

    def __init__(self, target: str) -> None:
        self.target = target


Entry = Directory | File | Link


def failure(code: int, path: str | None = None) -> OSError:
    """The OSError of this errno (PermissionError and the like where Python has a class of its own)."""
    return OSError(code, os.strerror(code), path) if path is not None else OSError(code, os.strerror(code))


def constant(text: str) -> File:
    """A read-only file whose text does not change."""
    return File(lambda _now: text)


def folder(entries: Mapping[str, Entry]) -> Directory:
    """A folder whose entries do not change."""
    return Directory(lambda _now: entries)


def lazy(make: Callable[[], Mapping[str, Entry]]) -> Directory:
    """A folder whose entries do not change and are made at the first look."""
    made: list[Mapping[str, Entry]] = []

    def build(_now: float) -> Mapping[str, Entry]:
        if not made:
            made.append(make())
        return made[0]

    return Directory(build)


def nested(entries: Mapping[str, Entry]) -> Directory:
    """Folders from entries named by paths (`drm/card1/dev`); a folder that exists only as a prefix is made."""
    level: dict[str, Entry] = {}
    deeper: dict[str, dict[str, Entry]] = {}
    for path, entry in entries.items():
        head, _, rest = path.partition("/")
        if rest:
            deeper.setdefault(head, {})[rest] = entry
        else:
            level[head] = entry
    level.update({head: nested(rest) for head, rest in deeper.items()})
    return folder(level)


def resolve(root: Directory, path: str, now: float, *, follow_last: bool = True) -> Entry:
    """The entry at a path relative to the root, links followed; an empty path is the root.

    Raises:
        OSError: ENOENT, ENOTDIR, or ELOOP after 40 links, with the path.
    """
    parts = deque(part for part in path.split("/") if part not in ("", "."))
    stack: list[Directory] = [root]
    links = 0
    while parts:
        name = parts.popleft()
        if name == "..":
            if len(stack) > 1:
                stack.pop()
            continue
        entry = stack[-1].child(name, now)
        if entry is None:
            raise failure(errno.ENOENT, path)
        if isinstance(entry, Link):
            if not parts and not follow_last:
                return entry
            links += 1
            if links > LINK_LIMIT:
                raise failure(errno.ELOOP, path)
            parts.extendleft(part for part in reversed(entry.target.split("/")) if part not in ("", "."))
        elif isinstance(entry, Directory):
            stack.append(entry)
        elif parts:
            raise failure(errno.ENOTDIR, path)
        else:
            return entry
    return stack[-1]
