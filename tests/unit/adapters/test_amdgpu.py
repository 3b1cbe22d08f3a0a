"""The amdgpu adapter on small hand-made trees, on a sysfs that fails, and on a topology that moves while it is read."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aimd.adapters.amdgpu.driver import AmdgpuDriver
from aimd.adapters.amdgpu.layout import SysfsLayout, locate
from aimd.adapters.amdgpu.sysfs import OsSysfs
from aimd.adapters.amdgpu.topology import parse_properties, read_topology
from aimd.domain.gpu import BusyRule, Gpu, GpuState, Holder, Observed
from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.errors import DriverError, UnstableError
from aimd.ports import Sysfs
from aimd.sim.node import SimulatedNode
from tests.e2e.captures import CPU, GIB, below, device, gpu, mi308x_topology, node, properties, write
from tests.fakes.node import ADDRESSES, fast_state

TOPOLOGY = "class/kfd/kfd/topology"
FIRST = "0000:05:00.0"


def commands(pid: int) -> str | None:
    return f"command-{pid}"


def scan(root: Path, files: dict[str, str]) -> Observed:
    """What is seen of a /sys with these topology files; paths that begin otherwise stay as they are."""
    others = ("bus/", "class/", "module/")
    placed = {name if name.startswith(others) else f"{TOPOLOGY}/{name}": text for name, text in files.items()}
    return AmdgpuDriver(OsSysfs(write(root, placed)), commands).scan()


def only(observed: Observed) -> Gpu:
    (found,) = observed.gpus
    return found


# -- nodes -----------------------------------------------------------------------------------------------------


def test_a_capture_of_properties_alone(tmp_path: Path) -> None:
    """What is not there is unknown, and the mode is told by the partitions."""
    observed = scan(tmp_path, {**node(0, CPU), **node(1, gpu(5)), **node(2, gpu(5, 1))})
    found = only(observed)
    assert (found.pci_address, found.compute_mode, found.memory_mode) == (FIRST, ComputeMode.CPX, None)
    assert [(p.index, p.render_minor, p.xcc_count, p.compute_units) for p in found.partitions] == [
        (0, 128, 1, 38),
        (1, 129, 1, 38),
    ]
    assert {p.memory_bytes for p in found.partitions} == {p.kfd_gpu_id for p in found.partitions} == {None}
    assert (found.memory_bytes, found.reported_compute, found.compute_modes, found.numa_node) == (None,) * 4
    assert (observed.topology_generation, observed.warnings, observed.holders) == (None, (), ())


def test_another_capture_of_other_hardware(tmp_path: Path) -> None:
    observed = scan(tmp_path, mi308x_topology())
    assert [found.pci_address for found in observed.gpus] == ["0000:0c:00.0", "0000:a4:00.0"]
    for found in observed.gpus:
        assert found.model is not None
        assert (found.model.name, found.compute_mode) == ("MI308X", ComputeMode.CPX)
        assert [p.index for p in found.partitions] == [0, 1, 2, 3]
        assert [p.memory_bytes for p in found.partitions] == [51539607552] * 3 + [51522830336]
        assert {p.compute_units for p in found.partitions} == {20}
    assert [p.render_minor for p in observed.gpus[1].partitions] == [128, 129, 130, 131]
    assert observed.topology_generation == 12


def test_node_numbers_may_have_gaps_and_any_order(tmp_path: Path) -> None:
    observed = scan(tmp_path, {**node(0, CPU), **node(40, gpu(5, 0)), **node(7, gpu(5, 1)), **node(9, gpu(0x27))})
    assert [[p.index for p in found.partitions] for found in observed.gpus] == [[0, 1], [0]]


def test_names_that_are_no_numbers_are_passed_over(tmp_path: Path) -> None:
    files = {**node(0, CPU), **node(1, gpu(5)), "nodes/README": "x", "nodes/power/": ""}
    assert len(scan(tmp_path, files).gpus) == 1


def test_gpus_of_several_domains(tmp_path: Path) -> None:
    observed = scan(tmp_path, {**node(1, gpu(5)), **node(2, gpu(5, domain=1)), **node(3, gpu(5, domain=0x10000))})
    assert [found.pci_address for found in observed.gpus] == ["0000:05:00.0", "0001:05:00.0", "10000:05:00.0"]


def test_an_old_driver_says_neither_domain_nor_xccs(tmp_path: Path) -> None:
    found = only(scan(tmp_path, node(1, gpu(5, domain=None, num_xcc=None, hive_id=None, simd_per_cu=None))))
    assert (found.pci_address, found.hive_id, found.compute_mode) == (FIRST, None, None)
    assert (found.partitions[0].xcc_count, found.partitions[0].compute_units) == (None, None)


def test_a_node_is_a_gpu_by_its_id_or_its_simds(tmp_path: Path) -> None:
    files = {
        **node(0, CPU, gpu_id=0),
        **node(1, gpu(5), gpu_id=17),
        **node(2, gpu(0x27, simd_count=0), gpu_id=18),
        **node(3, gpu(0x47)),
    }
    assert len(scan(tmp_path, files).gpus) == 3


def test_an_apu_with_cores_and_simds_in_one_node(tmp_path: Path) -> None:
    apu = gpu(5, cpu_cores_count=24, simd_count=912, device_id=0x74A0, num_xcc=6, hive_id=None)
    found = only(scan(tmp_path, node(0, apu, gpu_id=9)))
    assert found.model is not None
    assert (found.model.name, found.compute_mode, len(found.partitions)) == ("MI300A", ComputeMode.SPX, 1)


def test_a_gpu_of_another_kind(tmp_path: Path) -> None:
    mi210 = gpu(5, device_id=0x740F, gfx_target_version=90010, simd_count=416)
    found = only(scan(tmp_path, node(1, mi210, size=64 * GIB)))
    assert found.model is not None
    assert (found.model.name, found.compute_mode, found.partitions[0].compute_units) == ("MI210", None, 104)
    assert found.partitions[0].memory_bytes == found.total_memory_bytes == 64 * GIB


def test_a_gpu_that_no_table_knows(tmp_path: Path) -> None:
    radeon = gpu(5, device_id=0x744C, gfx_target_version=110000, simd_count=192, num_xcc=None)
    found = only(scan(tmp_path, node(1, radeon, size=24 * GIB)))
    assert (found.device_id, found.model, found.compute_mode, found.total_memory_bytes) == (0x744C, None, None, None)


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff\xfe garbage\nsimd_count abc\nlocation_id -5\n", b"garbage 1\n", b"location_id 1280\n"],
    ids=["empty", "bytes", "an unknown key", "no SIMDs"],
)
def test_properties_that_say_nothing_are_told_and_make_neither_cpu_nor_gpu(tmp_path: Path, text: bytes) -> None:
    files = {**node(0, CPU), "nodes/1/properties": text, **node(2, gpu(5))}
    observed = scan(tmp_path, files)
    assert only(observed).pci_address == FIRST
    assert any("KFD nodes 1 have no readable properties" in warning for warning in observed.warnings), observed.warnings


def test_a_capture_without_the_pci_device_does_not_know_whether_the_memory_mode_can_be_written(tmp_path: Path) -> None:
    assert only(scan(tmp_path, node(1, gpu(5)))).memory_mode_writable is None


def test_members_of_a_hive(tmp_path: Path) -> None:
    observed = scan(tmp_path, {**node(1, gpu(5)), **node(2, gpu(0x27)), **node(3, gpu(0x47, hive_id=0))})
    assert observed.hive(FIRST) == (FIRST, "0000:27:00.0")
    assert observed.hive("0000:47:00.0") == ("0000:47:00.0",)


def test_memory_is_the_sum_of_the_banks(tmp_path: Path) -> None:
    files = {
        **node(1, gpu(5), size=10),
        "nodes/1/mem_banks/1/properties": "size_in_bytes 5\n",
        "nodes/1/mem_banks/2/properties": "width 8192\n",
        "nodes/1/mem_banks/3/": "",
    }
    assert only(scan(tmp_path, files)).partitions[0].memory_bytes == 15


@pytest.mark.parametrize("banks", [{"nodes/1/mem_banks/": ""}, {"nodes/1/mem_banks/0/": ""}])
def test_memory_without_a_bank_is_unknown(tmp_path: Path, banks) -> None:
    assert only(scan(tmp_path, {**node(1, gpu(5)), **banks})).partitions[0].memory_bytes is None


@pytest.mark.parametrize(
    "broken",
    [
        {"nodes/2/": ""},
        {"nodes/2/name": "ip discovery\n"},
        {"nodes/2/properties": ""},
        {"nodes/2/gpu_id": "5\n", "nodes/2/properties": ""},
        {"nodes/2/gpu_id": "5\n", "nodes/2/properties": properties(gpu(9, location_id=None))},
        {"nodes/2": "a file in place of a folder"},
        {"nodes/2/properties/": ""},
    ],
    ids=[
        "empty",
        "no properties",
        "empty properties",
        "empty properties and an id",
        "no location",
        "a file",
        "a folder as properties",
    ],
)
def test_a_node_that_cannot_be_placed_is_left_out_and_told(tmp_path: Path, broken) -> None:
    observed = scan(tmp_path, {**node(1, gpu(5)), **broken})
    assert [found.pci_address for found in observed.gpus] == [FIRST]
    assert observed.warnings == ("KFD nodes 2 have no readable properties and were left out",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"a 1\nb  2 \nc -3\n", {"a": 1, "b": 2, "c": -3}),
        (b"a 1\r\nb\n\nd e\nf 0x10\ng --5\nh 1 2\n", {"a": 1}),
        (b"a 1\n\xff\xfe 2\nb 3", {"a": 1, "\N{REPLACEMENT CHARACTER}" * 2: 2, "b": 3}),
        (b"unique_id 18446744073709551615\n", {"unique_id": 2**64 - 1}),
        (b"sibling_map 1,0,0,\n", {}),
        (b"", {}),
    ],
)
def test_properties(text: bytes, expected: dict[str, int]) -> None:
    assert parse_properties(text) == expected


# -- PCI devices -----------------------------------------------------------------------------------------------


def test_the_files_of_the_device(tmp_path: Path) -> None:
    more = {
        "device": "0x74a1\n",
        "available_compute_partition": "SPX, DPX, QPX, CPX\n",
        "available_memory_partition": "NPS1, NPS4, NPS8, NPS5\n",
        "mem_info_vram_total": "206141652992\n",
        "numa_node": "1\n",
    }
    found = only(scan(tmp_path, {**node(1, gpu(5, num_xcc=8)), **device(FIRST, "SPX", "NPS1", **more)}))
    assert (str(found.mode), found.reported_compute, found.consistent) == ("SPX/NPS1", ComputeMode.SPX, True)
    assert found.compute_modes == (ComputeMode.SPX, ComputeMode.DPX, ComputeMode.QPX, ComputeMode.CPX)
    assert found.memory_modes == (MemoryMode.NPS1, MemoryMode.NPS4, MemoryMode.NPS8)
    assert (found.memory_bytes, found.numa_node, found.memory_mode_writable) == (206141652992, 1, True)


def test_the_partitions_win_over_the_mode_file(tmp_path: Path) -> None:
    found = only(scan(tmp_path, {**node(1, gpu(5, num_xcc=8)), **device(FIRST, "CPX", "NPS1")}))
    assert (found.compute_mode, found.reported_compute, found.consistent) == (ComputeMode.SPX, ComputeMode.CPX, False)


@pytest.mark.parametrize(
    ("name", "text", "attribute", "expected"),
    [
        ("available_compute_partition", "Not supported\n", "compute_modes", ()),
        ("current_memory_partition", "UNKNOWN\n", "memory_mode", None),
        ("numa_node", "-1\n", "numa_node", None),
        ("mem_info_vram_total", "much\n", "memory_bytes", None),
        ("device", "\n", "device_id", 0x74A1),
    ],
)
def test_what_the_driver_says_when_it_does_not_know(tmp_path: Path, name, text, attribute, expected) -> None:
    files = {**node(1, gpu(5)), **device(FIRST, "CPX", "NPS1", **{name: text})}
    assert getattr(only(scan(tmp_path, files)), attribute) == expected


def test_a_read_only_mode_file(tmp_path: Path) -> None:
    files = {**node(1, gpu(5)), **device(FIRST, "CPX", "NPS1")}
    scan(tmp_path, files)
    (tmp_path / f"bus/pci/drivers/amdgpu/{FIRST}/current_memory_partition").chmod(0o444)
    found = only(AmdgpuDriver(OsSysfs(tmp_path), commands).scan())
    assert found.memory_mode_writable is False


def test_a_device_without_nodes_is_lost(tmp_path: Path) -> None:
    """The driver has it and KFD does not: a switch that failed with EIO."""
    files = {**node(0, CPU), **node(1, gpu(5)), **device("0000:27:00.0", "CPX", "NPS1", device="0x74a1")}
    observed = scan(tmp_path, files)
    assert [found.state for found in observed.gpus] == [GpuState.READY, GpuState.LOST]


def test_other_devices_are_no_gpus(tmp_path: Path) -> None:
    """Where all PCI devices are listed, and where a display adapter is the driver's too."""
    files = {
        **node(1, gpu(5)),
        "bus/pci/devices/0000:01:00.0/device": "0x2330\n",
        "bus/pci/devices/0000:02:00.0/vendor": "0x10de\n",
        "bus/pci/devices/0000:05:00.0/current_compute_partition": "CPX\n",
    }
    found = only(scan(tmp_path, files))
    assert (found.pci_address, found.reported_compute) == (FIRST, ComputeMode.CPX)


def test_names_beside_the_devices_are_passed_over(tmp_path: Path) -> None:
    names = ("bind", "new_id", "module/", "uevent")
    files = {
        **node(1, gpu(5)),
        **device(FIRST, "CPX", "NPS1"),
        **{f"bus/pci/drivers/amdgpu/{name}": "" for name in names},
    }
    assert only(scan(tmp_path, files)).reported_compute is ComputeMode.CPX


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        ((), BusyRule.NODE_WIDE),
        (("compute_partition_config",), BusyRule.UNKNOWN),
        (("compute_partition_config", "compute_partition_mem_alloc_mode"), BusyRule.PER_GPU),
    ],
)
def test_the_busy_rule_is_told_by_files(tmp_path: Path, names, rule: BusyRule) -> None:
    files = {**node(1, gpu(5)), **device(FIRST, "CPX", "NPS1", **dict.fromkeys(names, ""))}
    assert scan(tmp_path, files).busy_rule is rule


# -- processes -------------------------------------------------------------------------------------------------


def test_holders_are_known_by_the_ids_of_the_last_scan(tmp_path: Path) -> None:
    files = {**node(1, gpu(5), gpu_id=11), **node(2, gpu(5, 1), gpu_id=12), **node(3, gpu(0x27), gpu_id=13)}
    processes = {
        "class/kfd/kfd/proc/100/vram_11": "0\n",
        "class/kfd/kfd/proc/100/vram_12": "0\n",
        "class/kfd/kfd/proc/200/vram_13": "0\n",
        "class/kfd/kfd/proc/200/vram_99": "0\n",
        "class/kfd/kfd/proc/200/vram_x": "0\n",
        "class/kfd/kfd/proc/300/pasid": "0\n",
        "class/kfd/kfd/proc/self/": "",
    }
    assert scan(tmp_path, {**files, **processes}).holders == (
        Holder(100, "command-100", frozenset({FIRST})),
        Holder(200, "command-200", frozenset({"0000:27:00.0"})),
        Holder(300, "command-300", frozenset()),
    )


# -- a sysfs that fails ------------------------------------------------------------------------------------------


class FailingSysfs:
    """ports.Sysfs over another; `fails` gives the errno of a path, or 0."""

    def __init__(self, sysfs: Sysfs, fails: Callable[[str], int]) -> None:
        self._sysfs, self._fails = sysfs, fails

    def _check(self, path: str) -> None:
        if code := self._fails(path):
            raise OSError(code, os.strerror(code), path)

    def read(self, path: str) -> bytes:
        self._check(path)
        return self._sysfs.read(path)

    def write(self, path: str, data: bytes) -> None:
        self._check(path)
        self._sysfs.write(path, data)

    def listdir(self, path: str) -> list[str]:
        self._check(path)
        return self._sysfs.listdir(path)

    def readlink(self, path: str) -> str:
        return self._sysfs.readlink(path)

    def writable(self, path: str) -> bool:
        self._check(path)
        return self._sysfs.writable(path)


def failing(code: int, *parts: str) -> AmdgpuDriver:
    """A simulated node of two GPUs on which paths with one of the parts fail."""
    fails = lambda path: code if any(part in path for part in parts) else 0  # noqa: E731
    return AmdgpuDriver(FailingSysfs(SimulatedNode(fast_state()), fails), commands)


def test_nodes_that_the_device_cgroup_hides_are_counted() -> None:
    observed = failing(errno.EPERM, "nodes/3/").scan()
    assert [found.state for found in observed.gpus] == [GpuState.READY, GpuState.HIDDEN]
    (warning,) = observed.warnings
    assert warning.startswith("1 KFD nodes are hidden from this process (EPERM): its device cgroup denies their render")


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EISDIR])
def test_a_broken_node_is_not_the_end(code: int) -> None:
    observed = failing(code, "nodes/3/properties").scan()
    assert [found.state for found in observed.gpus] == [GpuState.READY, GpuState.LOST]
    assert observed.warnings == ("KFD nodes 3 have no readable properties and were left out",)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENODEV])
def test_a_mode_file_in_reset(code: int) -> None:
    observed = failing(code, f"{FIRST}/current_").scan()
    assert observed.gpus[0].in_reset is (code == errno.EPERM)
    assert (observed.gpus[0].reported_compute, observed.gpus[0].compute_mode) == (None, ComputeMode.SPX)


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EPERM, errno.EINVAL, errno.EIO, errno.EACCES, errno.EROFS])
def test_a_failed_write_keeps_its_errno(code: int) -> None:
    with pytest.raises(DriverError) as caught:
        failing(code, "current_compute").set_compute_mode(FIRST, ComputeMode.CPX)
    assert (caught.value.errno, caught.value.path.endswith(f"{FIRST}/current_compute_partition")) == (code, True)
    name = errno.errorcode[code]
    assert caught.value.message.startswith(
        f"GPU {FIRST}: writing CPX to current_compute_partition failed with {name} ("
    )


def test_a_write_to_a_gpu_that_is_gone() -> None:
    with pytest.raises(DriverError, match=r"GPU 0000:99:00\.0 is not on the bus") as caught:
        failing(0).request_memory_mode("0000:99:00.0", MemoryMode.NPS4)
    assert caught.value.errno == errno.ENODEV


def test_no_driver(tmp_path: Path) -> None:
    driver = AmdgpuDriver(OsSysfs(tmp_path), commands)
    with pytest.raises(DriverError, match="the amdgpu driver is not loaded or has no compute GPU") as caught:
        driver.scan()
    assert (caught.value.errno, caught.value.path) == (errno.ENOENT, TOPOLOGY)
    assert (driver.generation(), driver.holders()) == (None, ())


# -- a topology that moves ---------------------------------------------------------------------------------------


class Interrupted(FailingSysfs):
    """Runs `act(count)` before each access, counted from 1."""

    def __init__(self, sysfs: Sysfs, act: Callable[[int], None]) -> None:
        super().__init__(sysfs, lambda _path: 0)
        self._act = act
        self.count = 0

    def _check(self, path: str) -> None:
        self.count += 1
        self._act(self.count)


def accesses_of_a_scan() -> int:
    sysfs = Interrupted(SimulatedNode(fast_state()), lambda _count: None)
    AmdgpuDriver(sysfs, commands).scan()
    return sysfs.count


@pytest.mark.parametrize("at", range(1, accesses_of_a_scan() + 1, 3))
def test_a_switch_at_any_moment_of_a_scan(at: int) -> None:
    """The whole switch between two accesses: what is seen is the old node or the new one."""
    node = SimulatedNode(fast_state())

    def act(count: int) -> None:
        if count == at:
            node.write(f"bus/pci/devices/{ADDRESSES[0]}/current_compute_partition", b"CPX")

    observed = AmdgpuDriver(Interrupted(node, act), commands).scan()
    seen = [(str(found.mode), len(found.partitions), found.consistent) for found in observed.gpus]
    assert seen in ([("SPX/NPS1", 1, True)] * 2, [("CPX/NPS1", 8, True), ("SPX/NPS1", 1, True)])


def test_a_node_that_moves_for_ever_is_unstable() -> None:
    node = SimulatedNode(fast_state())
    modes = iter([b"CPX", b"SPX"] * 10_000)

    def act(count: int) -> None:
        if count % 4 == 0:
            node.write(f"bus/pci/devices/{ADDRESSES[0]}/current_compute_partition", next(modes))

    with pytest.raises(UnstableError, match="kept moving"):
        AmdgpuDriver(Interrupted(node, act), commands).scan()


class Holed(FailingSysfs):
    """nodes/ is empty at the given listings of it, while the generation does not move."""

    def __init__(self, sysfs: Sysfs, holes: set[int]) -> None:
        super().__init__(sysfs, lambda _path: 0)
        self._holes = holes
        self.listings = 0

    def listdir(self, path: str) -> list[str]:
        if path.endswith("topology/nodes"):
            self.listings += 1
            if self.listings in self._holes:
                return []
        return super().listdir(path)


@pytest.mark.parametrize("holes", [{1}, {2}, {1, 2}, {2, 3, 4}, set(range(1, 30))])
def test_a_hole_is_not_an_empty_node(holes: set[int]) -> None:
    sysfs = Holed(SimulatedNode(fast_state()), holes)
    assert len(read_topology(sysfs, TOPOLOGY).nodes) == 2
    assert sysfs.listings > max(holes)


class Vanishing(FailingSysfs):
    """A node's properties are gone at the first reading, though it was listed."""

    def __init__(self, sysfs: Sysfs, code: int) -> None:
        super().__init__(sysfs, self._once)
        self._code = code
        self._left = 2  # the file, then its folder

    def _once(self, path: str) -> int:
        if "nodes/2" in path and self._left:
            self._left -= 1
            return self._code
        return 0


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENODEV])
def test_a_node_that_vanishes_while_it_is_read_is_read_again(code: int) -> None:
    assert len(read_topology(Vanishing(SimulatedNode(fast_state()), code), TOPOLOGY).nodes) == 2


# -- where things lie --------------------------------------------------------------------------------------------

PLACES = {
    "/sys": "class/kfd/kfd/topology",
    "devices alone": "devices/virtual/kfd/kfd/topology",
    "a folder with sys": "sys/class/kfd/kfd/topology",
    "topology alone": "topology",
    "kfd with topology": "kfd/topology",
    "the topology itself": "",
    "one level down": "capture/topology",
    "one level down, sys": "capture/sys/class/kfd/kfd/topology",
    "one level down, the topology itself": "topo-mi300/",
}


@pytest.mark.parametrize("place", list(PLACES))
def test_where_a_capture_may_have_its_topology(tmp_path: Path, place: str) -> None:
    prefix = PLACES[place].rstrip("/")
    write(tmp_path, below(prefix, node(1, gpu(5))) if prefix else node(1, gpu(5)))
    sysfs = OsSysfs(tmp_path)
    assert only(AmdgpuDriver(sysfs, commands, locate(sysfs, "root")).scan()).pci_address == FIRST


@pytest.mark.parametrize("prefix", ["", "sys/", "capture/", "capture/sys/"])
def test_processes_and_devices_lie_beside_the_topology(tmp_path: Path, prefix: str) -> None:
    files = {
        **below(f"{prefix}class/kfd/kfd/topology", node(1, gpu(5), gpu_id=11)),
        f"{prefix}class/kfd/kfd/proc/100/vram_11": "0\n",
        **{f"{prefix}{name}": text for name, text in device(FIRST, "CPX", "NPS4").items()},
    }
    sysfs = OsSysfs(write(tmp_path, files))
    observed = AmdgpuDriver(sysfs, commands, locate(sysfs, "root")).scan()
    assert str(only(observed).mode) == "CPX/NPS4"
    assert [holder.pid for holder in observed.holders] == [100]


def test_devices_of_a_module_folder(tmp_path: Path) -> None:
    files = {
        **below("topology", node(1, gpu(5))),
        f"module/amdgpu/drivers/pci:amdgpu/{FIRST}/current_memory_partition": "NPS4\n",
    }
    sysfs = OsSysfs(write(tmp_path, files))
    assert only(AmdgpuDriver(sysfs, commands, locate(sysfs, "root")).scan()).memory_mode is MemoryMode.NPS4


def test_sys_itself_comes_first(tmp_path: Path) -> None:
    write(tmp_path, {**below("class/kfd/kfd/topology", node(1, gpu(5))), **below("topology", node(1, gpu(0x27)))})
    layout = locate(OsSysfs(tmp_path), "root")
    assert isinstance(layout, SysfsLayout)
    assert (layout.topology, layout.processes) == (TOPOLOGY, "class/kfd/kfd/proc")


@pytest.mark.parametrize(
    "files", [{}, {"topology/nodes/": ""}, {"topology/nodes": "a file"}, {"nodes/x/properties": ""}]
)
def test_no_topology_is_a_clear_error(tmp_path: Path, files) -> None:
    with pytest.raises(DriverError) as caught:
        locate(OsSysfs(write(tmp_path, files)), "root")
    assert caught.value.message.startswith("root holds no KFD topology: ")
    assert "expected /sys of a machine with the amdgpu driver or a captured part of it" in caught.value.message


def test_a_root_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match=r"nowhere cannot be read \(No such file or directory\)"):
        locate(OsSysfs(tmp_path / "nowhere"), "nowhere")


# -- files -----------------------------------------------------------------------------------------------------


def test_files_of_a_real_tree(tmp_path: Path) -> None:
    sysfs = OsSysfs(write(tmp_path, {"a/b": "x" * 200_000, "a/c": ""}))
    (tmp_path / "a/link").symlink_to("b")
    assert (len(sysfs.read("a/b")), sysfs.read("a/c")) == (200_000, b"")
    assert sysfs.listdir("a") == ["b", "c", "link"]
    assert sysfs.readlink("a/link") == "b"
    sysfs.write("a/c", b"new")
    assert sysfs.read("a/c") == b"new"
    assert sysfs.writable("a/c")
    with pytest.raises(FileNotFoundError):
        sysfs.write("a/d", b"x")
    assert not (tmp_path / "a/d").exists(), "a mode file is never created"
