"""aimctl doctor in a machine with systemd: how the daemon is started, and why it is not."""

import json

import pytest

from tests.systemd.machine import until

GPU = "0000:05:00.0"
COMPUTE = f"/sys/bus/pci/drivers/amdgpu/{GPU}/current_compute_partition"


@pytest.fixture
def fit(machine):
    """The machine with a daemon that runs, as it is to be again afterwards."""
    file = machine.root / "etc/aimd/aimd.toml"
    before = file.read_text()
    machine.done("systemctl", "start", "aimd.socket", "aimd-dispatch.socket", "aimd-metrics.socket", "aimd")
    yield machine
    file.write_text(before)
    machine.run("systemctl", "stop", "aimd")
    machine.run("systemctl", "reset-failed", "aimd", "aimd.socket", "aimd-dispatch.socket", "aimd-metrics.socket")


def findings(machine, *options, run=None):
    result = (run or machine.run)("aimctl", "doctor", "-o", "json", *options)
    assert result.returncode in (0, 1, 3), result.stderr
    return {each["check"]: each for each in json.loads(result.stdout)["findings"]}


def test_a_daemon_that_runs(fit):
    found = findings(fit)
    assert {
        name: found[name]["result"]
        for name in ("aimd.service", "aimd.socket", "aimd-dispatch.socket", "aimd-metrics.socket")
    } == {
        "aimd.service": "ok",
        "aimd.socket": "ok",
        "aimd-dispatch.socket": "ok",
        "aimd-metrics.socket": "ok",
    }
    told = found["aimd.service"]["message"]
    assert f"pid {fit.main_pid()}: 8 GPUs" in told
    assert found["aimd.socket"]["message"] == "listens on /run/aimd/aimd.sock"
    assert found["mode files"] == {
        "result": "ok",
        "check": "mode files",
        "message": "user aimd of the unit may write all 16",
        "hint": None,
    }
    assert found["restarts"]["result"] == "ok"


def test_an_ordinary_user_is_told_of_the_units_too(fit):
    fit.done("useradd", "--uid=1000", "someone")  # the system bus speaks to users that have a name
    found = findings(fit, run=fit.as_user)
    assert "aimd.service" in found, found
    assert found["aimd.service"]["result"] == "ok"
    assert "cannot be read" in found["restarts"]["message"]


def test_a_configuration_that_is_not_valid(fit):
    fit.done("systemctl", "stop", "aimd")
    (fit.root / "etc/aimd/aimd.toml").write_text("no_such_key = 1\n")
    assert fit.run("systemctl", "start", "aimd").returncode != 0
    told = findings(fit, "--preflight")["aimd.service"]
    assert told["result"] == "fail"
    assert told["message"].startswith("it has failed (exit code 2): the configuration or the command line is not valid")
    assert "no_such_key" in told["message"]
    assert told["hint"] == "aimd check-config /etc/aimd/aimd.toml, then systemctl start aimd"
    assert fit.run("aimctl", "doctor", "--preflight").returncode == 1


def test_a_program_that_is_not_there(fit):
    """Started again and again: systemd counts, and the daemon's last words are of another time."""
    fit.done("systemctl", "stop", "aimd")
    folder = fit.root / "etc/systemd/system/aimd.service.d"
    folder.mkdir()
    try:
        (folder / "broken.conf").write_text("[Service]\nExecStart=\nExecStart=/usr/bin/no-such-aimd\n")
        fit.done("systemctl", "daemon-reload")
        fit.run("systemctl", "start", "--no-block", "aimd")

        def told():
            found = findings(fit, "--preflight")["aimd.service"]
            return found if "started again" in found["message"] else None

        found = until(told, "it is not told")
        assert "its program cannot be executed" in found["message"]
        assert "last words" not in found["message"]
    finally:
        (folder / "broken.conf").unlink()
        folder.rmdir()
        fit.done("systemctl", "stop", "aimd")
        fit.done("systemctl", "daemon-reload")


def test_mode_files_that_the_units_user_may_not_write(fit):
    fit.done("chmod", "g-w", COMPUTE)
    try:
        told = findings(fit)["mode files"]
        assert told["result"] == "fail"
        assert told["message"] == (
            f"user aimd of the unit may not write current_compute_partition of {GPU}: root:aimd 0644"
        )
        fit.done(told["hint"].partition(",")[0])
        assert findings(fit)["mode files"]["result"] == "ok"
    finally:
        fit.run("/usr/lib/aimd/partition-files")


def test_a_socket_that_does_not_listen(fit):
    fit.done("systemctl", "stop", "aimd", "aimd-dispatch.socket")
    told = findings(fit, "--preflight")["aimd-dispatch.socket"]  # a call of the daemon would have the socket started
    assert (told["result"], told["message"].partition(":")[0]) == ("warn", "it is inactive")
    fit.done("systemctl", "start", "aimd-dispatch.socket")

    fit.done("rm", "/run/aimd/dispatch.sock")
    told = findings(fit)["aimd-dispatch.socket"]
    assert told["result"] == "fail"
    assert told["message"].startswith("it listens on /run/aimd/dispatch.sock, but this file is not there")
    fit.done("sh", "-c", told["hint"].replace(", then ", " && "))
    assert findings(fit)["aimd-dispatch.socket"]["result"] == "ok"


def test_what_the_watchdog_has_ended_is_told(fit):
    before = fit.main_pid()
    fit.done("kill", "-STOP", str(before))
    until(lambda: fit.main_pid() not in (0, before) and fit.active(), "it was not started anew")
    told = findings(fit)["watchdog"]
    assert told["result"] == "warn"
    assert told["message"].startswith("the watchdog ended it once since the boot, last at 20")
    assert findings(fit)["aimd.service"]["result"] == "ok"


def test_a_system_without_the_package_of_systemd(fit):
    """systemctl is not found: a line that says so, and all else is looked at."""
    found = findings(
        fit, "--preflight", run=lambda *words: fit.run("env", "PATH=/opt/aimd/bin", "/usr/bin/aimctl", *words[1:])
    )
    assert found["systemd"]["message"] == "it does not tell of the units: systemctl is not installed"
    assert "driver" in found
