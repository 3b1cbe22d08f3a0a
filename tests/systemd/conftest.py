"""Machines with a real systemd, for root. What they are made from is built once and kept (tests/systemd/tree.py)."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.systemd import tree
from tests.systemd.machine import Machine, Simulation


def pytest_collection_modifyitems(items):
    """What builds a tree and a package at its first use takes longer than a usual test may."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))


def _obstacle():
    if shutil.which("apt-get") is None:
        return "there is no apt-get to make a Debian tree with"
    probe = ["unshare", "--mount", "--pid", "--fork", "--net", "--cgroup", "true"]
    result = subprocess.run(probe, capture_output=True, text=True, check=False)
    return f"namespaces cannot be made: {result.stderr.strip()}" if result.returncode else None


@pytest.fixture(scope="session")
def debian(requires_root, requires_fuse):
    """The folder of the tree, and the package."""
    if obstacle := _obstacle():
        pytest.skip(obstacle)
    tree.install_tools()
    return tree.base_tree(), tree.package()


@pytest.fixture(scope="module")
def simulation(debian):
    with tempfile.TemporaryDirectory(prefix="aimd-", dir="/tmp") as folder:
        simulation = Simulation(Path(folder))
        yield simulation
        simulation.close()


@pytest.fixture(scope="module")
def bare_machine(debian, simulation):
    """Booted, without the package."""
    with tempfile.TemporaryDirectory(prefix="aimd-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        machine = Machine(debian[0], Path(folder), simulation)
        yield machine
        machine.close()


@pytest.fixture(scope="module")
def machine(bare_machine, debian):
    """With the package installed and nothing started but its sockets."""
    bare_machine.install(debian[1])
    return bare_machine
