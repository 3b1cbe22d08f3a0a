"""The units as files: systemd's own checks, and that they fit what they are used with. No machine is needed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from aimd.adapters.systemd import SOCKET_NAMES
from tests.conftest import is_root
from tests.systemd import tree

UNITS = tree.PROJECT / "systemd"
EXPOSURE = 15  # tenths


@pytest.fixture(scope="module")
def analyze():
    if shutil.which("systemd-analyze") is None:
        if not is_root():
            pytest.skip("systemd-analyze is not installed (Debian: systemd), and only root can install it")
        tree.install_tools()
    return "systemd-analyze"


@pytest.fixture
def installed(tmp_path):
    """The units, with programs that are there in place of those that the package brings."""
    for path in UNITS.iterdir():
        if path.suffix in (".service", ".socket"):
            text = re.sub(r"^(Exec\w+=\+?)\S+", r"\1/bin/true", path.read_text(), flags=re.MULTILINE)
            (tmp_path / path.name).write_text(re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE))
    return tmp_path


def test_units_are_valid(analyze, installed):
    files = sorted(installed.iterdir())
    result = subprocess.run([analyze, "verify", *files], capture_output=True, text=True, check=False)
    said = [line for line in (result.stdout + result.stderr).splitlines() if "aimd" in line]
    assert (result.returncode, said) == (0, [])


def test_the_service_is_hardly_exposed(analyze):
    command = [analyze, "security", "--offline=true", f"--threshold={EXPOSURE}", UNITS / "aimd.service"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_the_sockets_have_the_names_that_the_daemon_knows():
    names = {
        re.search(r"^FileDescriptorName=(\w+)$", path.read_text(), re.MULTILINE)[1] for path in UNITS.glob("*.socket")
    }
    assert names <= set(SOCKET_NAMES)
    used = re.search(r"^Sockets=(.*)$", (UNITS / "aimd.service").read_text(), re.MULTILINE)[1].split()
    assert set(used) == {path.name for path in UNITS.glob("*.socket")}


def test_the_example_configuration_is_what_the_package_installs():
    assert Path(UNITS / "aimd.toml").is_file()
