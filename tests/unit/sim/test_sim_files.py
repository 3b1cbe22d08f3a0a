"""Which files there are, with which mode bits and contents, per driver profile."""

from __future__ import annotations

import errno
import time

import pytest
from machines import TOPOLOGY, Machine, code, machine

from aimd.sim.node import SimulatedNode
from aimd.sim.state import new_state
from aimd.sim.tree import Directory, File, Link

GPU = "bus/pci/drivers/amdgpu/0000:05:00.0"


def paths(m: Machine, path: str = "") -> list[str]:
    found = []
    for name in m.node.listdir(path):
        below = f"{path}/{name}".lstrip("/")
        entry = m.node.entry(below)
        found += paths(m, below) if isinstance(entry, Directory) else [below]
    return found


@pytest.mark.parametrize(("model", "count"), [("mi300x", 1), ("mi300a", 2), ("mi308x", 2), ("mi350x", 1)])
@pytest.mark.parametrize("profile", ["6.8", "6.12", "7.2"])
def test_every_file_can_be_read_and_every_link_leads_somewhere(model: str, count: int, profile: str) -> None:
    m = Machine(new_state(model, count, profile))
    assert m.switch("CPX") == 0
    m.join(77)
    for path in paths(m):
        entry = m.node.entry(path)
        if isinstance(entry, Link):
            assert m.node.listdir(path) is not None, path
        else:
            binary = path.endswith("_metrics")
            assert m.node.read(path).endswith(b"\n") or binary, path


@pytest.mark.parametrize(
    "path",
    [
        GPU,
        "bus/pci/devices/0000:05:00.0",
        "module/amdgpu/drivers/pci:amdgpu/0000:05:00.0",
        "class/drm/card1/device",
        "class/drm/renderD128/device",
        "devices/pci0000:05/0000:05:00.0",
        "devices/pci0000:05/0000:05:00.0/driver/0000:05:00.0",
    ],
)
def test_ways_to_the_pci_device(path: str) -> None:
    m = machine()
    assert m.node.read(f"{path}/current_compute_partition") == b"SPX\n"
    assert m.node.read(f"{path}/device") == b"0x74a1\n"


@pytest.mark.parametrize(
    ("profile", "name"), [("6.8", "amdgpu_xcp.0"), ("6.12", "amdgpu_xcp_0"), ("7.2", "amdgpu_xcp_0")]
)
def test_xcp_device_has_no_attributes_of_the_gpu(profile: str, name: str) -> None:
    m = machine(profile=profile)
    assert f"/{name}/" in m.node.readlink("class/drm/renderD129")
    names = m.node.listdir("class/drm/renderD129/device")
    own = ["xcp"] if profile == "7.2" else []
    assert names == ["driver_override", "drm", "modalias", "subsystem", "uevent", *own]
    assert len(m.node.listdir("devices/platform")) == 14


def test_drm_nodes_do_not_change_with_the_mode() -> None:
    m = machine()
    before = m.node.listdir("class/drm")
    assert len(before) == 32
    m.switch("CPX")
    assert m.node.listdir("class/drm") == before


FILES = {
    # name: mode bits by profile, None = absent
    "current_compute_partition": {"6.12": 0o644, "7.2": 0o644},
    "available_compute_partition": {"6.12": 0o444, "7.2": 0o444},
    "current_memory_partition": {"6.12": 0o444, "7.2": 0o644},
    "available_memory_partition": {"6.12": None, "7.2": 0o444},
    "compute_partition_mem_alloc_mode": {"6.12": None, "7.2": 0o644},
    "compute_partition_config/xcp_config": {"6.12": None, "7.2": 0o644},
    "compute_partition_config/supported_xcp_configs": {"6.12": None, "7.2": 0o444},
    "compute_partition_config/supported_nps_configs": {"6.12": None, "7.2": 0o444},
    "compute_partition_config/xcc/num_inst": {"6.12": None, "7.2": 0o400},
    "enforce_isolation": {"6.12": 0o644, "7.2": 0o644},
}


@pytest.mark.parametrize("profile", ["6.12", "7.2"])
@pytest.mark.parametrize("name", FILES)
def test_mode_bits(name: str, profile: str) -> None:
    m = machine(profile=profile)
    expected = FILES[name][profile]
    if expected is None:
        assert code(lambda: m.read(name)) == errno.ENOENT
    else:
        entry = m.node.entry(m.file(name))
        assert isinstance(entry, File)
        assert oct(entry.mode) == oct(expected)
        assert m.node.writable(m.file(name)) == bool(expected & 0o222)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("SPX", {"xcc": (8, 1), "dma": (16, 1), "dec": (4, 1), "jpeg": (32, 1)}),
        ("DPX", {"xcc": (4, 1), "dma": (8, 1), "dec": (2, 1), "jpeg": (16, 1)}),
        ("CPX", {"xcc": (1, 1), "dma": (2, 1), "dec": (1, 2), "jpeg": (8, 2)}),
    ],
)
def test_what_if_configuration(mode: str, expected: dict[str, tuple[int, int]]) -> None:
    m = machine()
    folder = "compute_partition_config"
    assert m.write(f"{folder}/xcp_config", mode) == 0
    read = {
        name: tuple(int(m.read(f"{folder}/{name}/{kind}")) for kind in ("num_inst", "num_shared")) for name in expected
    }
    assert read == expected
    assert m.read("current_compute_partition") == "SPX\n"
    nps = {"SPX": "NPS1\n", "DPX": "NPS1, NPS2\n", "CPX": "NPS1, NPS4\n"}
    assert m.read(f"{folder}/supported_nps_configs") == nps[mode]


def test_mi308x_as_captured() -> None:
    m = machine("mi308x")
    assert m.read("available_compute_partition") == "SPX, DPX, CPX\n"
    assert m.read("available_memory_partition") == "NPS1, NPS4\n"
    folder = "compute_partition_config"
    assert m.read(f"{folder}/supported_nps_configs") == "NPS1\n"
    inst = [m.read(f"{folder}/{name}/num_inst") for name in ("xcc", "dma", "dec", "jpeg")]
    assert inst == ["4\n", "8\n", "4\n", "32\n"]


def test_apu_has_one_cpu_node_per_socket_and_no_memory_modes() -> None:
    m = machine("mi300a", 4)
    assert m.node.listdir(f"{TOPOLOGY}/nodes") == [str(n) for n in range(8)]
    assert m.read("available_compute_partition") == "SPX, TPX, CPX\n"
    assert code(lambda: m.read("available_memory_partition")) == errno.ENOENT
    assert code(lambda: m.read("compute_partition_config/supported_nps_configs")) == errno.ENOENT
    assert [m.read("numa_node", gpu) for gpu in range(4)] == ["0\n", "1\n", "2\n", "3\n"]


def test_harvested_gpu_offers_nothing() -> None:
    m = machine()
    m.state.gpus[0].xcc_count = 7
    m.reload()
    assert m.read("available_compute_partition") == "Not supported\n"
    assert m.properties(m.nodes_of(0)[0])["num_xcc"] == 7


def test_virtual_function_of_a_newer_driver() -> None:
    state = new_state("mi300x", 1)
    state.gpus[0].vf = True
    m = Machine(state)
    assert not m.node.writable(m.file("current_compute_partition"))
    assert code(lambda: m.read("available_compute_partition")) == errno.ENOENT
    assert code(lambda: m.read("available_memory_partition")) == errno.ENOENT
    assert not m.node.writable(m.file("current_memory_partition"))


def test_used_memory_counts_the_clients_of_the_gpu() -> None:
    m = machine()
    idle = int(m.read("mem_info_vram_used"))
    m.join(5)
    (own,) = (int(m.topology(f"nodes/{n}/gpu_id")) for n in m.nodes_of(0))
    m.state.clients[0].vram[own] = 3 << 30
    assert int(m.read("mem_info_vram_used")) == idle + (3 << 30)
    assert int(m.read("mem_info_vram_used", 1)) == idle
    assert m.node.read(f"class/kfd/kfd/proc/5/vram_{own}") == f"{3 << 30}\n".encode()


def test_isolation_has_a_number_per_partition() -> None:
    m = machine()
    assert m.read("enforce_isolation") == "0\n"
    m.switch("DPX")
    assert m.write("enforce_isolation", "1 0") == 0
    assert m.read("enforce_isolation") == "1 0\n"


def test_new_keys_of_newer_drivers_stand_where_they_stand() -> None:
    m = machine()
    for number, after in ((0, ["num_cp_queues", "cwsr_size", "ctl_stack_size", "max_engine_clk_ccompute"]), (2, ["num_cp_queues", "cwsr_size", "ctl_stack_size", "max_engine_clk_fcompute", "local_mem_size", "fw_version", "capability", "capability2", "debug_prop"])):  # fmt: skip
        keys = list(m.properties(number))
        start = keys.index("num_cp_queues")
        assert keys[start : start + len(after)] == after


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("nowhere", errno.ENOENT),
        (f"{GPU}/nothing", errno.ENOENT),
        (f"{GPU}/vendor/deeper", errno.ENOTDIR),
        (GPU, errno.EISDIR),
        ("class/kfd/kfd/topology/nodes/99/gpu_id", errno.ENOENT),
    ],
)
def test_wrong_paths(path: str, expected: int) -> None:
    m = machine()
    assert code(lambda: m.node.read(path)) == expected


def test_listing_a_file_and_reading_no_link() -> None:
    m = machine()
    assert code(lambda: m.node.listdir(f"{GPU}/vendor")) == errno.ENOTDIR
    assert code(lambda: m.node.readlink(f"{GPU}/vendor")) == errno.EINVAL
    assert m.node.readlink("class/kfd/kfd") == "../../devices/virtual/kfd/kfd"
    assert m.node.listdir(f"{GPU}/driver/../../drivers") == ["amdgpu"]


def test_scan_of_a_full_node_is_quick() -> None:
    """About 200 reads after a change of the node list; the wanted 20 ms, and slack for a busy machine."""
    state = new_state("mi300x", 8, switch_seconds=0.0, rebuild_seconds=0.0)
    node = SimulatedNode(state)
    for address in node.gpu_addresses:
        node.write(f"bus/pci/devices/{address}/current_compute_partition", b"CPX")
    best = 1.0
    for address in node.gpu_addresses[:3]:
        node.write(f"bus/pci/devices/{address}/current_compute_partition", b"QPX")
        began = time.perf_counter()
        for number in range(2, 66 - 12):
            for name in ("properties", "gpu_id", "mem_banks/0/properties"):
                node.read(f"{TOPOLOGY}/nodes/{number}/{name}")
        best = min(best, time.perf_counter() - began)
    assert best < 0.06
