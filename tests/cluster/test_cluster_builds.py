"""Programs are built once, however many runs ask for them, and nothing of a run that is killed goes on."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import builds
from tests.systemd.machine import until

PROJECT = Path(__file__).parents[2]
BUILD = "from tests.cluster import builds; print(builds.built(builds.PAUSE))"
HOLD = """
import sys, time
from pathlib import Path
from tests.cluster.control_plane import ControlPlane
plane = ControlPlane(Path(sys.argv[1]), Path(sys.argv[2]))
print(*(program.pid for program in plane._running.values()), flush=True)
time.sleep(600)
"""


@pytest.fixture
def counted_go(tmp_path):
    """A `go` that writes a line per build; the environment that finds it, and where it writes."""
    real = shutil.which("go")
    if real is None:
        pytest.skip("there is no Go here")
    calls = tmp_path / "calls"
    program = tmp_path / "bin/go"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1" = build ] && echo build >> {calls} && sleep 0.3\nexec {real} "$@"\n')
    program.chmod(0o755)
    places = {"AIMD_TEST_CACHE": str(tmp_path / "cache"), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    return {**os.environ, **places, "PYTHONPATH": str(PROJECT)}, calls


def test_two_runs_at_once_build_once(counted_go):
    environ, calls = counted_go
    command = [sys.executable, "-c", BUILD]
    runs = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {run.communicate(timeout=120)[0] for run in runs}
    assert calls.read_text() == "build\n"
    assert len(folders) == 1
    assert [path.name for path in Path(folders.pop().strip()).iterdir()] == ["pause"]


def test_a_failed_build_says_what_go_said(tmp_path, monkeypatch):
    monkeypatch.setenv("AIMD_TEST_CACHE", str(tmp_path))
    with pytest.raises(AssertionError, match="none: directory not found"):
        builds.built(builds.Build("pause", {"none": "./none"}))


def test_nothing_goes_on_when_a_run_is_killed(cluster_programs, tmp_path):
    command = [sys.executable, "-c", HOLD, str(cluster_programs), str(tmp_path / "plane")]
    run = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(PROJECT)}, stdout=subprocess.PIPE, text=True)
    pids = run.stdout.readline().split()
    assert len(pids) == 4
    run.send_signal(signal.SIGKILL)
    run.communicate()
    until(lambda: not any(_lives(pid) for pid in pids), "programs outlive the run")


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
