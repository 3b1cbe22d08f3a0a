"""Wheel and source distribution: what is in them, and a daemon from them on each Python that is supported and here."""

import json
import os
import signal
import subprocess
import tarfile
import zipfile

import pytest

from tests.systemd.machine import until

LEASE = """
import sys
from aimd.dispatch import Client
with Client(sys.argv[1]) as client, client.lease("llama", timeout=10) as lease:
    print(lease.partition)
"""


@pytest.fixture
def daemon(installed, tmp_path):
    """Runs on a simulated node until SIGTERM; gives a function that runs a program of the environment beside it."""
    run = tmp_path / "run"
    environ = {"PATH": os.defpath, "LANG": "C.UTF-8", "AIMD_SOCKET": str(run / "aimd.sock")}
    folders = ["--runtime-dir", run, "--state-dir", tmp_path / "state"]
    with (tmp_path / "log").open("wb") as log:
        command = [installed / "aimd", "run", "--simulate", "mi300x:2", *folders]
        process = subprocess.Popen(command, env=environ, cwd=tmp_path, stdout=log, stderr=log)

        def done(program, *arguments):
            result = subprocess.run(
                [installed / program, *arguments], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60
            )
            assert result.returncode == 0, result.stdout + result.stderr + (tmp_path / "log").read_text()
            return result.stdout

        try:
            until((run / "aimd.sock").exists, (tmp_path / "log").read_text)
            yield done
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, (tmp_path / "log").read_text()
        finally:
            process.kill()
            process.wait()


def test_a_daemon_claims_switches_and_gives_leases(daemon, tmp_path):
    daemon("aimctl", "set-mode", "gpu0", "CPX")
    daemon("aimctl", "claim", "llama", "--memory", "8")
    gpus = json.loads(daemon("aimctl", "get", "gpus", "-o", "json"))["gpus"]
    assert [gpu["compute_mode"] for gpu in gpus] == ["CPX", "SPX"]
    assert "0000:" in daemon("python", "-I", "-c", LEASE, str(tmp_path / "run/dispatch.sock"))


def test_what_is_installed_fits_together(installed):
    result = subprocess.run([installed / "python", "-m", "pip", "check"], capture_output=True, text=True, cwd="/")
    assert result.returncode == 0, result.stdout


def test_the_wheel_has_compiled_modules_and_documents_and_no_sources(distributions):
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"aimd", wheel.name[: len("aimd-0.1.0")] + ".dist-info"}
    compiled = {name.split("/")[-1].partition(".")[0] for name in names if name.endswith(".so")}
    assert compiled >= {"core", "server", "hip", "queue", "sketch"}
    for name in ("aimd/py.typed", "aimd/protocol/DISPATCH.md", "aimd/adapters/http/openapi.json"):
        assert name in names
    assert [name for name in names if name.endswith((".pyx", ".pxi", ".c"))] == []
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_distribution_has_what_it_is_built_of(distributions):
    (source,) = distributions.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "setup.py", "native/core.pyx", "native/heap.pxi"} <= names
    assert [name for name in names if name.endswith((".so", ".c", ".pyc"))] == []
