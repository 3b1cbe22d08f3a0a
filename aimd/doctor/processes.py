"""What /proc tells: who has /dev/kfd open, what a pid is, and which programs manage GPUs beside aimd."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aimd.doctor.facts import Owner, ProcessFacts

COMMAND_LIMIT = 200
KFD = "/dev/kfd"

# By the first word of the command line: its whole path, or its last part. AMD's images call the binaries of the device
# config manager and of the metrics exporter /home/amd/bin/server (their Dockerfiles).
OWNERS = {
    "k8s-device-plugin": "AMD device plugin",
    "gpu-kubeletplugin": "AMD DRA driver",
    "device-config-manager": "AMD device config manager",
    "/home/amd/bin/server": "AMD device config manager or metrics exporter",
    "amd-metrics-exporter": "AMD metrics exporter",
    "gpuagent": "AMD gpuagent",
    "amd-smi": "amd-smi",
    "rocm-smi": "rocm-smi",
}
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})")


class OpenFiles(NamedTuple):
    """Pids that have /dev/kfd open, and how many processes could not be looked at."""

    pids: tuple[int, ...]
    unseen: int


def process(proc: Path, pid: int) -> ProcessFacts:
    """What can be told of the pid; one that has ended has no command."""
    words = command_words(proc, pid)
    command = " ".join(words)[:COMMAND_LIMIT] if words else _text(proc / str(pid) / "comm").strip()
    return ProcessFacts(pid, command or None, pod_of(_text(proc / str(pid) / "cgroup")))


def pod_of(cgroup: str) -> str | None:
    """Uid of the pod that the cgroup belongs to; `?` for a pod of unknown uid, None for no pod.

    The systemd driver writes kubepods-burstable-pod<uid with _>.slice, the cgroupfs driver kubepods/burstable/pod<uid>.
    """
    if "kubepods" not in cgroup:
        return None
    found = _POD.search(cgroup)
    return found[1].replace("_", "-") if found is not None else "?"


def pids_with_kfd_open(proc: Path) -> OpenFiles:
    """The processes with an open /dev/kfd. Other users' processes can be looked at by root alone."""
    found, unseen = [], 0
    for pid in pids(proc):
        try:
            links = [_target(link) for link in (proc / str(pid) / "fd").iterdir()]
        except PermissionError:
            unseen += 1
        except OSError:
            continue  # it has ended
        else:
            if KFD in links:
                found.append(pid)
    return OpenFiles(tuple(found), unseen)


def owners(proc: Path) -> tuple[Owner, ...]:
    """The running programs of OWNERS, by pid. Also scripts: their interpreter is the first word, they the second."""
    found = []
    for pid in pids(proc):
        for word in command_words(proc, pid)[:2]:
            program = OWNERS.get(word) or OWNERS.get(word.rpartition("/")[2])
            if program is not None:
                found.append(Owner(process(proc, pid), program))
                break
    return tuple(found)


def pids(proc: Path) -> Iterator[int]:
    """All processes, in the order of their numbers."""
    yield from sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())


def command_words(proc: Path, pid: int) -> list[str]:
    """The command line; none of a kernel thread or of a process that has ended."""
    return [word for word in _text(proc / str(pid) / "cmdline").split("\0") if word]


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
