"""Turns of the workers of one run: a test marked `alone` runs while no other does, since it compares times.

Two locks of flock(2). Whoever wants a turn passes the turnstile first, so that those who share the room cannot keep
one out who wants it alone.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Tests of something big (a booted machine, a control plane, a Prometheus over a loaded daemon) share it, and would be in
# each other's way: they run in one worker, others by file. They take minutes and begin first, or that worker would be
# alone with them at the end.
BIG = ("cluster", "systemd", "dashboards")
BIG_GROUP = "big"


@contextlib.contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    with (folder / "room").open("w") as room:
        with (folder / "turnstile").open("w") as turnstile:
            fcntl.flock(turnstile, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def folder_of_run(config: pytest.Config) -> Path | None:
    """What the workers of this run share; None in a run without workers."""
    if not hasattr(config, "workerinput"):
        return None
    factory: Any = config._tmp_path_factory  # type: ignore[attr-defined]
    return factory.getbasetemp().parent


def group_of(nodeid: str) -> str:
    """What of a run goes to one worker: a file's tests, or those of all folders with something big."""
    path = nodeid.partition("::")[0]
    return BIG_GROUP if any(f"/{name}/" in path for name in BIG) else path


class ByGroup(LoadScopeScheduling):
    """xdist's scheduler by groups of its own (its marks for groups do nothing with pytest 9.2)."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

    def _assign_work_unit(self, node: Any) -> None:
        if BIG_GROUP in self.workqueue:
            self.workqueue.move_to_end(BIG_GROUP, last=False)
        super()._assign_work_unit(node)
