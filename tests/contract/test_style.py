"""Linters and type checker as tests, and no trace of the machine that a file was written on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
NATIVE = sorted((PROJECT / "native").glob("*.pyx"))

# In pieces, so that this file does not contain them either.
ELSEWHERE = [
    "/" + "work/",
    "/tmp/" + "venv",
    "." + "library/",
    "pypi" + ".org/simple",
    "files.python" + "hosted.org",
    "proxy." + "golang.org",
    "registry." + "npmjs.org",
]


def check(*command):
    """Run a tool of this environment, which finds its own tools (cython-lint runs pycodestyle) there, too."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=PROJECT,
        env={**os.environ, "PATH": tools},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def tracked_files():
    command = ["git", "-c", f"safe.directory={PROJECT}", "ls-files", "-z"]  # whoever owns the checkout
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    if result.returncode != 0:
        pytest.skip(f"no git checkout: {result.stderr.partition(chr(10))[0]}")
    return [path for name in result.stdout.split("\0") if name and (path := PROJECT / name).is_file()]


def test_ruff_check():
    check("ruff", "check", "--no-cache", "aimd", "tests")


def test_ruff_format():
    check("ruff", "format", "--no-cache", "--check", "aimd", "tests")


def test_mypy_strict(tmp_path):
    check("mypy", "--strict", "--cache-dir", str(tmp_path), "aimd")


@pytest.mark.skipif(not NATIVE, reason="no native/*.pyx yet")
def test_cython_lint():
    check("cython_lint.cython_lint", "--max-line-length=120", *map(str, NATIVE))


def test_tracked_files_do_not_name_the_machine_they_were_written_on():
    traces = {
        f"{path.relative_to(PROJECT)}: {trace}"
        for path in tracked_files()
        for trace in ELSEWHERE
        if trace.encode() in path.read_bytes()
    }
    assert traces == set()
