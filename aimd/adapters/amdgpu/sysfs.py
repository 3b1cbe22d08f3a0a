"""Files below a real sysfs root (or a mounted simulation, or a captured tree): ports.Sysfs by plain system calls."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from aimd.ports import Sysfs

CHUNK = 64 * 1024
PAGE = 4096  # what a sysfs attribute has at most
NUMBER = 64  # more than any number takes


class OsSysfs:
    """Reads and writes below `root`; every method raises OSError with the errno of its system call."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    def read(self, path: str) -> bytes:
        descriptor = os.open(self._path(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = os.read(descriptor, PAGE)
            if len(content) < PAGE:  # one read(2) gives an attribute as a whole
                return content
            while part := os.read(descriptor, CHUNK):
                content += part
            return content
        finally:
            os.close(descriptor)

    def read_numbers(self, folder: str, names: Sequence[str]) -> list[bytes | OSError]:
        """The content of each file of a folder, 64 bytes at most, or the error of its reading.

        Half the time of `read` where there are thousands: the folder is looked up once, and little is allocated.
        """
        directory = os.open(self._path(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        found: list[bytes | OSError] = []
        opened, read, close, flags = os.open, os.read, os.close, os.O_RDONLY | os.O_CLOEXEC
        try:
            for name in names:
                try:
                    descriptor = opened(name, flags, 0, dir_fd=directory)
                    try:
                        found.append(read(descriptor, NUMBER))
                    finally:
                        close(descriptor)
                except OSError as error:
                    found.append(error)
        finally:
            close(directory)
        return found

    def write(self, path: str, data: bytes) -> None:
        descriptor = os.open(self._path(path), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, data)  # one write(2): each is one command to the driver
        finally:
            os.close(descriptor)

    def listdir(self, path: str) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self._path(path)))

    def readlink(self, path: str) -> str:
        return os.fspath(Path(self._path(path)).readlink())

    def writable(self, path: str) -> bool:
        return bool(stat.S_IMODE(Path(self._path(path)).stat().st_mode) & 0o222)


def read_numbers(sysfs: Sysfs, folder: str, names: Sequence[str]) -> list[bytes | OSError]:
    """As OsSysfs.read_numbers, of any sysfs; raises OSError for the folder."""
    if isinstance(sysfs, OsSysfs):
        return sysfs.read_numbers(folder, names)
    found: list[bytes | OSError] = []
    for name in names:
        try:
            found.append(sysfs.read(f"{folder}/{name}"))
        except OSError as error:
            found.append(error)
    return found
