"""Files below a sysfs root, for reading only: the same methods as ports.Sysfs, and what the caller may write."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """Paths are relative to the root; `read`, `listdir` and `writable` raise OSError."""

    def read(self, path: str) -> bytes: ...

    def listdir(self, path: str) -> list[str]: ...

    def writable(self, path: str) -> bool:
        """Whether the file's mode has a write bit."""
        ...

    def permitted(self, path: str) -> bool:
        """Whether the caller may write the file; nothing is opened."""
        ...

    def read_only(self) -> bool:
        """Whether the root is mounted read-only."""
        ...


class OsFiles:
    """The files below a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def listdir(self, path: str) -> list[str]:
        return sorted(entry.name for entry in (self._root / path).iterdir())

    def writable(self, path: str) -> bool:
        return bool((self._root / path).stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))

    def permitted(self, path: str) -> bool:
        return os.access(self._root / path, os.W_OK)

    def read_only(self) -> bool:
        try:
            return bool(os.statvfs(self._root).f_flag & os.ST_RDONLY)
        except OSError:
            return False
