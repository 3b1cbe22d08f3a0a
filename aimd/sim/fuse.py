"""The simulated /sys as a real mount, for unmodified programs; the only module that imports mfusepy.

It keeps kernfs' habits (fs/kernfs/file.c): every write(2) is one command whatever its offset, O_TRUNC and truncate do
nothing, files are 4096 bytes long, nothing can be created, and a file's content is rendered when it is read from the
start and stays the same while it is read on. The kernel may cache nothing: nodes and mode bits change by themselves.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from aimd.errors import AimdError, ConflictError, InvalidInputError, UnreachableError
from aimd.sim.node import SimulatedNode
from aimd.sim.tree import Directory, Link

PAGE = 4096  # st_size of a sysfs attribute, and the most that one write hands to the driver
MOST_THREADS = 64  # each blocked reader or writer holds one; libfuse's default is 10


class OpenFile:
    """One open(2): the content as rendered at its last read from the start, and where that read ended."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._content = b""
        self._position = 0
        self._lock = threading.Lock()

    def read(self, node: SimulatedNode, size: int, offset: int) -> bytes:
        """As seq_read: rendered anew at offset 0 and after a jump. Raises OSError, ENODEV if the file has gone."""
        with self._lock:
            if offset == 0 or offset != self._position:
                try:
                    self._content = node.read(self.path)
                except FileNotFoundError as cause:
                    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), self.path) from cause
            piece = self._content[offset : offset + size]
            self._position = offset + len(piece)
            return piece


class SysfsOperations:
    """File system operations on a simulated node, as mfusepy calls them: each in a thread of libfuse, errors by OSError.

    Args:
        node: what is shown.
        ready: called once when the kernel has the mount.
    """

    use_ns = True  # mfusepy: times are integers, nanoseconds
    flag_nopath = flag_nullpath_ok = True  # libfuse need not hold a path's lock while a read or write blocks

    def __init__(self, node: SimulatedNode, ready: Callable[[], None]) -> None:
        self.mounted = False
        self._node = node
        self._ready = ready
        self._born = time.time_ns()
        self._owner = {"st_uid": os.getuid(), "st_gid": os.getgid()}
        self._open: dict[int, OpenFile] = {}
        self._given: dict[str, tuple[int, dict[str, int]]] = {}  # by path: the driver's mode, what was made of it
        self._lock = threading.Lock()
        self._next_handle = 1

    def init(self, _path: str) -> None:
        self.mounted = True
        self._ready()

    # -- looking ---------------------------------------------------------------------------------------------

    def getattr(self, path: str | None, handle: int | None = None) -> dict[str, int]:
        entry = self._node.entry(self._path(path, handle))
        if isinstance(entry, Directory):
            kind = {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 1, "st_size": 0}  # 1 link: subdirectories not counted
        elif isinstance(entry, Link):
            kind = {"st_mode": stat.S_IFLNK | 0o777, "st_nlink": 1, "st_size": len(entry.target)}
        else:
            kind = {"st_mode": stat.S_IFREG | entry.mode, "st_nlink": 1, "st_size": PAGE}
        times = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), self._born)
        return {**kind, **self._owner, **times, **self._changed(self._path(path, handle), kind["st_mode"])}

    def _changed(self, path: str, mode: int) -> dict[str, int]:
        """Owner and mode that were given to a file, as long as the driver has not changed its mode itself."""
        before, changed = self._given.get(path, (mode, {}))
        return changed if before == mode else {}

    def chmod(self, path: str, mode: int) -> int:
        """As kernfs: it lasts until the file is made anew; here until the driver gives it another mode."""
        return self._give(path, {"st_mode": mode})

    def chown(self, path: str, uid: int, gid: int) -> int:
        """A number of -1 leaves owner or group as it is."""
        wanted = {"st_uid": uid, "st_gid": gid}
        return self._give(path, {name: number for name, number in wanted.items() if number not in (-1, 0xFFFFFFFF)})

    def _give(self, path: str, changed: dict[str, int]) -> int:
        relative = self._path(path, None)
        entry = self._node.entry(relative)
        if isinstance(entry, (Directory, Link)):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        mode = stat.S_IFREG | entry.mode
        self._given[relative] = mode, {**self._changed(relative, mode), **changed}
        return 0

    def readdir(self, path: str | None, handle: int) -> list[str]:
        return [".", "..", *self._node.listdir(self._path(path, handle))]

    def opendir(self, path: str) -> int:
        return self._handle(path)

    def releasedir(self, _path: str | None, handle: int) -> int:
        return self.release(None, handle)

    def readlink(self, path: str) -> str:
        return self._node.readlink(self._path(path, None))

    # -- attributes ------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        """A handle, after the checks of kernfs_fop_open: a missing mode bit is EACCES even for root."""
        relative = self._path(path, None)
        access = flags & os.O_ACCMODE
        if access != os.O_RDONLY:
            self._node.check_open_for_write(relative)
        if access != os.O_WRONLY and not self._mode(relative) & 0o444:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return self._handle(path)

    def read(self, _path: str | None, size: int, offset: int, handle: int) -> bytes:
        return self._open[handle].read(self._node, size, offset)

    def write(self, _path: str | None, data: bytes, _offset: int, handle: int) -> int:
        command = data[:PAGE]
        self._node.write(self._open[handle].path, command)
        return len(command)

    def release(self, _path: str | None, handle: int) -> int:
        with self._lock:
            self._open.pop(handle, None)
        return 0

    def truncate(self, _path: str | None, _length: int, _handle: int | None = None) -> int:
        return 0

    def utimens(self, _path: str | None, _times: object = None) -> int:
        return 0

    # -- what sysfs refuses: vfs_create answers EACCES, all others EPERM, where a file system has no such operation ---

    def create(self, path: str, _mode: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    def mknod(self, path: str, *_more: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    mkdir = unlink = rmdir = symlink = link = rename = mknod

    # -- inside ----------------------------------------------------------------------------------------------

    def _path(self, path: str | None, handle: int | None) -> str:
        """The path relative to /sys; libfuse leaves it out where there is a handle."""
        if path is not None:
            return path.lstrip("/")
        if handle is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._open[handle].path

    def _mode(self, path: str) -> int:
        entry = self._node.entry(path)
        return 0o777 if isinstance(entry, (Directory, Link)) else entry.mode

    def _handle(self, path: str) -> int:
        with self._lock:
            handle = self._next_handle
            self._next_handle += 1
            self._open[handle] = OpenFile(path.lstrip("/"))
        return handle


def mount(node: SimulatedNode, directory: Path, ready: Callable[[], None]) -> None:
    """Mount the node's /sys and serve it until SIGINT, SIGTERM or an umount; call it in the main thread.

    Raises:
        InvalidInputError: the directory cannot be a mount point.
        ConflictError: something is mounted there, or was and its server has died.
        UnreachableError: mfusepy, libfuse or the kernel's FUSE is not available.
    """
    library = load_library()
    check_mount_point(directory)
    options: dict[str, object] = {"entry_timeout": 0, "attr_timeout": 0, "negative_timeout": 0}
    if library.fuse_version_major >= 3 and library.fuse_version_minor >= 12:
        options["max_threads"] = options["max_idle_threads"] = (
            MOST_THREADS  # one alone: libfuse 3.14 warns of the other
        )
    if os.getuid() == 0:
        options["allow_other"] = True
    operations = SysfsOperations(node, ready)
    try:
        library.FUSE(
            operations,
            str(directory),
            foreground=True,
            fsname="aimd-sim",
            subtype="sysfs",
            default_permissions=True,
            direct_io=True,
            **options,
        )
    except RuntimeError as cause:  # its number is that of libfuse's main, which has printed the reason
        if operations.mounted:
            return  # libfuse 3 answers 8 when a signal ended its loop
        raise UnreachableError(
            f"the simulated /sys cannot be mounted on {directory} (libfuse error {cause}), expected access to /dev/fuse",
            hint="load the kernel module (modprobe fuse), be root or install the Debian package fuse3",
        ) from cause


def load_library() -> ModuleType:
    """The module mfusepy; raises UnreachableError that says what to install."""
    try:
        import mfusepy  # noqa: PLC0415 -- an extra: only a mount needs it
    except ImportError as cause:
        raise UnreachableError(
            "the Python package mfusepy is missing, expected it for a mount", hint="pip install 'aimd[sim]'"
        ) from cause
    except OSError as cause:
        raise UnreachableError(
            "libfuse is missing, expected libfuse.so.2 or libfuse3.so.3 for a mount",
            hint="install the Debian package libfuse3-3",
        ) from cause
    module: ModuleType = mfusepy
    return module


def check_mount_point(directory: Path) -> None:
    """Raise the AimdError for a directory that cannot be mounted on."""
    problem: AimdError | None = None
    try:
        if not stat.S_ISDIR(directory.stat().st_mode):
            problem = InvalidInputError(f"mount point {directory} is a file, expected a directory")
        elif directory.is_mount():
            problem = ConflictError(
                f"something is mounted on {directory}, expected a free directory", hint=f"umount {directory}"
            )
    except FileNotFoundError:
        problem = InvalidInputError(f"mount point {directory} does not exist, expected a directory")
    except OSError as cause:
        if cause.errno != errno.ENOTCONN:
            raise
        problem = ConflictError(
            f"mount point {directory} was left by a simulation that has died, expected a free directory",
            hint=f"umount -l {directory}, or fusermount3 -uz {directory}",
        )
    if problem is not None:
        raise problem
