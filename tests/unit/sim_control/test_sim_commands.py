"""`aimd sim`: usage, errors and exit codes, without a mount."""

import pytest
from click.testing import CliRunner

from aimd.sim.commands import sim
from aimd.sim.fuse import check_mount_point
from aimd.sim.spec import STATE_FILE, open_node, parse_spec
from aimd.sim.state import FaultKind

MODE_FILE = "bus/pci/devices/0000:05:00.0/current_compute_partition"


def run(*arguments, **environ):
    return CliRunner(env={"AIMD_SIM_SOCKET": None, "XDG_RUNTIME_DIR": None, **environ}).invoke(sim, arguments)


def test_the_fault_command_explains_every_fault():
    text = run("fault", "--help").output
    assert [kind for kind in FaultKind if f"\n  {kind.value} " not in text] == []


@pytest.mark.parametrize("command", ["mount", "fault", "faults", "clear", "status", "reload", "reset", "hold"])
def test_every_command_has_help_and_a_socket_option(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "--socket" in result.output


@pytest.mark.parametrize("command", [["faults"], ["clear"], ["status"], ["reload"], ["fault", "busy"], ["hold"]])
def test_nobody_at_the_socket_is_exit_3_with_a_hint(tmp_path, command):
    result = run(*command, "--socket", str(tmp_path / "no.sock"))
    assert result.exit_code == 3
    assert result.stderr.startswith(f"error: simulated node {tmp_path}/no.sock does not answer (No such file")
    assert "hint: start one with" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["fault", "rain"],
        ["fault", "busy", "--times", "0"],
        ["fault", "busy", "--times", "1", "--until-cleared"],
        ["fault", "slow-write", "--seconds", "-1"],
        ["mount"],
        ["mount", "/tmp", "--profile", "5.15"],
    ],
)
def test_wrong_usage_is_exit_2(arguments):
    assert run(*arguments).exit_code == 2


def test_the_socket_of_the_environment_is_used(tmp_path):
    assert f"{tmp_path}/here.sock does not answer" in run("status", AIMD_SIM_SOCKET=f"{tmp_path}/here.sock").stderr


def test_reset_without_a_node_and_without_a_file_says_so(tmp_path):
    result = run("reset", "--socket", str(tmp_path / "no.sock"), "--state-dir", str(tmp_path))
    assert result.exit_code == 0
    assert result.output.endswith(f"{tmp_path}/{STATE_FILE} does not exist: nothing to reset\n")


def test_reset_reboots_the_state_file_of_a_node_that_does_not_run(tmp_path):
    path = tmp_path / STATE_FILE
    node = open_node(parse_spec("mi300x:2", "6.12"), path)
    node.write(MODE_FILE, b"CPX")
    result = run("reset", "--socket", str(tmp_path / "no.sock"), "--state-dir", str(tmp_path))
    assert (result.exit_code, result.output) == (0, f"simulated node in {path} rebooted\n")
    again = open_node(parse_spec("mi300x:2", "6.12"), path)
    assert again.read(MODE_FILE) == b"SPX\n"
    assert again.boot_id != node.boot_id


def test_reset_leaves_a_file_alone_that_is_no_state(tmp_path):
    (tmp_path / STATE_FILE).write_text("mine")
    result = run("reset", "--socket", str(tmp_path / "no.sock"), "--state-dir", str(tmp_path))
    assert result.exit_code == 2
    assert "does not hold a simulated node" in result.stderr
    assert (tmp_path / STATE_FILE).read_text() == "mine"


@pytest.mark.parametrize(("name", "sentence"), [("missing", "does not exist"), ("file", "is a file")])
def test_a_mount_point_must_be_a_directory(tmp_path, name, sentence):
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match=sentence):
        check_mount_point(tmp_path / name)


def test_something_mounted_already_is_a_conflict():
    with pytest.raises(Exception, match="something is mounted on /proc, expected a free directory"):
        check_mount_point(__import__("pathlib").Path("/proc"))
