"""What a daemon loads: the simulator only where it was asked for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.captures import below, mi308x_topology, write
from tests.e2e.programs import SECONDS, Daemon

IMPORTED = re.compile(r"^import time:.*\| *(\S+)$", re.MULTILINE)


def modules_of_a_daemon(home: Path, *options: str) -> list[str]:
    """The modules that `aimd run` has imported when it is ready."""
    daemon = Daemon(home)
    directories = ("--runtime-dir", str(daemon.runtime), "--state-dir", str(daemon.state))
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "aimd", "run", *directories, *options],
        env=daemon.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        if line.startswith("aimd is ready"):
            break
    process.terminate()
    told.append(process.communicate(timeout=SECONDS)[1])
    assert process.returncode == 0, "".join(told)
    return IMPORTED.findall("".join(told))


@pytest.mark.parametrize("simulated", [False, True])
def test_a_daemon_on_a_real_node_does_not_load_the_simulator(tmp_path: Path, simulated: bool) -> None:
    write(tmp_path / "sys", below("class/kfd/kfd/topology", mi308x_topology()))
    options = ("--simulate", "mi300x:1") if simulated else ("--sysfs-root", str(tmp_path / "sys"))
    modules = modules_of_a_daemon(tmp_path, *options)
    assert "aimd.daemon.loop" in modules
    assert ("aimd.sim" in modules) == simulated
    assert any(name.startswith("aimd.sim.") for name in modules) == simulated
