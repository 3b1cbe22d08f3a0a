"""The package on a machine with systemd: install, start, use, status, journal, reload, stop, socket activation."""

import json
import os

from aimd.adapters.journal import message_id
from tests.systemd.machine import until

GPU = "0000:05:00.0"


def modes(machine):
    return {
        gpu["name"]: gpu["compute_mode"]
        for gpu in json.loads(machine.done("aimctl", "get", "gpus", "-o", "json"))["gpus"]
    }


def test_the_first_client_starts_the_daemon_and_is_answered(machine):
    assert not machine.active()
    assert machine.show("aimd.socket", "ActiveState")["ActiveState"] == "active"
    result = machine.as_user("aimctl", "get", "gpus")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 9
    until(machine.active, "the daemon is not active")


def test_start_returns_when_the_inventory_is_there(machine):
    machine.done("systemctl", "stop", "aimd")
    assert not machine.active()
    machine.done("systemctl", "start", "aimd")
    found = machine.show("aimd", "ActiveState", "StatusText", "User", "NRestarts")
    assert found == {
        "ActiveState": "active",
        "StatusText": "8 GPUs, 8 partitions, 0 assigned",
        "User": "aimd",
        "NRestarts": "0",
    }
    assert 'Status: "8 GPUs, 8 partitions, 0 assigned"' in machine.done("systemctl", "status", "aimd", "--no-pager")


def test_an_ordinary_user_reads_and_does_not_change(machine):
    refused = machine.as_user("aimctl", "set-mode", "gpu1", "CPX")
    assert refused.returncode == 4, refused.stderr
    assert modes(machine)["gpu1"] == "SPX"


def test_root_changes_a_partition_mode_by_a_daemon_without_capabilities(machine, simulation):
    machine.done("aimctl", "set-mode", "gpu0", "CPX")
    assert simulation.compute_mode(GPU) == "CPX"
    until(lambda: "15 partitions" in machine.show("aimd", "StatusText")["StatusText"], "the status line lags behind")
    told = machine.done("grep", "-E", "^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):", f"/proc/{machine.main_pid()}/status")
    values = dict(line.split(":\t", 1) for line in told.splitlines())
    assert set(values["Uid"].split()) == {machine.done("id", "-u", "aimd").strip()}
    assert (int(values["CapEff"], 16), int(values["CapBnd"], 16)) == (0, 0)
    assert (values["NoNewPrivs"], values["Seccomp"]) == ("1", "2")


def test_the_journal_has_fields_to_search_by(machine):
    (entry,) = machine.entries(f"MESSAGE_ID={message_id('switch_committed')}")
    assert entry["AIMD_EVENT"] == "switch_committed"
    assert entry["PRIORITY"] == "6"
    assert entry["SYSLOG_IDENTIFIER"] == "aimd"
    assert entry["AIMD_LOGGER"] == "aimd"
    assert entry["AIMD_SUBJECT"] in entry["MESSAGE"]
    assert entry["_SYSTEMD_UNIT"] == "aimd.service"
    assert entry["CODE_FILE"].endswith("aimd/daemon/loop.py")
    assert machine.entries("AIMD_EVENT=ready")


def test_the_catalog_explains_an_entry(machine):
    told = machine.done("journalctl", "-u", "aimd", "-x", "--no-pager", f"MESSAGE_ID={message_id('switch_committed')}")
    assert "A mode change was carried out" in told


def test_what_does_not_fit_the_node_is_a_warning_until_it_is_mended(machine):
    file = machine.root / "etc/aimd/aimd.toml"
    before = file.read_text()
    try:
        file.write_text(f'{before}\n[layout]\ngpu99 = "CPX"\n')
        machine.done("systemctl", "reload", "aimd")
        match = f"MESSAGE_ID={message_id('configuration_problem')}"
        (entry,) = until(lambda: machine.entries(match), "the layout's fault is not told")
        assert (entry["PRIORITY"], entry["AIMD_SUBJECT"]) == ("4", "node")
        assert "layout.gpu99 names no GPU of this node" in entry["MESSAGE"]
        assert "gpu99" in machine.run("aimctl", "doctor").stdout
    finally:
        file.write_text(before)
        machine.done("systemctl", "reload", "aimd")
    (entry,) = until(lambda: machine.entries("AIMD_EVENT=configuration_mended"), "its end is not told")
    assert entry["PRIORITY"] == "6"


def test_mode_files_belong_to_the_group_and_what_the_driver_made_read_only_stays_so(machine):
    """partition-files, which the udev rule and the unit call."""
    device, script = f"/sys/bus/pci/devices/{GPU}", "/usr/lib/aimd/partition-files"
    files = [f"{device}/current_{name}_partition" for name in ("compute", "memory")]
    assert machine.done("stat", "-L", "-c", "%A %G", *files) == "-rw-rw-r-- aimd\n" * 2
    machine.done("sh", "-c", f"mkdir /tmp/gpu && cd /tmp/gpu && touch {' '.join(map(os.path.basename, files))}")
    machine.done("sh", "-c", "chmod 644 /tmp/gpu/*compute* && chmod 444 /tmp/gpu/*memory* && mkdir /tmp/none")
    for _ in range(2):  # with something to do, and without
        machine.done(script, "/tmp/gpu", "/tmp/none", "/tmp/not-there")
        assert machine.done("sh", "-c", "stat -c '%A %G' /tmp/gpu/*") == "-rw-rw-r-- aimd\n-r--r--r-- root\n"


def test_a_reload_takes_what_is_valid_and_keeps_the_rest(machine):
    file = machine.root / "etc/aimd/aimd.toml"
    before, pid = file.read_text(), machine.main_pid()
    try:
        file.write_text(f"poll_seconds = 1.5\n[switching]\nwait_seconds = 11\n{before}")
        machine.done("systemctl", "reload", "aimd")
        file.write_text("no_such_setting = 1\n")
        refused = machine.run("systemctl", "reload", "aimd")
        assert refused.returncode != 0
        machine.done("systemctl", "kill", "--signal=HUP", "aimd")
        (entry,) = until(lambda: machine.entries("AIMD_EVENT=reload_refused"), "SIGHUP has not come through")
        assert "no_such_setting" in entry["MESSAGE"]
        file.write_text("[switching]\nwait_seconds = 12\n")
        machine.done("systemctl", "kill", "--signal=HUP", "aimd")
        (entry,) = until(lambda: machine.entries("AIMD_EVENT=reloaded"), "SIGHUP has not come through")
        assert "switching" in entry["MESSAGE"]
    finally:
        file.write_text(before)
    until(machine.active, "the unit is not active after a reload")
    assert machine.main_pid() == pid


def test_stop_and_start_lose_no_assignment(machine):
    machine.done("aimctl", "claim", "llama", "--memory", "8")
    machine.done("aimctl", "claim", "embed", "--memory", "8", "--qos", "low")
    before = json.loads(machine.done("aimctl", "get", "assignments", "-o", "json"))["assignments"]
    assert len(before) == 2
    machine.done("systemctl", "stop", "aimd")
    found = machine.show("aimd", "Result", "ExecMainStatus", "ActiveState")
    assert found == {"Result": "success", "ExecMainStatus": "0", "ActiveState": "inactive"}
    machine.done("systemctl", "start", "aimd")
    after = json.loads(machine.done("aimctl", "get", "assignments", "-o", "json"))["assignments"]
    assert after == before
    assert "2 assigned" in machine.show("aimd", "StatusText")["StatusText"]


SCRAPE = """
import socket
with socket.socket(socket.AF_UNIX) as scraper:
    scraper.settimeout(60)
    scraper.connect("/run/aimd/metrics.sock")
    scraper.sendall(b"GET /metrics HTTP/1.1\\r\\nHost: aimd\\r\\nConnection: close\\r\\n\\r\\n")
    print(b"".join(iter(lambda: scraper.recv(65536), b"")).decode())
"""


def test_a_scrape_starts_the_daemon_and_is_answered(machine):
    """So one that comes while it restarts waits: systemd has the socket."""
    machine.done("systemctl", "stop", "aimd")
    assert machine.show("aimd-metrics.socket", "ActiveState")["ActiveState"] == "active"
    page = machine.done("/opt/aimd/bin/python3", "-c", SCRAPE)
    assert page.startswith("HTTP/1.1 200 OK")
    assert "aim_build_info{" in page
    until(machine.active, "the scrape has not started it")


def test_a_configuration_that_is_not_valid_is_not_tried_again_and_again(machine):
    file = machine.root / "etc/aimd/aimd.toml"
    before = file.read_text()
    machine.done("systemctl", "stop", "aimd")
    try:
        file.write_text("no_such_setting = 1\n")
        assert machine.run("systemctl", "start", "aimd").returncode != 0
        found = machine.show("aimd", "ActiveState", "NRestarts", "ExecMainStatus")
        assert found == {"ActiveState": "failed", "NRestarts": "0", "ExecMainStatus": "2"}
        assert any("no_such_setting" in entry["MESSAGE"] for entry in machine.entries())
    finally:
        file.write_text(before)
    machine.done(
        "systemctl", "reset-failed", "aimd.service", "aimd.socket", "aimd-dispatch.socket", "aimd-metrics.socket"
    )
    machine.done("systemctl", "start", "aimd.socket", "aimd-dispatch.socket", "aimd-metrics.socket", "aimd.service")


def test_a_node_without_a_driver_is_told_and_not_given_up(machine):
    """Ready is told after ten seconds: else the machine's boot would wait for a driver that may come much later."""
    file = machine.root / "etc/aimd/aimd.toml"
    before = file.read_text()
    machine.done("systemctl", "stop", "aimd")
    try:
        file.write_text('sysfs_root = "/opt/nowhere"\n')
        machine.done("systemctl", "start", "aimd")
        found = machine.show("aimd", "StatusText", "NRestarts")
        assert found["StatusText"].startswith("Not ready: ")
        assert found["NRestarts"] == "0"
        assert machine.run("aimctl", "get", "gpus").returncode == 0
    finally:
        file.write_text(before)
        machine.done("systemctl", "restart", "aimd")
