"""The transcript in README, made from the real program.

    python -m tests.e2e.transcript        # writes it into README.md

test_transcript.py runs the same and fails where README says something else. What differs from run to run is written as
a placeholder: random names, times, pids.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from aimd.ports import Sysfs
from aimd.sim.node import SimulatedNode
from aimd.sim.spec import parse_spec
from tests.e2e.programs import ROOT, Daemon

README = ROOT / "README.md"
BEGIN, END = "<!-- transcript -->\n", "<!-- end of transcript -->\n"
LAYOUT = """[layout]
gpu2 = "DPX/NPS1"
gpu3 = "QPX/NPS1"
"""
CONFIGURATION = """[placement]
slots_per_partition = 16
"""
LOAD = """from aimd.dispatch.client import Client

with Client() as client:
    for _ in range(100):
        with client.lease("llama"):
            pass  # the request, on the partition that the lease names
"""
COMMANDS = (
    "aimctl doctor --preflight --root sys | grep -e EBUSY -e KFD  # sys: a copy of such a node's /sys",
    "aimctl claim llama --memory 24 --qos high --guarantee 4 --compute CPX",
    "aimctl exec llama -- env | grep VISIBLE",
    "aimctl claim mistral --memory 12",
    "aimctl get claims",
    "aimctl get assignments",
    "aimctl describe claim llama",
    "cat aimd.toml",
    "sed -i s/16/2/ aimd.toml && aimctl reload",
    "sed -i s/2/16/ aimd.toml && aimctl reload",
    "cat load.py",
    "python load.py && sleep 5  # counters are read every two seconds",
    "aimctl describe model llama | grep -e Running -e Outcomes -e Ends",
    "aimctl set-mode gpu0 SPX/NPS1",
    "aimctl claim whale --memory 200",
    "cat layout.toml",
    "aimctl diff -f layout.toml",
    "aimctl apply -f layout.toml",
    "aimctl assert -f layout.toml && echo as wished",
    "aimctl export | head -3",
    "aimctl release llama",
    "aimctl drain gpu3",
    "aimctl set-mode gpu0 SPX/NPS1 --drain",
    "aimctl get claims",
    "aimctl undrain gpu3",
    "aimctl get events | grep -e ' claim_' -e ' gpu_'",
    "aimctl doctor | grep -v 'no process'",
)
# Progress on the way: how many of these a watcher sees depends on how fast it is.
_PROGRESS = re.compile(r"\S+ \S+ -> \S+: [a-z_]+")
_PLACEHOLDERS = (
    (re.compile(r"\b((?:apply|set-mode|claim-[a-z]+))-[0-9a-f.]{6,}\b"), r"\1-…"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "…"),
    (re.compile(r"\bpid \d+"), "pid …"),
    (re.compile(r"(Owner uid: +)\d+"), r"\1…"),
    (re.compile(r"\bup [\d.]+ s"), "up …"),
)


def transcript() -> str:
    """All commands with what they print, on a new simulated node of eight MI300X."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "layout.toml").write_text(LAYOUT)
        (home / "load.py").write_text(LOAD)
        (home / "aimd.toml").write_text(CONFIGURATION)
        copy(SimulatedNode(parse_spec("mi300x:8", "7.2")), "", home / "sys")
        programs = home / "bin"
        programs.mkdir()
        (programs / "aimctl").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aimd.ctl "$@"\n')
        (programs / "aimctl").chmod(0o755)
        (programs / "python").symlink_to(sys.executable)
        daemon = Daemon(home, "mi300x:8", "--config", str(home / "aimd.toml"))
        try:
            daemon.start()
            daemon.environment["AIMD_DISPATCH_SOCKET"] = str(daemon.runtime / "dispatch.sock")
            daemon.environment["PATH"] = f"{programs}:{daemon.environment['PATH']}"
            return "\n".join(_run(command, daemon, home) for command in COMMANDS)
        finally:
            daemon.close()


def copy(sysfs: Sysfs, path: str, to: Path) -> None:
    """What there is below the path, as far as it can be read."""
    to.mkdir()
    for name in sysfs.listdir(path or "."):
        below = f"{path}/{name}" if path else name
        try:
            (to / name).symlink_to(sysfs.readlink(below))
        except OSError:
            _copy_entry(sysfs, below, to / name)


def _copy_entry(sysfs: Sysfs, path: str, to: Path) -> None:
    try:
        copy(sysfs, path, to)
    except NotADirectoryError:
        to.rmdir()
        with contextlib.suppress(OSError):
            to.write_bytes(sysfs.read(path))


def _run(command: str, daemon: Daemon, folder: Path) -> str:
    shown = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env=daemon.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    ).stdout
    for pattern, placeholder in _PLACEHOLDERS:
        shown = pattern.sub(placeholder, shown)
    lines = [
        f"    $ {command}",
        *(f"    {line}".rstrip() for line in shown.splitlines() if not _PROGRESS.fullmatch(line)),
    ]
    return "\n".join(lines) + "\n"


def in_readme() -> str:
    """What README says now."""
    return README.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]


def write() -> None:
    """Put a new transcript into README."""
    before, _, rest = README.read_text("utf-8").partition(BEGIN)
    README.write_text(f"{before}{BEGIN}{transcript()}{END}{rest.partition(END)[2]}", "utf-8")


if __name__ == "__main__":
    write()
