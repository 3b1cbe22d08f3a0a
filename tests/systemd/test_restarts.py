"""Clients of the dispatch service while the daemon is killed, restarted and replaced by another version."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.systemd import tree
from tests.systemd.machine import PYTHON, until

CLIENTS = 8
KILLS = 20


@pytest.fixture(scope="module")
def loaded(machine):
    """A machine with a model that can be asked for; gives a function that loads it for some seconds."""
    machine.put(Path(__file__).with_name("load.py"), "/root/load.py")
    machine.done("systemctl", "start", "aimd")
    machine.done("aimctl", "claim", "llama", "--memory", "8")

    def load(seconds):
        return machine.start(PYTHON, "-I", "/root/load.py", "llama", str(seconds), str(CLIENTS))

    return load


def assignments(machine):
    return json.loads(machine.done("aimctl", "get", "assignments", "-o", "json"))["assignments"]


def met(process):
    """What the clients met; none of them may have failed."""
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    found = json.loads(out)
    assert found["failed"] == []
    assert found["leases"] > CLIENTS
    return found


def kill_when_active(machine):
    """Kill the daemon once it serves; gives the pid that was killed."""
    until(machine.active, "the daemon did not come back")
    pid = machine.main_pid()
    os.kill(machine.pid_here(pid), signal.SIGKILL)
    return pid


def test_twenty_kills_under_load_fail_nobody(machine, loaded):
    before = assignments(machine)
    process = loaded(30)
    time.sleep(1)
    for _ in range(KILLS):
        killed = kill_when_active(machine)
        until(lambda killed=killed: machine.main_pid() not in (0, killed), "the daemon was not started anew")
        time.sleep(0.2)
    until(machine.active, "the daemon did not come back")
    assert process.poll() is None, "the clients had ended before the last kill"
    found = met(process)
    print("leases", found["leases"])
    print("worst_wait", round(found["worst"], 3))
    assert assignments(machine) == before
    assert machine.show("aimd", "NRestarts")["NRestarts"] == str(KILLS)
    assert found["worst"] < 10


def test_restarts_fail_nobody(machine, loaded):
    before, process = assignments(machine), loaded(8)
    time.sleep(0.5)
    for _ in range(3):
        machine.done("systemctl", "restart", "aimd")
        time.sleep(0.3)
    found = met(process)
    print("worst_wait", round(found["worst"], 3))
    assert assignments(machine) == before
    assert found["worst"] < 10


def test_an_upgrade_fails_nobody_and_keeps_state_and_configuration(machine, loaded, debian, tmp_path):
    file = machine.root / "etc/aimd/aimd.toml"
    file.write_text(f"poll_seconds = 1.5\n{file.read_text()}")
    configured, before, pid = file.read_text(), assignments(machine), machine.main_pid()
    process = loaded(10)
    time.sleep(0.5)
    machine.install(tree.repacked(debian[1], tmp_path, "99.0-1"))
    assert (machine.root / "usr/share/doc/aimd/version").read_text() == "99.0-1"
    until(machine.active, "the daemon did not come back")
    assert machine.main_pid() not in (0, pid)
    found = met(process)
    print("worst_wait", round(found["worst"], 3))
    assert file.read_text() == configured
    assert assignments(machine) == before
