"""README's two commands, in a fresh clone with a fresh virtual environment.

The first is run as it stands there. The second is what CI runs as it stands there (`.ci/run`), and so it is what runs
this test; the campaign lets it set itself up in the clone, too, and collect the tests.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.unix_http import ask

ROOT = Path(__file__).parents[2]
SETUP_SECONDS = 900
COMMANDS = re.findall(r"^    (python3 -m venv .+)$", (ROOT / "README.md").read_text(), re.MULTILINE)


@pytest.fixture
def home(requires_root: None) -> Iterator[Path]:
    """As root, which CI is; for others a run of all tests stays one without downloads and a compiler."""
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        yield Path(folder)


@pytest.fixture
def clone(home: Path) -> Path:
    """What is committed, as `git clone` gives it."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (home / "gitconfig").write_text("[safe]\n\tdirectory = *\n")  # whoever owns the checkout
    result = subprocess.run(
        ["git", "clone", "--quiet", str(ROOT), str(home / "aimd")],
        env={**os.environ, "GIT_CONFIG_GLOBAL": str(home / "gitconfig")},
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        pytest.skip(f"this is no git checkout: {result.stderr.strip()}")
    return home / "aimd"


def environment(home: Path) -> dict[str, str]:
    """This one without what would lead into the virtual environment and directories of this run."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "AIMD"))}
    inherited.pop("VIRTUAL_ENV", None)
    return {**inherited, "RUNTIME_DIRECTORY": str(home / "run"), "STATE_DIRECTORY": str(home / "state")}


def test_there_are_two_commands_and_ci_runs_the_second() -> None:
    assert len(COMMANDS) == 2
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == COMMANDS[1]


@pytest.mark.timeout(SETUP_SECONDS + 60)
def test_the_first_command_sets_up_and_runs_a_simulated_node(home: Path, clone: Path) -> None:
    process = subprocess.Popen(
        ["bash", "-c", COMMANDS[0]],
        cwd=clone,
        env=environment(home),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    overdue = threading.Timer(SETUP_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
    overdue.start()
    try:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if line.startswith("aimd is ready"):
                break
        assert told, process.wait()
        assert told[-1].endswith(f"8 GPUs, 8 partitions, API on {home}/run/aimd.sock\n"), "".join(told)
        socket = home / "run" / "aimd.sock"
        assert len(ask(socket, "/v1/gpus").json["gpus"]) == 8
        os.kill(ask(socket, "/v1/node").json["pid"], signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        overdue.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.campaign
@pytest.mark.timeout(SETUP_SECONDS)
def test_the_second_command_sets_up_and_finds_the_tests(home: Path, clone: Path) -> None:
    result = subprocess.run(
        ["bash", "-c", COMMANDS[1]],
        cwd=clone,
        env={**environment(home), "PYTEST_ADDOPTS": "--quiet --collect-only"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert re.search(r"\d{3,}(/\d+)? tests? collected", result.stdout), result.stdout[-500:]
