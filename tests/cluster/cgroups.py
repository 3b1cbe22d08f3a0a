"""A control group at the top of every hierarchy, where one node puts its pods."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

TOP = Path("/sys/fs/cgroup")
SECONDS_TO_EMPTY = 10


class ControlGroup:
    """Made and removed with everything below it; unified (v2) or one per controller (v1)."""

    def __init__(self, name: str) -> None:
        self.name = name
        unified = (TOP / "cgroup.controllers").exists()
        tops = [TOP] if unified else [top for top in TOP.iterdir() if (top / "cgroup.procs").exists()]
        self._folders = [top / name for top in {top.resolve() for top in tops}]

    def make(self) -> None:
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


def _removed(folder: Path) -> bool:
    if folder.exists():
        below = [path for path in folder.rglob("*") if path.is_dir()]
        for path in [*sorted(below, reverse=True), folder]:
            with contextlib.suppress(OSError):
                path.rmdir()
    return not folder.exists()
