"""aimctl exec as a process: it becomes the command, under the pid that asked the daemon."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from aimd.protocol.messages import ProblemMessage
from tests.fakes.api import FakeApi, World
from tests.unit.ctl import samples
from tests.unit.ctl.test_ctl_process import environment

WHO_I_AM = """\
import json, os, signal
names = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "AIM_CLAIM", "AIM_PARTITION_ID", "AIM_MEMORY_LIMIT_BYTES", "MINE")
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"pid": os.getpid(), "ignored": int(lines["SigIgn"], 16), "files": len(os.listdir("/proc/self/fd")),
                  **{name: os.environ.get(name) for name in names}}))
"""


def aimctl_exec(socket_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "aimd.ctl", "--socket", str(socket_path), "exec", *arguments]
    return subprocess.run(command, env=environment(**env), capture_output=True, text=True, timeout=60)


def python(source: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-c", source)


def test_the_command_gets_the_environment_and_keeps_the_pid(api: FakeApi, world: World, socket_path: Path) -> None:
    result = aimctl_exec(socket_path, "llama", "--", *python(WHO_I_AM), MINE="kept")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    (request,) = world.requests
    assert (request.method, request.target) == ("PUT", "/v1/claims/llama/holders/self")
    assert request.body == {"command": " ".join(python(WHO_I_AM))[:200]}
    assert (told["ROCR_VISIBLE_DEVICES"], told["HIP_VISIBLE_DEVICES"], told["MINE"]) == ("1", "0", "kept")
    assert (told["AIM_CLAIM"], told["AIM_PARTITION_ID"]) == ("llama", "0000:05:00.0/0")
    assert told["AIM_MEMORY_LIMIT_BYTES"] == "25767706624"


def test_the_processes_of_a_holder_are_marked(api: FakeApi, world: World, socket_path: Path) -> None:
    world.environments[0] = msgspec.structs.replace(world.environments[0], holder="7:1234")
    assert aimctl_exec(socket_path, "llama", "--", "sh", "-c", "echo $AIM_HOLDER").stdout == "7:1234\n"


def test_the_command_inherits_no_signal_that_python_ignores_and_no_socket(api: FakeApi, socket_path: Path) -> None:
    told = json.loads(aimctl_exec(socket_path, "llama", "--", *python(WHO_I_AM)).stdout)
    bare = json.loads(subprocess.run(python(WHO_I_AM), capture_output=True, text=True, check=True).stdout)
    assert (told["ignored"], told["files"]) == (bare["ignored"], bare["files"])


def test_a_reader_that_goes_away_ends_the_command(api: FakeApi, socket_path: Path) -> None:
    """`aimctl exec llama -- yes | head -1`: yes must die of SIGPIPE, not live on."""
    command = [sys.executable, "-m", "aimd.ctl", "--socket", str(socket_path), "exec", "llama", "--", "yes"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == -13


def test_the_note_says_what_the_environment_does_not_do(api: FakeApi, socket_path: Path) -> None:
    (note,) = aimctl_exec(socket_path, "llama", "--", "true").stderr.splitlines()
    assert note.startswith("note: llama is to use 0000:05:00.0/0, by its environment alone: the node is simulated")
    assert "KFD client of every GPU" in note


def test_a_replica_is_asked_for(api: FakeApi, world: World, socket_path: Path) -> None:
    result = aimctl_exec(socket_path, "llama", "--replica", "1", "--", *python(WHO_I_AM))
    assert json.loads(result.stdout)["AIM_PARTITION_ID"] == "0000:05:00.0/1"
    assert world.requests[0].body["replica"] == 1


def test_options_of_the_command_are_its_own(api: FakeApi, socket_path: Path) -> None:
    result = aimctl_exec(socket_path, "llama", "--", "echo", "-o", "json", "--replica", "7", "--help")
    assert result.stdout == "-o json --replica 7 --help\n"


@pytest.mark.parametrize("code", [0, 3, 127])
def test_the_exit_code_is_the_commands(api: FakeApi, socket_path: Path, code) -> None:
    assert aimctl_exec(socket_path, "llama", "--", "sh", "-c", f"exit {code}").returncode == code


def test_no_such_command(api: FakeApi, socket_path: Path) -> None:
    result = aimctl_exec(socket_path, "llama", "--", "no-such-command")
    assert (result.returncode, result.stdout) == (127, "")
    assert result.stderr.splitlines()[-1] == "error: no-such-command: command not found"


def test_a_command_that_is_none(api: FakeApi, socket_path: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("no interpreter is named")
    refused = aimctl_exec(socket_path, "llama", "--", str(script))
    assert (refused.returncode, refused.stderr.splitlines()[-1][:7]) == (126, "error: ")
    script.chmod(0o755)
    assert "Exec format error" in aimctl_exec(socket_path, "llama", "--", str(script)).stderr
    assert aimctl_exec(socket_path, "llama", "--", "/").returncode == 126
    assert aimctl_exec(socket_path, "llama", "--", f"{script}/x").returncode == 126


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("llama",),
        ("llama", "--"),
        ("--",),
        ("llama", "--replica", "-1", "--", "true"),
        ("--wait", "-1", "--", "true"),
    ],
)
def test_usage(api: FakeApi, world: World, socket_path: Path, words) -> None:
    assert (aimctl_exec(socket_path, *words).returncode, world.requests) == (2, [])


@pytest.mark.parametrize(("status", "code"), [(403, 4), (404, 6), (409, 5), (422, 1)])
def test_nothing_runs_when_the_daemon_says_no(api: FakeApi, world: World, socket_path: Path, status, code) -> None:
    if status == 404:
        world.claims.pop("llama")
    else:
        problem = ProblemMessage(title="No", status=status, detail="not you", code="c")
        world.overrides["PUT /v1/claims/llama/holders/*"] = problem
    result = aimctl_exec(socket_path, "llama", "--", "echo", "ran")
    assert (result.returncode, result.stdout) == (code, "")


def test_nothing_runs_when_the_partition_cannot_be_seen(api: FakeApi, world: World, socket_path: Path) -> None:
    world.environments[0] = samples.environment(sysfs_root="/nonexistent")
    result = aimctl_exec(socket_path, "llama", "--", "echo", "ran")
    assert (result.returncode, result.stdout) == (5, "")


def test_a_folder_that_may_not_be_searched_is_no_reason_to_blame_the_command(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o000)
    script = (
        "import os; from aimd.ctl.executing import become\n"
        "if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)\n"
        f"become(('no-such-command',), {{'PATH': {str(closed)!r}}})"
    )
    tmp_path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert (done.returncode, done.stderr) == (127, "error: no-such-command: command not found\n")
