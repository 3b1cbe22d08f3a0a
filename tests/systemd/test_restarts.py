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
LONGEST_WAIT_SECONDS = 30  # half of what the clients would wait; what it takes is printed


@pytest.fixture(scope="module")
def loaded(machine):
    """A machine with a model that can be asked for; gives a function that begins to load it."""
    machine.put(Path(__file__).with_name("load.py"), "/root/load.py")
    machine.done("systemctl", "start", "aimd")
    machine.done("aimctl", "claim", "llama", "--memory", "8")

    processes = []

    def load():
        processes.append(machine.start(PYTHON, "-I", "/root/load.py", "llama", str(CLIENTS)))
        assert processes[-1].stdout.readline() == "begun\n"
        return processes[-1]

    yield load
    for process in processes:
        process.communicate(timeout=120)


def assignments(machine):
    return json.loads(machine.done("aimctl", "get", "assignments", "-o", "json"))["assignments"]


def in_flight(machine):
    """Leases of the model; None while nothing was counted yet."""
    (model,) = json.loads(machine.done("aimctl", "get", "models", "-o", "json"))["models"]
    return model["traffic"] and model["traffic"]["whole"]["running"]


def restarts(machine):
    return int(machine.show("aimd", "NRestarts")["NRestarts"])


def met(process):
    """End the clients, and see what they met: none may have failed, and each has gone on to the end."""
    assert process.poll() is None, process.communicate()
    time.sleep(0.5)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    found = json.loads(out)
    assert found["failed"] == []
    assert found["leases"] > CLIENTS
    assert found["worst"] < LONGEST_WAIT_SECONDS
    print("leases", found["leases"])
    print("worst_wait", round(found["worst"], 3))


def kill_when_active(machine):
    """Kill the daemon once it serves; gives the pid that was killed."""
    until(machine.active, "the daemon did not come back")
    pid = machine.main_pid()
    os.kill(machine.pid_here(pid), signal.SIGKILL)
    return pid


def test_twenty_kills_under_load_fail_nobody(machine, loaded):
    before, restarted, process = assignments(machine), restarts(machine), loaded()
    for _ in range(KILLS):
        killed = kill_when_active(machine)
        until(lambda killed=killed: machine.main_pid() not in (0, killed), "the daemon was not started anew")
    until(machine.active, "the daemon did not come back")
    met(process)
    assert assignments(machine) == before
    assert restarts(machine) == restarted + KILLS


def test_restarts_fail_nobody(machine, loaded):
    before, process = assignments(machine), loaded()
    for _ in range(3):
        machine.done("systemctl", "restart", "aimd")
    met(process)
    assert assignments(machine) == before


def test_a_lease_outlives_stop_and_start(machine, loaded):
    """It stays its client's, and takes its slot from the daemon's first moment on."""
    machine.put(Path(__file__).with_name("holding.py"), "/root/holding.py")
    process = machine.start(PYTHON, "-I", "/root/holding.py", "llama")
    assert process.stdout.readline() == "held\n"
    until(lambda: in_flight(machine) == 1, "the lease is not told")
    machine.done("systemctl", "stop", "aimd")
    machine.done("test", "-s", "/run/aimd/leases")
    machine.done("systemctl", "start", "aimd")
    until(lambda: in_flight(machine) == 1, "the lease is forgotten")
    out, _ = process.communicate(timeout=60)
    assert out == "released\n"
    until(lambda: in_flight(machine) == 0, "the lease is not free")


def test_an_upgrade_fails_nobody_and_keeps_state_and_configuration(machine, loaded, debian, tmp_path):
    file = machine.root / "etc/aimd/aimd.toml"
    file.write_text(f"poll_seconds = 1.5\n{file.read_text()}")
    configured, before, pid = file.read_text(), assignments(machine), machine.main_pid()
    process = loaded()
    machine.install(tree.repacked(debian[1], tmp_path, "99.0-1"))
    assert (machine.root / "usr/share/doc/aimd/version").read_text() == "99.0-1"
    until(machine.active, "the daemon did not come back")
    assert machine.main_pid() not in (0, pid)
    met(process)
    assert file.read_text() == configured
    assert assignments(machine) == before
