"""Every failure path of the driver's files that the hardware notes list in section 1.3 and 1.4, per driver profile."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

import pytest
from machines import TOPOLOGY, Machine, code, machine, name_of

from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.sim.state import FaultKind, new_state

OLD, NEW, ALL = ("6.8", "6.12"), ("7.2",), ("6.8", "6.12", "7.2")
COMPUTE, MEMORY = "current_compute_partition", "current_memory_partition"


class Row(NamedTuple):
    """`arrange` brings the node into the condition, `act` gives the errno of one system call."""

    condition: str
    profiles: tuple[str, ...]
    expected: int
    act: Callable[[Machine], int]
    arrange: Callable[[Machine], object] = lambda _m: None
    model: str = "mi300x"


def compute(text: str, gpu: int = 0) -> Callable[[Machine], int]:
    return lambda m: m.write(COMPUTE, text, gpu)


def memory(text: str) -> Callable[[Machine], int]:
    return lambda m: m.write(MEMORY, text)


def read(name: str) -> Callable[[Machine], int]:
    return lambda m: code(lambda: m.read(name))


def fault(kind: FaultKind, gpu: int | None = 0, seconds: float = 0.0) -> Callable[[Machine], object]:
    return lambda m: m.fault(kind, gpu, seconds=seconds)


def reset(gpu: int = 0) -> Callable[[Machine], object]:
    return fault(FaultKind.RESET, gpu, 5.0)


def odd(m: Machine) -> None:
    m.state.gpus[0].xcc_count = 7
    m.node.act(lambda driver, now: driver.reload(now))


def virtual(m: Machine) -> None:
    m.state.gpus[0].vf = True
    m.node.act(lambda driver, now: driver.reload(now))


def four_ranges(m: Machine) -> None:
    """NPS4 as the firmware may have set it, after which the driver has chosen CPX."""
    for gpu in m.state.gpus:
        gpu.memory = MemoryMode.NPS4
    m.reload()


def while_switching(gpu: int, act: Callable[[Machine], int]) -> Callable[[Machine], int]:
    """Do something in the middle of a switch of a GPU."""

    def run(m: Machine) -> int:
        results: list[int] = []
        m.during(0.1, lambda: results.append(act(m)))
        assert m.switch("DPX", gpu) == 0
        return results[0]

    return run


def lost_while_waiting(act: Callable[[Machine], int]) -> Callable[[Machine], int]:
    """Somebody sleeps on the lock of a switch when the device goes away."""

    def run(m: Machine) -> int:
        m.during(0.2, lambda: m.fault(FaultKind.DEVICE_LOST))
        return while_switching(0, act)(m)

    return run


def kernel_open(pid: int, *gpus: int) -> Callable[[Machine], int]:
    return lambda m: m.join(pid, *gpus)


ROWS = [
    # open for writing (generic sysfs)
    Row("no write bit, even for root", OLD, errno.EACCES, memory("NPS4")),
    Row("no write bit: topology", ALL, errno.EACCES, lambda m: code(lambda: m.node.write(f"{TOPOLOGY}/generation_id", b"1"))),
    Row("no write bit: the list of modes", ALL, errno.EACCES, lambda m: m.write("available_compute_partition", "CPX")),
    Row("no write bit: one memory mode only", ALL, errno.EACCES, memory("NPS1"), model="mi300a"),
    Row("not root", ALL, errno.EACCES, compute("CPX"), fault(FaultKind.ACCESS_DENIED)),
    Row("not root: memory", NEW, errno.EACCES, memory("NPS4"), fault(FaultKind.ACCESS_DENIED)),
    Row("read-only /sys", ALL, errno.EROFS, compute("CPX"), fault(FaultKind.READ_ONLY)),
    Row("device gone before the call", ALL, errno.ENOENT, compute("CPX"), fault(FaultKind.DEVICE_LOST)),
    Row("device gone during the call", ALL, errno.ENODEV, lost_while_waiting(compute("CPX"))),
    Row("device gone while a reader waits", ALL, errno.ENODEV, lost_while_waiting(read(COMPUTE))),
    # current_compute_partition, in the order of the driver's checks
    Row("odd number of XCCs", ALL, errno.EINVAL, compute("SPX"), odd),
    Row("odd number of XCCs, other mode", ALL, errno.EINVAL, compute("CPX"), odd),
    Row("no mode", ALL, errno.EINVAL, compute("XPX")),
    Row("empty", ALL, errno.EINVAL, compute("\n")),
    Row("leading space", ALL, errno.EINVAL, compute(" CPX")),
    Row("any case, newline", ALL, 0, compute("cpx\n")),
    Row("prefix match", ALL, 0, compute("CPXfoo")),
    Row("DPX on 6 XCCs", ALL, errno.EINVAL, compute("DPX"), model="mi300a"),
    Row("TPX on 8 XCCs", ALL, errno.EINVAL, compute("TPX")),
    Row("QPX on 4 XCCs", ALL, errno.EINVAL, compute("QPX"), model="mi308x"),
    Row("in reset", NEW, errno.EPERM, compute("CPX"), reset()),
    Row("in reset: KFD is locked", OLD, errno.EBUSY, compute("CPX"), reset()),
    Row("in reset, but no mode: the earlier check wins", ALL, errno.EINVAL, compute("XPX"), reset()),
    Row("in reset, mode already current", NEW, errno.EPERM, compute("SPX"), reset()),
    Row("in reset, mode already current", OLD, 0, compute("SPX"), reset()),
    Row("mode already current", ALL, 0, compute("SPX")),
    Row("mode already current, with clients", ALL, 0, compute("SPX"), kernel_open(11)),
    Row("virtual function", OLD, 0, compute("CPX"), virtual),
    Row("virtual function: file is 0444", NEW, errno.EACCES, compute("CPX"), virtual),
    Row("not with this memory mode", ALL, errno.EINVAL, compute("SPX"), four_ranges),
    Row("not with this memory mode, with clients", ALL, errno.EINVAL, compute("DPX"), lambda m: (four_ranges(m), m.join(11))),
    Row("client of this GPU", ALL, errno.EBUSY, compute("CPX"), kernel_open(11, 0)),
    Row("client of another GPU", OLD, errno.EBUSY, compute("CPX"), kernel_open(11, 1)),
    Row("client of another GPU", NEW, 0, compute("CPX"), kernel_open(11, 1)),
    Row("client of all GPUs", ALL, errno.EBUSY, compute("CPX"), kernel_open(11)),
    Row("busy for another reason", ALL, errno.EBUSY, compute("CPX"), fault(FaultKind.BUSY)),
    Row("another GPU is switched", OLD, errno.EBUSY, while_switching(1, compute("CPX"))),
    Row("another GPU is switched", NEW, 0, while_switching(1, compute("CPX"))),
    Row("another GPU is in reset", OLD, errno.EBUSY, compute("CPX"), reset(1)),
    Row("another GPU is in reset", NEW, 0, compute("CPX"), reset(1)),
    Row("no mode, while this GPU is switched", ALL, errno.EINVAL, while_switching(0, compute("XPX"))),
    Row("same GPU is switched: waits, then goes on", ALL, 0, while_switching(0, compute("CPX"))),
    Row("KFD does not come back", ALL, errno.EIO, compute("CPX"), fault(FaultKind.KFD_FAILURE)),
    Row("firmware refuses: not reported", ALL, 0, compute("CPX"), fault(FaultKind.FIRMWARE_REFUSAL)),
    # reading the mode files
    Row("read in reset", NEW, errno.EPERM, read(COMPUTE), reset()),
    Row("read in reset", OLD, 0, read(COMPUTE), reset()),
    Row("read memory mode in reset", NEW, errno.EPERM, read(MEMORY), reset()),
    Row("read memory mode in reset", OLD, 0, read(MEMORY), reset()),
    Row("read while switched: waits", ALL, 0, while_switching(0, read(COMPUTE))),
    Row("busy percentage in reset", NEW, errno.EBUSY, read("gpu_busy_percent"), reset()),
    Row("busy percentage in reset", OLD, errno.EPERM, read("gpu_busy_percent"), reset()),
    # current_memory_partition: no check of clients, reset or idleness
    Row("no memory mode", NEW, errno.EINVAL, memory("NPS9")),
    Row("memory mode that the GPU does not offer", NEW, errno.EINVAL, memory("NPS8")),
    Row("memory mode already current", NEW, 0, memory("NPS1")),
    Row("other memory mode", NEW, 0, memory("nps4\n")),
    Row("other memory mode, with clients", NEW, 0, memory("NPS4"), kernel_open(11)),
    Row("other memory mode, in reset", NEW, 0, memory("NPS4"), reset()),
    Row("other memory mode, virtual function", NEW, errno.EACCES, memory("NPS4"), virtual),
    # settings beside the modes
    Row("no allocation mode", NEW, errno.EINVAL, lambda m: m.write("compute_partition_mem_alloc_mode", "SOME")),
    Row("allocation mode", NEW, 0, lambda m: m.write("compute_partition_mem_alloc_mode", "ALL\n")),
    Row("allocation mode, older driver", OLD, errno.ENOENT, lambda m: m.write("compute_partition_mem_alloc_mode", "ALL")),
    Row("what-if mode unknown", NEW, errno.EINVAL, lambda m: m.write("compute_partition_config/xcp_config", "TPX")),
    Row("what-if mode", NEW, 0, lambda m: m.write("compute_partition_config/xcp_config", "CPX")),
    Row("isolation for too many partitions", ALL, errno.EINVAL, lambda m: m.write("enforce_isolation", "1 1")),
    Row("isolation level unknown", ALL, errno.EINVAL, lambda m: m.write("enforce_isolation", "4")),
    Row("isolation", ALL, 0, lambda m: m.write("enforce_isolation", "1\n")),
    # opening /dev/kfd
    Row("kfd opened while a GPU is switched", OLD, errno.EINVAL, while_switching(1, kernel_open(12, 0))),
    Row("kfd opened while a visible GPU is switched", NEW, errno.EINVAL, while_switching(1, kernel_open(12))),
    Row("kfd opened while an invisible GPU is switched", NEW, 0, while_switching(1, kernel_open(12, 0))),
    Row("kfd opened without any GPU", ALL, errno.EINVAL, kernel_open(12, 0), fault(FaultKind.DEVICE_LOST)),
    Row("module in use", ALL, errno.EBUSY, lambda m: m.reload(), kernel_open(11)),
    # KFD topology
    Row("device cgroup", ALL, errno.EPERM, lambda m: code(lambda: m.topology("nodes/2/properties")), fault(FaultKind.CGROUP_DENIED)),
    Row("device cgroup: gpu_id", ALL, errno.EPERM, lambda m: code(lambda: m.topology("nodes/2/gpu_id")), fault(FaultKind.CGROUP_DENIED)),
    Row("device cgroup: CPU node", ALL, 0, lambda m: code(lambda: m.topology("nodes/0/properties")), fault(FaultKind.CGROUP_DENIED)),
    Row("device cgroup: other GPU", ALL, 0, lambda m: code(lambda: m.topology("nodes/3/properties")), fault(FaultKind.CGROUP_DENIED)),
    Row("tree is being rebuilt", ALL, errno.ENOENT, while_switching(1, lambda m: code(lambda: m.topology("nodes/2/gpu_id"))), fault(FaultKind.REBUILD_WINDOW, None, 0.2)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "profile"), [pytest.param(row, p, id=f"{row.condition}, {p}") for row in ROWS for p in row.profiles]
)
def test_errno(row: Row, profile: str) -> None:
    m = Machine(new_state(row.model, 2, profile))
    row.arrange(m)
    assert name_of(row.act(m)) == name_of(row.expected)


@pytest.mark.parametrize("row", [row for row in ROWS if row.expected in (errno.EINVAL, errno.EPERM, errno.EBUSY)])
def test_refused_write_changes_nothing(row: Row) -> None:
    m = Machine(new_state(row.model, 2, row.profiles[0]))
    row.arrange(m)
    before = m.state.gpus[0].mode_file, m.state.gpus[0].compute, m.state.gpus[0].requested_memory
    row.act(m)
    if "switched" not in row.condition:
        assert (m.state.gpus[0].mode_file, m.state.gpus[0].compute, m.state.gpus[0].requested_memory) == before


@pytest.mark.parametrize("profile", ALL)
def test_noop_write_keeps_the_nodes(profile: str) -> None:
    m = machine(profile=profile)
    before = m.generation()
    assert m.switch("spx") == 0
    assert m.generation() == before
    assert m.clock.now == 100.0  # it returned at once


@pytest.mark.parametrize("profile", OLD)
def test_virtual_function_of_an_old_driver_succeeds_without_effect(profile: str) -> None:
    m = machine(profile=profile)
    virtual(m)
    before = m.generation()
    assert m.switch("CPX") == 0
    assert (m.generation(), m.read(COMPUTE)) == (before, "SPX\n")


def test_firmware_refusal_shows_in_the_nodes_alone() -> None:
    m = machine()
    m.fault(FaultKind.FIRMWARE_REFUSAL)
    before = m.generation()
    assert m.switch("CPX") == 0
    assert m.read(COMPUTE) == "CPX\n"
    assert [m.properties(n)["num_xcc"] for n in m.nodes_of(0)] == [8]
    assert m.generation() == before + 2  # the node went and came again
    assert m.switch("CPX") == 0
    assert m.generation() == before + 2  # the driver believes that it is there already
    assert m.switch("SPX") == 0
    assert m.switch("CPX") == 0
    assert len(m.nodes_of(0)) == 8


def test_kfd_failure_lasts_until_a_driver_load() -> None:
    m = machine()
    m.fault(FaultKind.KFD_FAILURE)
    assert m.switch("CPX") == errno.EIO
    assert m.nodes_of(0) == []
    assert m.nodes_of(1)
    assert m.switch("SPX") == 0
    assert m.nodes_of(0) == []
    assert m.reload() == 0
    assert len(m.nodes_of(0)) == 1
    assert m.state.gpus[0].compute is ComputeMode.SPX
