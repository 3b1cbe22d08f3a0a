"""The device cgroup of a process: whether it lets /dev/kfd and the render nodes be used.

Version 1 lists its rules (devices.list: `a *:* rwm`, `c 226:* rw`). Those of version 2 are BPF programs, which nobody can
read: there KFD's topology tells by the nodes that it hides (EPERM on a node is the device cgroup's denial of its render
node, kfd_topology.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from aimd.doctor.facts import Facts
from aimd.doctor.finding import OK, WARN, Finding

DRM_MAJOR = 226
_RULE = re.compile(r"([abc]) ([0-9]+|\*):([0-9]+|\*) ([rwm]+)")
HINT = "allow them: DeviceAllow=char-drm rw and DeviceAllow=/dev/kfd rw, in a container char 226:* rw and /dev/kfd"


def read_rules(proc: Path, root: Path = Path("/sys/fs/cgroup")) -> tuple[str, ...] | None:
    """The rules of this process's cgroup; None where they cannot be read."""
    try:
        lines = (proc / "self" / "cgroup").read_text("ascii", "replace").splitlines()
        path = next(line.split(":", 2)[2] for line in lines if "devices" in line.split(":", 2)[1].split(","))
        listed = (root / "devices" / path.lstrip("/") / "devices.list").read_text("ascii", "replace")
    except (OSError, StopIteration, IndexError):
        return None
    return tuple(listed.splitlines())


def allows(rules: Iterable[str], major: int) -> bool:
    """Whether all character devices of the number may be read and written."""
    for rule in rules:
        found = _RULE.fullmatch(rule.strip())
        if found is None or found[1] == "b" or found[2] not in ("*", str(major)) or found[3] != "*":
            continue
        if {"r", "w"} <= set(found[4]):
            return True
    return False


def rule_findings(facts: Facts) -> Iterable[Finding]:
    """What the device cgroup lets through, as far as it can be told; nothing of another machine's tree."""
    if not facts.live:
        return
    kfd = facts.kfd
    if facts.device_rules is None:
        shows = (
            f"KFD shows {kfd.gpu_nodes} GPU nodes and hides {kfd.hidden}" if kfd.present else "there is no KFD to tell"
        )
        message = f"its rules are programs that cannot be read (cgroup v2); {shows}"
        yield Finding(OK, "device cgroup", message)
    elif allows(facts.device_rules, DRM_MAJOR):
        yield Finding(OK, "device cgroup", f"its rules allow the render nodes (char {DRM_MAJOR}:* rw)")
    else:
        message = f"none of its rules allows all render nodes: {', '.join(facts.device_rules) or 'there is none'}"
        yield Finding(WARN, "device cgroup", message, HINT)
