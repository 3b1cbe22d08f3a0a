"""What the unit's sandbox denies and what it leaves: a probe runs in place of the daemon, all else as shipped."""

import json
import re
from pathlib import Path

import pytest

from tests.systemd.machine import PYTHON
from tests.systemd.tree import PROJECT

DENIED = {
    "write /etc": {"EROFS"},
    "write /usr": {"EROFS"},
    "write /opt/aimd": {"EROFS"},
    "write /proc/sys": {"EROFS", "EACCES"},
    "write a control group": {"EROFS", "EACCES"},
    "see /home": {"EACCES"},
    "mount": {"EPERM"},
    "ptrace": {"EPERM"},
    "load a module": {"EPERM"},
    "writable and executable memory": {"EPERM"},
    "executable memory that was written": {"EPERM"},
    "a user namespace": {"EPERM"},
    "become root": {"EPERM"},
    "a packet socket": {"EAFNOSUPPORT"},
    "set the clock": {"EPERM"},
    "make a device": {"EPERM"},
    "a set-user-id file": {"EPERM"},
    "real-time scheduling": {"EPERM"},
    "another device": {"EPERM"},
    "write another file of a GPU": {"EACCES"},
}
ALLOWED = {
    "/dev/kfd",
    "write state",
    "write the runtime directory",
    "bind a socket",
    "write a partition file",
    "hear uevents",
    "a local TCP port",
    "see other processes",
    "watch another process",
    "read a credential",
}
# Numbers of drivers that are there, in place of KFD's: device rules go by the number. (fuse, and another.)
DEVICES = {"kfd": (10, 229), "other": (10, 200)}
REPLACED = {
    "Type": "oneshot",
    "ExecStart": f"{PYTHON} -I /opt/probe.py",
    "Restart": "no",
    "WatchdogSec": "0",
    "Sockets": "",
    "ExecReload": "",
}


@pytest.fixture(scope="module")
def outcomes(machine):
    """What the probe met."""
    machine.put(Path(__file__).with_name("probe.py"), "/opt/probe.py")
    unit = (PROJECT / "systemd/aimd.service").read_text()
    for name, value in REPLACED.items():
        unit = re.sub(rf"^{name}=.*$", f"{name}={value}" if value else "", unit, flags=re.MULTILINE)
    (machine.root / "etc/systemd/system/probe.service").write_text(unit)
    for name, (major, minor) in DEVICES.items():
        machine.done("sh", "-c", f"mknod -m 666 /dev/{name} c {major} {minor}")
    (machine.root / "etc/aimd/kubeconfig").touch(0o600)
    (machine.root / "etc/aimd/kubeconfig").write_text("clusters: []\n")
    machine.done("systemctl", "daemon-reload")
    machine.done("systemctl", "start", "probe")
    lines = machine.done("journalctl", "-u", "probe", "-o", "cat", "--no-pager").splitlines()
    (found,) = [json.loads(line)["probe"] for line in lines if line.startswith('{"probe"')]
    return found


def test_every_attempt_is_expected(outcomes):
    assert outcomes.keys() == DENIED.keys() | ALLOWED


@pytest.mark.parametrize("attempt", sorted(DENIED))
def test_denied(outcomes, attempt):
    assert outcomes[attempt] in DENIED[attempt]


@pytest.mark.parametrize("attempt", sorted(ALLOWED))
def test_allowed(outcomes, attempt):
    assert outcomes[attempt] == "done"
