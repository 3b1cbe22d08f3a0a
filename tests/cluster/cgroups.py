"""A control group at the top of every hierarchy, where one node puts its pods."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

PREFIX = "aimd-test-"  # then the number of the process that runs the tests, and the node
TOP = Path("/sys/fs/cgroup")
SECONDS_TO_EMPTY = 10


class ControlGroup:
    """Made and removed with everything below it; unified (v2) or one per controller (v1)."""

    def __init__(self, node: str) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{node}"
        self._folders = [top / self.name for top in hierarchies()]

    def make(self) -> None:
        _remove_abandoned()
        for folder in self._folders:
            folder.mkdir()
            for part in ("cpuset.cpus", "cpuset.mems"):  # a new group of v1 has none, and takes no process
                if (folder / "cgroup.clone_children").exists() and (folder / part).exists():
                    (folder / part).write_text((folder.parent / part).read_text())

    def remove(self) -> None:
        """Once its processes are gone: killed ones take a moment."""
        end = time.monotonic() + SECONDS_TO_EMPTY
        while any([not _removed(folder) for folder in self._folders]):  # noqa: C419 all of them are tried
            if time.monotonic() > end:
                raise AssertionError(f"control group {self.name} still has processes")
            time.sleep(0.02)


def hierarchies() -> set[Path]:
    """Where control groups are made: the unified hierarchy, else one per controller."""
    unified = (TOP / "cgroup.controllers").exists()
    tops = [TOP] if unified else [top for top in TOP.iterdir() if (top / "cgroup.procs").exists()]
    return {top.resolve() for top in tops}


def _remove_abandoned() -> None:
    """Those of runs that were killed; nothing runs in them any more."""
    for top in hierarchies():
        for folder in top.glob(f"{PREFIX}*"):
            if not Path("/proc", folder.name.removeprefix(PREFIX).partition("-")[0]).exists():
                _removed(folder)


def _removed(folder: Path) -> bool:
    if folder.exists():
        below = [path for path in folder.rglob("*") if path.is_dir()]
        for path in [*sorted(below, reverse=True), folder]:
            with contextlib.suppress(OSError):
                path.rmdir()
    return not folder.exists()
