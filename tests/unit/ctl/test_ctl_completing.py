"""Shell completion: scripts, and names from the daemon as the shells ask for them."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from aimd.ctl.completing import PATIENCE_SECONDS
from aimd.ctl.main import COMMANDS, program
from tests.fakes.api import FakeApi, Raw, World
from tests.unit.ctl.test_ctl_process import command, environment


@pytest.fixture
def completed(api: FakeApi, socket_path: Path):
    def ask(*words: str, socket: str = str(socket_path)) -> list[str]:
        *typed, incomplete = words
        completer = ShellComplete(program, {}, "aimctl", "_AIMCTL_COMPLETE")
        return [item.value for item in completer.get_completions(["--socket", socket, *typed], incomplete)]

    return ask


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell) -> None:
    result = CliRunner().invoke(program, ["completion", shell])
    assert result.exit_code == 0
    assert f"_AIMCTL_COMPLETE={shell}_complete" in result.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=result.stdout, text=True, check=True)


def test_no_other_shell() -> None:
    assert CliRunner().invoke(program, ["completion", "csh"]).exit_code == 2


def test_commands(completed) -> None:
    assert completed("") == sorted(COMMANDS)
    assert completed("des") == ["describe"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("get", "gpus", ""), ["gpu0", "gpu1", "gpu2"]),
        (("get", "gpu", "0000:2"), ["0000:26:00.0"]),
        (("describe", "gpu", "gpu1"), ["gpu1"]),
        (("get", "partitions", "gpu0/"), ["gpu0/0", "gpu0/1"]),
        (("describe", "partition", "gpu1"), ["gpu1/0"]),
        (("get", "claims", ""), ["llama", "bert"]),
        (("describe", "claim", "l"), ["llama"]),
        (("get", "assignments", "llama"), ["llama/0", "llama/1"]),
        (("get", "plans", ""), ["set-mode-0"]),
        (("get", "models", ""), ["llama", "bert"]),
        (("describe", "model", "b"), ["bert"]),
        (("describe", "plan", "set"), ["set-mode-0"]),
        (("get", "node", ""), []),
        (("drain", "g"), ["gpu0", "gpu1", "gpu2"]),
        (("undrain", "gpu0", "gpu2"), ["gpu2"]),
        (("release", "llama", "b"), ["bert"]),
        (("exec", "b"), ["bert"]),
        (("set-mode", "gpu1"), ["gpu1"]),
        (("set-mode", "gpu0", "DPX"), ["DPX", "DPX/NPS1", "DPX/NPS4"]),
        (("set-mode", "gpu0", "dpx/"), ["DPX/NPS1", "DPX/NPS4"]),
        (("plan", "set-mode", "gpu0", "CPX/NPS1", "gpu2"), ["gpu2"]),
        (("plan", "set-mode", "gpu2", ""), []),
        (("claim", "new", "--partition", "gpu0/"), ["gpu0/0", "gpu0/1"]),
        (("claim", "new", "--preferred", "gpu1"), ["gpu1/0"]),
        (("claim", "new", "--compute", "d"), ["DPX"]),
        (("claim", "new", "--memory-mode", ""), ["NPS1", "NPS4"]),
        (("completion", ""), ["bash", "zsh", "fish"]),
    ],
)
def test_names_of_the_daemon(completed, words, names) -> None:
    assert completed(*words) == names


def test_without_a_daemon_there_are_no_names(completed, socket_path: Path) -> None:
    assert completed("get", "gpus", "", socket=f"{socket_path}.none") == []
    assert completed("set-mode", "gpu0", "", socket=f"{socket_path}.none") == []


def test_a_slow_daemon_is_not_waited_for(completed, world: World) -> None:
    world.overrides["GET /v1/claims"] = Raw(hang=True)
    began = time.monotonic()
    assert completed("release", "") == []
    assert time.monotonic() - began < PATIENCE_SECONDS + 1


def test_a_strange_daemon_is_no_news(completed, world: World) -> None:
    world.overrides["GET /v1/gpus"] = Raw(b'{"gpus": [{}]}')
    assert completed("drain", "") == []


@pytest.mark.parametrize("name", [True, False])
def test_as_the_shell_asks(api: FakeApi, socket_path: Path, name) -> None:
    """bash hands over the words in the environment, and what it gets on stderr would stand in the user's line."""
    path = str(socket_path) if name else f"{socket_path}.none"
    words = {"COMP_WORDS": "aimctl describe claim l", "COMP_CWORD": "3", "_AIMCTL_COMPLETE": "bash_complete"}
    program = "from aimd.ctl.main import main; main()"
    result = subprocess.run(
        [command()[0], "-c", program],
        env=environment(AIMD_SOCKET=path, **words),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.stdout.strip(), result.stderr) == ("plain,llama" if name else "", "")
