"""A control socket in this process, and mounts by the real command, one per module and driver."""

import pytest
from sim_processes import mounted

from aimd.sim.node import SimulatedNode
from aimd.sim.state import new_state
from aimd.sim.thread import ControlThread


@pytest.fixture
def node():
    return SimulatedNode(new_state("mi300x", 2, "7.2", switch_seconds=0.01, reap_seconds=0.2))


@pytest.fixture
def control(node, tmp_path):
    """Path of the control socket of `node`."""
    with ControlThread(node, tmp_path / "sim.sock"):
        yield tmp_path / "sim.sock"


def _mount_of_module(factory, *options):
    with mounted(factory.mktemp("mount"), *options) as mount:
        yield mount


@pytest.fixture(scope="module")
def new_driver_mount(requires_fuse, tmp_path_factory):
    yield from _mount_of_module(tmp_path_factory, "--model", "mi300x:2", "--profile", "7.2")


@pytest.fixture(scope="module")
def old_driver_mount(requires_fuse, tmp_path_factory):
    yield from _mount_of_module(tmp_path_factory, "--model", "mi300x:2", "--profile", "6.12")


@pytest.fixture
def new_driver(new_driver_mount):
    """A mount with the driver of Linux 7.2, rebooted."""
    with new_driver_mount.client() as client:
        client.reboot()
    return new_driver_mount


@pytest.fixture
def old_driver(old_driver_mount):
    """A mount with the driver of Linux 6.12, rebooted."""
    with old_driver_mount.client() as client:
        client.reboot()
    return old_driver_mount
