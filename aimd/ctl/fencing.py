"""The device fence: this process moves into a scope whose device rules allow /dev/kfd and one render node alone.

Whoever opens /dev/kfd is a client of every GPU whose render node its control group allows, until it ends, and the
driver switches no GPU with a client. Behind the fence it is one of its own GPU alone.

systemd is asked by busctl to make the scope of this very process (StartTransientUnit with its pid), which then becomes
the command. `systemd-run --scope` would do the same in one step. But where systemd says no, systemd-run ends and the
command has not run; here the reason is told and the command runs by its environment. And the ordinals of its GPUs have
to be computed behind the fence, where KFD's list is another one. Pid, terminal, environment, signals and exit code are
the command's own either way. A library for D-Bus would be one more dependency for one call.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

DRM_MAJOR = 226
ANSWER_SECONDS = 5  # systemd answers in milliseconds; a command is not to wait for one that is stuck
TURN_SECONDS = 0.005

Run = Callable[[Sequence[str]], "str | None"]  # a command line; why it failed, None if it did not


class Scope(NamedTuple):
    """What is asked for: the scope's name, whose it is, and the minor number of the render node that it may use."""

    name: str
    claim: str
    pid: int
    render_minor: int


class System(NamedTuple):
    """The machine as this process sees it."""

    run: Run
    root: Path = Path("/")
    answer_seconds: float = ANSWER_SECONDS


def obstacle(system: System) -> str | None:
    """Why there can be no fence here, whoever asks; None if there may be one."""
    if not (system.root / "run/systemd/system").is_dir():  # as sd_booted(3)
        return "systemd does not run here"
    if not (system.root / "sys/fs/cgroup/cgroup.controllers").exists():
        return "control groups are version 1 here, and fences need version 2"
    if not (system.root / "dev/kfd").exists():
        return "there is no /dev/kfd here"
    return None


def enter(scope: Scope, system: System) -> str | None:
    """Move this process into the scope; the reason if that is not possible, None if it is there and the fence holds."""
    found = obstacle(system) or system.run(request(scope))
    if found is not None:
        return found
    end = time.monotonic() + system.answer_seconds
    while not _inside(scope, system):
        if time.monotonic() > end:
            return f"systemd was asked for {scope.name} and has not made it in {system.answer_seconds:g} seconds"
        time.sleep(TURN_SECONDS)
    open_ones = _open_nodes(scope, system)
    if open_ones:
        return (
            f"systemd made {scope.name}, but the kernel does not apply its device rules: {open_ones[0]} is still open"
        )
    return None


def request(scope: Scope) -> list[str]:
    """The command line that asks systemd. Nobody is asked for a password: a command may be run by a script."""
    options = ["--system", "--quiet", "--allow-interactive-authorization=no", f"--timeout={ANSWER_SECONDS}"]
    where = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
    properties = [
        ["PIDs", "au", "1", str(scope.pid)],
        ["Description", "s", f"A process of claim {scope.claim} of aimd"],
        ["CollectMode", "s", "inactive-or-failed"],
        # Beside those named, "closed" allows what every program needs: null, zero, random, the terminals.
        ["DevicePolicy", "s", "closed"],
        ["DeviceAllow", "a(ss)", "2", "/dev/kfd", "rw", f"/dev/char/{DRM_MAJOR}:{scope.render_minor}", "rw"],
    ]
    asked = [word for each in properties for word in each]
    start = ["StartTransientUnit", "ssa(sv)a(sa(sv))", scope.name, "fail", str(len(properties)), *asked, "0"]
    return ["busctl", *options, "call", *where, *start]


def run(words: Sequence[str]) -> str | None:
    """Run a command to its end; why it failed, in its own words."""
    program = shutil.which(words[0])
    if program is None:
        return f"{words[0]} is not installed"
    try:
        ended = subprocess.run(  # noqa: S603 - the words are those above
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=2 * ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "systemd does not answer"
    except OSError as error:
        return f"{program} cannot be run: {error.strerror}"
    if ended.returncode == 0:
        return None
    told = ended.stderr.strip().splitlines()
    reason = told[-1].removeprefix("Call failed: ").rstrip(".") if told else f"busctl ended with {ended.returncode}"
    return f"systemd says no: {reason}"


def _inside(scope: Scope, system: System) -> bool:
    try:
        groups = (system.root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any(line.startswith("0::") and scope.name in line.split("/") for line in groups)


def _open_nodes(scope: Scope, system: System) -> list[str]:
    """Render nodes of others that may be used all the same. access(2) asks the device rules, too; nothing is opened."""
    own = os.makedev(DRM_MAJOR, scope.render_minor)
    nodes = sorted((system.root / "dev/dri").glob("renderD*"))
    return [str(node) for node in nodes if os.access(node, os.R_OK | os.W_OK) and node.stat().st_rdev != own]
