"""`aimd inventory`, the main job of the inventory: captured nodes, real and hand-made, without a daemon, in every format."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.e2e.captures import CPU, MI308X_SIZES, below, device, gpu, mi308x_topology, node, write
from tests.e2e.programs import AIMD, ROOT, SECONDS

FORMATS = ("table", "wide", "json", "yaml", "name")
ADDRESSES = [f"0000:{bus}:00.0" for bus in ("05", "27", "47", "65", "85", "a7", "c7", "e5")]


def inventory(root: Path, fmt: str) -> subprocess.CompletedProcess[str]:
    command = [*AIMD, "inventory", "--root", str(root), "-o", fmt]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)


@pytest.fixture(scope="module")
def captured(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real eight-GPU node in CPX mode, whose 64th partition is missing."""
    folder = tmp_path_factory.mktemp("mi300x-cpx")
    with tarfile.open(shared_data / "kfd-topology" / "mi300x-cpx.tar.xz") as archive:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in every 3.10
        archive.extractall(folder, **safely)
    return folder


def test_the_captured_node(captured: Path) -> None:
    result = inventory(captured, "json")
    assert (result.returncode, result.stderr) == (0, "")
    gpus = json.loads(result.stdout)["gpus"]
    assert [gpu["pci_address"] for gpu in gpus] == ADDRESSES
    assert [gpu["model"] for gpu in gpus] == ["MI300X"] * 8
    assert [gpu["compute_mode"] for gpu in gpus] == ["CPX"] * 8
    assert [len(gpu["partitions"]) for gpu in gpus] == [8] * 7 + [7]
    for each in gpus:
        assert [part["index"] for part in each["partitions"]] == list(range(len(each["partitions"])))
        assert {part["pci_address"] for part in each["partitions"]} == {each["pci_address"]}
        assert {(part["xcc_count"], part["compute_units"]) for part in each["partitions"]} == {(1, 38)}
        assert {part["memory_bytes"] for part in each["partitions"]} == {each["memory_bytes"]} == {None}
        assert (each["memory_mode"], each["reported_compute_mode"], each["available_compute_modes"]) == (None,) * 3
        assert each["memory_mode_writable"] is None
        assert each["device_id"] == "0x74a1"
    assert [part["render_minor"] for gpu in gpus for part in gpu["partitions"]] == list(range(128, 191))
    assert [(part["gpu"], part["name"], part["id"]) for gpu in gpus for part in gpu["partitions"]] == [
        (f"gpu{number}", f"gpu{number}/{index}", f"{address}/{index}")
        for number, address in enumerate(ADDRESSES)
        for index in range(7 if number == 7 else 8)
    ]
    assert [gpu["drift"] for gpu in gpus] == [[]] * 7 + [["1 of 8 partitions are missing"]]
    assert json.loads(result.stdout)["warnings"] == []


def test_the_captured_nodes_names(captured: Path) -> None:
    names = inventory(captured, "name").stdout.splitlines()
    assert len(names) == 8 + 63
    assert names[:9] == ["gpu0", *(f"gpu0/{index}" for index in range(8))]
    assert names[-1] == "gpu7/6"


@pytest.mark.parametrize("fmt", ["table", "wide"])
def test_the_captured_nodes_tables(captured: Path, fmt: str) -> None:
    result = inventory(captured, fmt)
    assert result.returncode == 0
    gpus, partitions = result.stdout.split("\n\n")
    assert len(gpus.splitlines()) == 1 + 8
    assert len(partitions.strip().splitlines()) == 1 + 63
    assert "CPX/-" in gpus
    assert " 0 B" not in result.stdout


def test_yaml_and_json_say_the_same(captured: Path) -> None:
    assert yaml.safe_load(inventory(captured, "yaml").stdout) == json.loads(inventory(captured, "json").stdout)


def test_every_way_to_name_the_capture(captured: Path) -> None:
    (top,) = captured.iterdir()
    alone = captured / "alone"
    shutil.copytree(top / "topology", alone / "deeper" / "topology")
    names = [inventory(root, "name").stdout for root in (top, top / "topology", alone, alone / "deeper" / "topology")]
    shutil.rmtree(alone)
    assert [len(name.splitlines()) for name in names] == [8 + 63] * 4
    assert len({*names, inventory(captured, "name").stdout}) == 1


MI308X = {
    **below("sys/class/kfd/kfd/topology", mi308x_topology()),
    **{
        f"sys/{name}": text
        for address in ("0000:0c:00.0", "0000:a4:00.0")
        for name, text in device(
            address,
            "CPX",
            "NPS4",
            device="0x74a2\n",
            available_compute_partition="SPX, DPX, CPX\n",
            available_memory_partition="NPS1, NPS4\n",
            mem_info_vram_total="206141652992\n",
            numa_node="0\n",
        ).items()
    },
}


@pytest.mark.parametrize("kind", ["topology alone", "with devices"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_capture_of_other_hardware(tmp_path: Path, kind: str, fmt: str) -> None:
    alone = kind == "topology alone"
    root = write(tmp_path, below("capture/topology", mi308x_topology()) if alone else MI308X)
    result = inventory(root, fmt)
    assert (result.returncode, result.stderr) == (0, "")
    if fmt == "name":
        assert result.stdout.splitlines() == [
            name for gpu in ("gpu0", "gpu1") for name in (gpu, *(f"{gpu}/{index}" for index in range(4)))
        ]
    elif fmt in ("json", "yaml"):
        gpus = yaml.safe_load(result.stdout)["gpus"]
        assert [gpu["pci_address"] for gpu in gpus] == ["0000:0c:00.0", "0000:a4:00.0"]
        assert [gpu["model"] for gpu in gpus] == ["MI308X", "MI308X"]
        assert {(gpu["compute_mode"], gpu["memory_mode"]) for gpu in gpus} == {("CPX", None if alone else "NPS4")}
        assert [part["render_minor"] for part in gpus[1]["partitions"]] == [128, 129, 130, 131]
        for each in gpus:
            assert [part["memory_bytes"] for part in each["partitions"]] == list(MI308X_SIZES)
            assert each["memory_bytes"] == sum(MI308X_SIZES)
            assert each["memory_mode_writable"] is (None if alone else True)
            assert each["drift"] == []
    else:
        assert "MI308X" in result.stdout
        assert ("CPX/-" if alone else "CPX/NPS4") in result.stdout
        assert "48 GiB" in result.stdout or "48.0 GiB" in result.stdout


@pytest.mark.parametrize("kind", ["empty", "none", "file"])
def test_a_root_without_a_topology(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    if kind == "empty":
        root.mkdir()
    elif kind == "file":
        root.write_text("")
    result = inventory(root, "json")
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert str(root) in result.stderr
    assert (kind == "empty") == ("holds no KFD topology" in result.stderr)


@pytest.mark.parametrize(("device_id", "model"), [(0x740F, "MI210"), (0x7408, "MI250X"), (0x738C, "MI100")])
def test_gpus_without_partition_modes(tmp_path: Path, device_id: int, model: str) -> None:
    """As of an old driver, which has no num_xcc, and of a new one."""
    files = {}
    for number, changes in enumerate([{"num_xcc": None}, {"num_xcc": 1}]):
        values = gpu(5 + number, device_id=device_id, gfx_target_version=90010, simd_count=416, **changes)
        files |= node(number + 1, values, gpu_id=1000 + number, size=34342961152)
    root = write(tmp_path, below("topology", {**node(0, CPU, gpu_id=0), **files}))
    result = inventory(root, "json")
    assert (result.returncode, result.stderr) == (0, "")
    for found in json.loads(result.stdout)["gpus"]:
        assert (found["model"], found["device_id"]) == (model, f"0x{device_id:04x}")
        assert (found["compute_mode"], found["memory_mode"], found["drift"]) == (None, None, [])
        assert found["memory_bytes"] == 34342961152
    assert inventory(root, "table").stdout.splitlines()[1].split()[:4] == ["gpu0", "0000:05:00.0", model, "-"]


def test_a_gpu_that_no_table_knows_is_shown_by_its_device_id(tmp_path: Path) -> None:
    radeon = gpu(3, device_id=0x744C, gfx_target_version=110000, num_xcc=None)
    root = write(tmp_path, below("topology", {**node(0, CPU), **node(1, radeon)}))
    header, row = inventory(root, "wide").stdout.splitlines()[:2]
    assert header.split()[2:4] == ["MODEL", "DEVICE-ID"]
    assert row.split()[:4] == ["gpu0", "0000:03:00.0", "-", "0x744c"]


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_node_without_gpus_is_said_in_one_sentence(tmp_path: Path, fmt: str) -> None:
    root = write(tmp_path, below("topology", node(0, CPU, gpu_id=0)))
    result = inventory(root, fmt)
    assert result.returncode == 0
    if fmt == "json":
        assert json.loads(result.stdout)["gpus"] == []
    assert f"{root} shows no GPU" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("fmt", FORMATS)
def test_warnings_are_in_json_and_else_on_stderr(tmp_path: Path, fmt: str) -> None:
    files = {**node(0, CPU, gpu_id=0), **node(1, gpu(5)), "nodes/2/properties": "\0garbage\n"}
    result = inventory(write(tmp_path, below("topology", files)), fmt)
    assert result.returncode == 0
    told = " ".join(json.loads(result.stdout)["warnings"]) if fmt == "json" else result.stderr
    assert "KFD nodes 2 have no readable properties" in told
    assert (result.stderr == "") == (fmt == "json")
