"""The simulated node, brought to the state of a real machine, shows what that machine showed.

The machine is the one of the public capture of ROCm/k8s-device-plugin: eight MI300X, switched to CPX one by one, whose
kernel had no DRM minor for the last partition. Its generation_id tells this history: 1 for the CPU nodes, 8 for the
GPUs at load, 9 for each switch, less the 64th partition. No key differs for a reason of its own; what identifies the
machine (unique_id, hive_id, platform ids) is put into the simulated hardware from the capture.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from aimd.sim.node import SimulatedNode
from aimd.sim.state import new_state

TOPOLOGY = "class/kfd/kfd/topology"
DIFFERING_KEYS: dict[str, str] = {}  # key: why the simulation shows another value


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


def test_history(capture: Path, node: SimulatedNode) -> None:
    assert (capture / "generation_id").read_bytes() == b"80\n"
    assert node.read(f"{TOPOLOGY}/generation_id") == b"80\n"


def test_node_numbers(capture: Path, node: SimulatedNode) -> None:
    assert sorted(path.name for path in (capture / "nodes").iterdir()) == node.listdir(f"{TOPOLOGY}/nodes")


@pytest.mark.parametrize("number", range(65))
def test_properties(capture: Path, node: SimulatedNode, number: int) -> None:
    captured = pairs((capture / f"nodes/{number}/properties").read_text())
    rendered = pairs(node.read(f"{TOPOLOGY}/nodes/{number}/properties").decode())
    assert [key for key, _ in rendered] == [key for key, _ in captured]
    assert [pair for pair in rendered if pair[0] not in DIFFERING_KEYS] == [
        pair for pair in captured if pair[0] not in DIFFERING_KEYS
    ]


def test_links(capture: Path, node: SimulatedNode) -> None:
    compared = 0
    for folder in (capture / "nodes").iterdir():
        links = f"{TOPOLOGY}/nodes/{folder.name}/io_links"
        assert sorted(path.name for path in (folder / "io_links").iterdir()) == node.listdir(links)
        for path in (folder / "io_links").glob("*/properties"):
            assert node.read(f"{links}/{path.parent.name}/properties") == path.read_bytes(), path
            compared += 1
    assert compared == 4034


def test_every_captured_file_byte_by_byte(capture: Path, node: SimulatedNode) -> None:
    files = [path for path in capture.rglob("*") if path.is_file()]
    assert len(files) == 4101
    differing = [
        str(path) for path in files if node.read(f"{TOPOLOGY}/{path.relative_to(capture)}") != path.read_bytes()
    ]
    assert differing == []
