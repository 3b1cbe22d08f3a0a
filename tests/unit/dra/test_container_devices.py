"""What the containers of a claim get: the files of one partition, and where it and the node's daemon are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aimd.adapters.dra.cdi import CdiFiles
from aimd.domain.dra import DeviceNode, Mount
from aimd.errors import ConflictError
from aimd.planning.dra.cdi import NodeFiles, container_devices
from aimd.planning.dra.requests import Allocation, allocation
from tests.unit.dra.claims import claim, result
from tests.unit.dra.nodes import NODE, on_paper, simulated, with_gpu

MODEL = "default/llama"
NODE_FILES = NodeFiles()


def allocated(*results: dict[str, Any], snapshot: Any) -> Allocation:
    found = allocation(claim(*results), NODE, snapshot)
    assert isinstance(found, Allocation)
    return found


def test_one_request() -> None:
    snapshot = simulated("mi300x", "CPX", "SPX")
    (device,) = container_devices(allocated(result(), snapshot=snapshot), MODEL, snapshot, NODE_FILES)
    render = snapshot.gpus[0].gpu.partitions[3].render_minor
    assert device.request == "gpu"
    assert device.nodes == (DeviceNode("/dev/kfd"), DeviceNode(f"/dev/dri/renderD{render}"))
    assert device.environment == {
        "ROCR_VISIBLE_DEVICES": "0",
        "AIM_CLAIM": MODEL,
        "AIM_PARTITION_ID": "0000:05:00.0/3",
        "AIM_MEMORY_LIMIT_BYTES": str(25_767_706_624 // 3),
        "AIMD_DISPATCH_SOCKET": "/run/aimd/dispatch.sock",
    }
    assert device.mounts == (Mount("/run/aimd", "/run/aimd", read_only=True),)


def test_each_partition_has_its_own_file() -> None:
    snapshot = simulated("mi300x", "CPX")
    results = [result(f"gpu0-cpx-{index}", f"r{index}") for index in range(8)]
    found = container_devices(allocated(*results, snapshot=snapshot), MODEL, snapshot, NODE_FILES)
    assert len({device.nodes[1].path for device in found}) == 8


def test_a_node_may_have_its_files_elsewhere() -> None:
    snapshot = simulated("mi300x", "CPX")
    files = NodeFiles("/srv/sockets", "/srv/kfd", "/srv/dri")
    (device,) = container_devices(allocated(result(), snapshot=snapshot), MODEL, snapshot, files)
    assert [(node.path, node.host_path) for node in device.nodes] == [
        ("/dev/kfd", "/srv/kfd"),
        (device.nodes[1].path, device.nodes[1].path.replace("/dev/dri", "/srv/dri")),
    ]
    assert device.mounts == (Mount("/srv/sockets", "/run/aimd"),)


def test_an_undivided_gpu_has_no_word_for_its_mode() -> None:
    snapshot = on_paper("SPX/NPS1", device_id=0x740F, file=None, compute_modes=None)
    (device,) = container_devices(allocated(result("gpu0-spx-0"), snapshot=snapshot), MODEL, snapshot, NODE_FILES)
    assert device.nodes[1].path == "/dev/dri/renderD128"


def test_a_partition_of_another_mode_is_not_there() -> None:
    """Its index exists in the present mode, too: that is another partition."""
    snapshot = simulated("mi300x", "CPX")
    found = allocated(result("gpu0-spx-0"), snapshot=snapshot)
    with pytest.raises(
        ConflictError, match=r"device gpu0-spx-0 is not there: gpu0 is ready in mode CPX/NPS1, expected SPX"
    ):
        container_devices(found, MODEL, snapshot, NODE_FILES)


def test_a_lost_partition_is_not_there() -> None:
    snapshot = on_paper("CPX/NPS1")
    found = allocated(result(), snapshot=snapshot)
    lost = with_gpu(snapshot, 0, gpu=replace(snapshot.gpus[0].gpu, partitions=()))
    with pytest.raises(ConflictError, match="gpu0 is lost"):
        container_devices(found, MODEL, lost, NODE_FILES)


def test_the_file_of_a_claim(tmp_path: Path) -> None:
    """Names of CDI devices, of alternatives, too."""
    snapshot = simulated("mi300x", "CPX")
    found = allocated(result(request="gpu/large"), result("gpu0-cpx-4", "other"), snapshot=snapshot)
    files = CdiFiles(tmp_path)
    ids = files.write(found.claim.uid, container_devices(found, MODEL, snapshot, NODE_FILES))
    assert ids == {"gpu/large": "gpu.aimd.dev/claim=claim-uid-gpu.large", "other": "gpu.aimd.dev/claim=claim-uid-other"}
    (path,) = tmp_path.iterdir()
    content = json.loads(path.read_text())
    assert [one["name"] for one in content["devices"]] == ["claim-uid-gpu.large", "claim-uid-other"]
    edits = content["devices"][1]["containerEdits"]
    assert "AIM_PARTITION_ID=0000:05:00.0/4" in edits["env"]
    assert edits["mounts"][0]["options"][0] == "ro"


def test_a_gpu_that_has_left_the_node_is_a_missing_partition() -> None:
    snapshot = on_paper("CPX", "CPX")
    found = allocated(result("gpu1-cpx-3"), snapshot=snapshot)
    with pytest.raises(ConflictError, match="gpu1-cpx-3 is not there"):
        container_devices(found, MODEL, replace(snapshot, gpus=snapshot.gpus[:1]), NODE_FILES)
