"""The life of the package: an older version, this one, another one that is removed and purged."""

import json
import os

import pytest

from tests.systemd import tree
from tests.systemd.machine import until


@pytest.fixture(scope="module")
def older(debian, tmp_path_factory):
    """The package that AIMD_TEST_PREVIOUS_PACKAGE names; before the first release, this one by an older number."""
    if named := os.environ.get("AIMD_TEST_PREVIOUS_PACKAGE"):
        return named
    return tree.repacked(debian[1], tmp_path_factory.mktemp("older"), "0.0.1-1")


def exists(machine, path):
    return machine.run("test", "-e", path).returncode == 0


def test_an_upgrade_of_a_stopped_daemon_leaves_it_stopped(bare_machine, older, debian):
    machine = bare_machine
    machine.install(older)
    machine.done("aimctl", "claim", "llama", "--memory", "8")
    machine.done("systemctl", "stop", "aimd")
    machine.install(debian[1])
    assert not machine.active()
    assert machine.show("aimd.socket", "ActiveState")["ActiveState"] == "active"
    (claim,) = json.loads(machine.done("aimctl", "get", "claims", "-o", "json"))["claims"]
    assert claim["name"] == "llama"


def test_all_files_are_as_packaged_and_belong_to_root(bare_machine):
    assert bare_machine.done("dpkg", "--verify", "aimd") == ""
    assert bare_machine.done("find", "/opt/aimd", "!", "-user", "root", "-o", "-perm", "/022", "!", "-type", "l") == ""


def test_nothing_tells_where_it_was_built(bare_machine):
    # File names in the compiled modules' debug notes are relative; a path of the build folder would be absolute.
    found = bare_machine.run("grep", "-rlE", "/tmp/tmp[a-z0-9_]{8}/", "/opt/aimd", "/usr/share/man/man8")
    assert found.stdout == ""


def test_manual_pages_and_completions_are_there(bare_machine):
    for path in ("man8/aimd.8.gz", "man1/aimctl.1.gz", "man5/aimd.toml.5.gz", "man7/aimd-metrics.7.gz"):
        assert exists(bare_machine, f"/usr/share/man/{path}")
    for path in (
        "/usr/share/bash-completion/completions/aimctl",
        "/usr/share/zsh/vendor-completions/_aimctl",
        "/usr/share/fish/vendor_completions.d/aimctl.fish",
    ):
        assert "_AIMCTL_COMPLETE" in bare_machine.done("cat", path)


def test_removal_stops_it_and_keeps_state_and_configuration(bare_machine):
    machine = bare_machine
    until(machine.active, "the daemon is not active")
    machine.done("dpkg", "--remove", "aimd", timeout=120)
    assert machine.run("pgrep", "-u", "aimd").stdout == ""
    assert not exists(machine, "/usr/bin/aimd")
    assert not exists(machine, "/run/aimd/aimd.sock")
    assert exists(machine, "/etc/aimd/aimd.toml")
    assert exists(machine, "/var/lib/aimd/ledger.db")


def test_installed_again_it_knows_its_claims(bare_machine, debian):
    bare_machine.install(debian[1])
    (claim,) = json.loads(bare_machine.done("aimctl", "get", "claims", "-o", "json"))["claims"]
    assert claim["name"] == "llama"


def test_purge_leaves_nothing(bare_machine):
    machine = bare_machine
    machine.done("dpkg", "--purge", "aimd", timeout=120)
    for path in ("/etc/aimd", "/var/lib/aimd", "/run/aimd", "/opt/aimd", "/usr/bin/aimctl"):
        assert not exists(machine, path), path
    assert machine.run("sh", "-c", "find /etc/systemd /var/lib/systemd -name '*aimd*' | grep .").stdout == ""
    assert machine.done("systemctl", "--failed", "--no-legend", "--plain") == ""
