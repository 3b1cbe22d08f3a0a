"""Processes as pods have them, without a kubelet: in control groups of its names, with pids and mounts of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.cgroups import ControlGroup, hierarchies


class PodGroups:
    """A kubelet's control group, as its cgroupfs driver lays it out, in every hierarchy. As root."""

    def __init__(self) -> None:
        self._top = ControlGroup("pods")
        self._top.make()

    def pod(self, uid: str, container: str = "c0") -> PodGroup:
        """The group of a container of the pod."""
        return PodGroup(f"{self._top.name}/kubepods/burstable/pod{uid}/{container}")

    def close(self) -> None:
        """Once what ran in them has ended."""
        self._top.remove()


class PodGroup:
    """A container's control group."""

    def __init__(self, name: str) -> None:
        self._folders = [top / name for top in hierarchies()]
        for folder in self._folders:
            made = [each for each in (folder, *folder.parents) if not each.exists()]
            for each in reversed(made):
                each.mkdir()
                _filled(each)

    def take(self, pid: int) -> None:
        """Move the process here, wherever it may be moved."""
        for folder in self._folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def run(
        self, command: Sequence[str], *, mounted: dict[Path, str], environment: dict[str, str]
    ) -> subprocess.Popen[str]:
        """Start the command here, in pid and mount namespaces of its own, as its process 1.

        Args:
            mounted: folders that it sees, read-only, at paths below /run, which is its own.
        """
        own = "".join(
            f"mount --bind {there} {at} && mount -o remount,ro,bind {at} && " for there, at in mounted.items()
        )
        enter = "".join(f"echo 0 > {folder}/cgroup.procs && " for folder in self._folders)
        inner = ["sh", "-c", own + 'exec "$@"', "container", *command]
        outer = ["sh", "-c", enter + 'exec unshare --pid --mount --fork --kill-child --mount-proc "$@"', "runtime"]
        return subprocess.Popen(
            [*outer, *inner],
            env={"PATH": os.environ["PATH"], **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def _filled(folder: Path) -> None:
    """A new group of cpuset, version 1, has no processors and takes no process, unless its parent says otherwise."""
    for part in ("cpuset.cpus", "cpuset.mems"):
        if (folder / part).exists() and not (folder / part).read_text().strip():
            (folder / part).write_text((folder.parent / part).read_text())
