"""Ordinals in the caller's own view: KFD's nodes in number order, less CPUs and those that the cgroup hides."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from aimd.ctl.environment import TOPOLOGY, variables, visible_partitions
from aimd.errors import ConflictError
from aimd.protocol.messages import to_builtins
from aimd.sim.node import SimulatedNode
from aimd.sim.state import new_state
from tests.unit.ctl import samples

GPU0, GPU1 = "0000:05:00.0", "0000:27:00.0"


def copied_topology(node: SimulatedNode, root: Path) -> Path:
    """KFD's files of the simulated node as a tree on disk."""
    folder = root / TOPOLOGY
    for number in node.listdir(f"{TOPOLOGY}/nodes"):
        (folder / "nodes" / number).mkdir(parents=True)
        properties = node.read(f"{TOPOLOGY}/nodes/{number}/properties")
        (folder / "nodes" / number / "properties").write_bytes(properties)
    (folder / "generation_id").write_bytes(node.read(f"{TOPOLOGY}/generation_id"))
    return root


@pytest.fixture
def node() -> SimulatedNode:
    return SimulatedNode(new_state("mi300x", 2, "7.2", switch_seconds=0, rebuild_seconds=0))


def answer(partition: str, root: Path | None) -> dict:
    message = to_builtins(samples.environment(sysfs_root=None if root is None else str(root)))
    return message | {"partition": partition}


def test_partitions_in_the_order_of_their_nodes(node: SimulatedNode, tmp_path: Path) -> None:
    """The switched GPU's nodes are put at the end, so the other GPU comes first."""
    node.write(f"bus/pci/drivers/amdgpu/{GPU0}/current_compute_partition", b"DPX")
    root = copied_topology(node, tmp_path)
    assert visible_partitions(str(root)) == ([f"{GPU1}/0", f"{GPU0}/0", f"{GPU0}/1"], 0)
    assert variables(answer(f"{GPU0}/1", root)) == {
        "ROCR_VISIBLE_DEVICES": "2",
        "HIP_VISIBLE_DEVICES": "0",
        "AIM_CLAIM": "llama",
        "AIM_PARTITION_ID": f"{GPU0}/1",
        "AIM_MEMORY_LIMIT_BYTES": "25767706624",
    }


def test_numbers_are_ordered_as_numbers(node: SimulatedNode, tmp_path: Path) -> None:
    for gpu in (GPU0, GPU1):
        node.write(f"bus/pci/drivers/amdgpu/{gpu}/current_compute_partition", b"CPX")
    visible, _ = visible_partitions(str(copied_topology(node, tmp_path)))
    assert visible == [f"{gpu}/{index}" for gpu in (GPU0, GPU1) for index in range(8)]


def test_a_simulated_node_is_ordered_by_the_daemon() -> None:
    assert variables(answer(f"{samples.GPU0}/1", None))["ROCR_VISIBLE_DEVICES"] == "2"


def test_a_partition_that_is_not_there(node: SimulatedNode, tmp_path: Path) -> None:
    with pytest.raises(ConflictError) as missing:
        variables(answer(f"{GPU0}/7", copied_topology(node, tmp_path)))
    assert missing.value.code == "partition_missing"
    with pytest.raises(ConflictError):
        variables(answer("0000:99:00.0/0", None))


def test_a_reading_that_was_overtaken_by_a_switch_is_taken_again(node: SimulatedNode, tmp_path: Path) -> None:
    """A FIFO in the place of a node's properties: whoever reads them waits until the switch is over."""
    before = copied_topology(node, tmp_path / "before")
    node.write(f"bus/pci/drivers/amdgpu/{GPU0}/current_compute_partition", b"DPX")
    after = copied_topology(node, tmp_path / "after")
    last = max((before / TOPOLOGY / "nodes").iterdir(), key=lambda folder: int(folder.name)) / "properties"
    old = last.read_text()
    last.unlink()
    os.mkfifo(last)

    def switch() -> None:
        with last.open("w") as pipe:
            (before / TOPOLOGY).rename(tmp_path / "gone")
            (after / TOPOLOGY).rename(before / TOPOLOGY)
            pipe.write(old)

    switching = threading.Thread(target=switch)
    switching.start()
    assert visible_partitions(str(before)) == ([f"{GPU1}/0", f"{GPU0}/0", f"{GPU0}/1"], 0)
    switching.join()


def test_no_topology(tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="is not there"):
        visible_partitions(str(tmp_path))


def test_a_topology_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / TOPOLOGY / "generation_id").mkdir(parents=True)
    with pytest.raises(ConflictError) as unreadable:
        visible_partitions(str(tmp_path))
    assert unreadable.value.code == "topology_unreadable"
