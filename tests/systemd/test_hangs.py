"""A daemon of which one path hangs is ended and started anew within WatchdogSec and half a second."""

import time

import pytest

from tests.systemd.hanging import Held, dispatch_thread
from tests.systemd.machine import until

WATCHDOG_SECONDS = 5.0
MARGIN_SECONDS = 0.5


def started(machine):
    """When the daemon was started, seconds on the clock of time.monotonic; the manager knows it exactly."""
    return int(machine.show("aimd", "ExecMainStartTimestampMonotonic")["ExecMainStartTimestampMonotonic"]) / 1e6


@pytest.mark.alone
@pytest.mark.parametrize("path", ["control loop", "dispatch thread"])
def test_a_path_that_hangs_ends_the_daemon(machine, path):
    machine.done("systemctl", "start", "aimd")
    assert machine.show("aimd", "WatchdogUSec")["WatchdogUSec"] == "5s"
    before = machine.main_pid()
    pid = machine.pid_here(before)
    held = Held(pid if path == "control loop" else dispatch_thread(pid))
    hangs = time.monotonic()
    try:

        def restarted():
            held.look()
            return machine.main_pid() not in (0, before)

        until(restarted, "it was not started anew", WATCHDOG_SECONDS + 10)
        took = started(machine) - hangs
        assert took < WATCHDOG_SECONDS + MARGIN_SECONDS
        until(machine.active, "it is not ready again")
        print("restarted", round(took, 2))
        print("ready", round(time.monotonic() - hangs, 2))
    finally:
        held.close()
    assert machine.run("aimctl", "get", "gpus").returncode == 0
    said = [entry["MESSAGE"] for entry in machine.entries()]
    assert any("Watchdog timeout" in words for words in said)
    if path == "dispatch thread":
        assert any(words.startswith("the dispatch thread does not turn") for words in said)


def test_a_daemon_that_turns_is_left_alone(machine):
    machine.done("systemctl", "start", "aimd")
    before = machine.main_pid()
    time.sleep(WATCHDOG_SECONDS * 1.5)
    assert machine.main_pid() == before
