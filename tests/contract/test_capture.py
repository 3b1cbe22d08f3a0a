"""The simulated node, brought to the state of a real machine, shows what that machine showed.

The machine is the one of the public capture of ROCm/k8s-device-plugin: eight MI300X, switched to CPX one by one, whose
kernel had no DRM minor for the last partition. Its generation_id tells this history: 1 for the CPU nodes, 8 for the
GPUs at load, 9 for each switch, less the 64th partition. No key differs legitimately: what identifies the machine
(unique_id, hive_id, platform ids) is put into the simulated hardware from the capture.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from aimd.sim.node import SimulatedNode
from aimd.sim.state import new_state

TOPOLOGY = "class/kfd/kfd/topology"


@pytest.fixture(scope="module")
def capture(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The captured topology folder."""
    archive = shared_data / "kfd-topology" / "mi300x-cpx.tar.xz"
    folder = tmp_path_factory.mktemp("capture")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return next(folder.rglob("generation_id")).parent


@pytest.fixture(scope="module")
def node(capture: Path) -> SimulatedNode:
    state = new_state("mi300x", 8, "6.12", switch_seconds=0.0, rebuild_seconds=0.0)
    state.drm_minors = 63
    oem, platform, revision = (value for _, value in pairs((capture / "system_properties").read_text()))
    state.platform = (int(oem), int(platform), int(revision))
    for position, gpu in enumerate(state.gpus):
        known = dict(pairs((capture / f"nodes/{2 + 8 * position}/properties").read_text()))
        gpu.unique_id, gpu.hive_id = int(known["unique_id"]), int(known["hive_id"])
    node = SimulatedNode(state)
    for address in node.gpu_addresses:
        node.write(f"bus/pci/drivers/amdgpu/{address}/current_compute_partition", b"CPX\n")
    return node


def pairs(text: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in (line.split(" ", 1) for line in text.splitlines())]


def test_nodes_and_links_are_those_of_the_machine(capture: Path, node: SimulatedNode) -> None:
    for path in (capture / "nodes", *(capture / "nodes").glob("*/io_links")):
        assert node.listdir(f"{TOPOLOGY}/{path.relative_to(capture)}") == sorted(each.name for each in path.iterdir())


def test_every_captured_file_byte_by_byte(capture: Path, node: SimulatedNode) -> None:
    """Properties of nodes and links, key by key and in order, with generation_id and system_properties."""
    captured = {str(path.relative_to(capture)): path.read_bytes() for path in capture.rglob("*") if path.is_file()}
    assert (len(captured), captured["generation_id"]) == (4101, b"80\n")
    rendered = {name: node.read(f"{TOPOLOGY}/{name}") for name in captured}
    differing = [name for name in captured if rendered[name] != captured[name]]
    assert {name: rendered[name].decode() for name in differing} == {
        name: captured[name].decode() for name in differing
    }
