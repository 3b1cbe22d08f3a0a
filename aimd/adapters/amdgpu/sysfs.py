"""Files below a real sysfs root (or a mounted simulation, or a captured tree): ports.Sysfs by plain system calls."""

from __future__ import annotations

import os
import stat
from pathlib import Path

CHUNK = 64 * 1024
PAGE = 4096  # what a sysfs attribute has at most


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
