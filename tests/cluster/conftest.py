"""A control plane for everybody whose programs are built or can be, and real nodes for root."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.cluster import builds, images
from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import Node
from tests.conftest import install

TOOLS = {
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "buildah": "buildah",
    str(images.BUSYBOX): "busybox-static",
    "mmdebstrap": "mmdebstrap",
}

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items):
    """A pod takes its time, and what builds a cluster at its first use counts for no test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300, func_only=True))


def _programs(build):
    """Built beforehand, or now by root, who runs everything; others would wait for too long."""
    if os.geteuid() != 0 and not os.environ.get("AIMD_TEST_CLUSTER"):
        pytest.skip("needs a cluster, which is root's to run (AIMD_TEST_CLUSTER=1: what can be run without root, too)")
    if (folder := builds.found(build)) is not None:
        return folder
    if os.geteuid() != 0:
        pytest.skip("the cluster's programs are not built yet (python -m tests.cluster.builds does it)")
    if obstacle := builds.go_obstacle():
        pytest.skip(obstacle)
    return builds.built(build)


@pytest.fixture(scope="session")
def cluster_programs():
    """The folder of etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl."""
    return _programs(builds.CONTROL_PLANE)


@pytest.fixture(scope="session")
def control_plane(cluster_programs):
    """One for all tests of the session, with an audit log. Who stops or fills it makes one of their own."""
    with tempfile.TemporaryDirectory(prefix="aimd-control-", dir="/tmp") as folder:
        control_plane = ControlPlane(cluster_programs, Path(folder), audit=True)
        yield control_plane
        control_plane.close()


@pytest.fixture
def namespace(control_plane):
    """A namespace of the test's own, ready for pods."""
    with control_plane.namespace(f"test-{next(_numbers)}") as name:
        yield name


@pytest.fixture(scope="session")
def node_tools(requires_root):
    """What a node needs from Debian: runc, CNI's plugins, buildah, a static busybox, mmdebstrap."""
    if shutil.which("apt-get") is None and not all(map(shutil.which, TOOLS)):
        pytest.skip("there is no apt-get to install runc and the rest of a node with")
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None and not Path(tool).exists():
            install(package)


@pytest.fixture(scope="session")
def node_programs(node_tools):
    """Folders of kubelet and of containerd."""
    return _programs(builds.KUBELET), _programs(builds.CONTAINERD)


@pytest.fixture(scope="session")
def node_images(node_tools, tmp_path_factory):
    """Archives of the images that every node has: the pause image and images.SHELL."""
    folder = tmp_path_factory.mktemp("images")
    pause = images.pause_image(folder / "pause.tar", _programs(builds.PAUSE) / "pause")
    return pause, images.shell_image(folder / "shell.tar")


@pytest.fixture(scope="session")
def make_node(control_plane, node_programs, node_images):
    """A function that makes a node by its name (and what else Node takes); all end with the session."""
    with contextlib.ExitStack() as ends:

        def make(name, *, also=(), **more):
            folder = tempfile.TemporaryDirectory(prefix="aimd-node-", dir=os.environ.get("TMPDIR", "/var/tmp"))
            ends.enter_context(folder)
            number = next(_numbers) % 250
            node = Node(
                *(name, control_plane, *node_programs, Path(folder.name)),
                pause=images.PAUSE,
                images=(*node_images, *also),
                number=number,
                **more,
            )
            ends.callback(node.close)
            return node

        yield make


@pytest.fixture(scope="module")
def passing_node(control_plane, make_node):
    """Likewise, of nodes that end with the module: what others have the scheduler place is not for them."""
    with contextlib.ExitStack() as ends:

        def make(name, **more):
            node = make_node(name, **more)
            ends.callback(control_plane.api.delete, f"/api/v1/nodes/{name}")
            ends.callback(node.close)
            return node

        yield make


@pytest.fixture(scope="session")
def real_node(make_node):
    """One for all tests of the session."""
    return make_node("node-a")


@pytest.fixture
def image_builder(node_tools, tmp_path):
    builder = images.Builder(tmp_path / "buildah")
    yield builder
    builder.close()
