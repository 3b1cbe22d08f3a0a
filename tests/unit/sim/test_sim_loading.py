"""The simulated driver's load: nothing of it while it is unloaded, then one GPU after the other."""

from __future__ import annotations

import errno
import json

import pytest

from aimd.sim.state import FaultKind
from aimd.sim.summary import summarize, summarize_faults
from tests.unit.sim.machines import TOPOLOGY, Machine, code, machine

DRIVER = "bus/pci/drivers/amdgpu"
CLASS = "class/kfd"


def listed(m: Machine, path: str) -> list[str] | None:
    """Names in the folder, None if it is not there."""
    try:
        return m.node.listdir(path)
    except FileNotFoundError:
        return None


def bound(m: Machine) -> list[str] | None:
    names = listed(m, DRIVER)
    return None if names is None else [name for name in names if name != "module"]


def begin(m: Machine) -> None:
    assert m.reload() == 0


def state(m: Machine) -> dict[str, object]:
    found: dict[str, object] = json.loads(m.node.state_json())
    return found


def test_an_unloaded_driver_leaves_nothing_but_the_pci_devices() -> None:
    m = machine(load_seconds=1.0)
    begin(m)
    for path in (CLASS, f"{CLASS}/kfd/topology", "devices/virtual/kfd", DRIVER, "module/amdgpu"):
        assert listed(m, path) is None, path
    assert listed(m, "class/drm") == listed(m, "devices/platform") == []
    device = f"bus/pci/devices/{m.state.gpus[0].address}"
    names = m.node.listdir(device)
    assert {"vendor", "device", "uevent", "numa_node"} <= set(names)
    assert not [n for n in names if "partition" in n or n in ("driver", "drm", "unique_id") or n.startswith("mem_info")]
    assert "DRIVER=" not in m.node.read(f"{device}/uevent").decode()
    assert m.switch("CPX") == errno.ENOENT


def test_the_gpus_are_bound_one_after_the_other() -> None:
    m = machine(count=3, load_seconds=1.0)
    whole = bound(m)
    assert whole is not None
    begin(m)
    seen = []
    for _ in range(5):
        nodes = listed(m, f"{TOPOLOGY}/nodes")
        seen.append((bound(m), None if nodes is None else len(nodes) - m.state.sockets))
        m.pass_time(1.0)
    assert seen == [(None, None), ([], 0), (whole[:1], 1), (whole[:2], 2), (whole, 3)]
    assert m.generation() == 4


def test_the_events_come_in_the_order_of_the_kernel() -> None:
    m = machine(count=2, load_seconds=1.0)
    heard: list[tuple[str, str | None, float]] = []
    began = m.clock.now
    m.node.listen(lambda kind, address: heard.append((kind, address, m.clock.now - began)))
    assert m.node.reload() == 0
    first, second = m.node.gpu_addresses
    assert heard == [
        ("driver_unloaded", None, 0.0),
        ("gpu_added", first, 2.0),
        ("gpu_added", second, 3.0),
        ("driver_reloaded", None, 3.0),
    ]


def test_a_call_on_an_open_file_meets_enodev() -> None:
    m = machine(load_seconds=1.0)
    entry = m.node._opened(m.file("current_compute_partition"))
    begin(m)
    assert code(lambda: entry.read(m.clock.now)) == errno.ENODEV


def test_memory_modes_take_effect_and_compute_modes_start_anew() -> None:
    m = machine(count=2, load_seconds=1.0)
    m.switch("DPX", 1)
    m.write("current_memory_partition", "NPS4")
    assert m.node.reload() == 0
    assert [m.read("current_memory_partition", gpu) for gpu in (0, 1)] == ["NPS4\n", "NPS4\n"]
    assert [len(m.nodes_of(gpu)) for gpu in (0, 1)] == [8, 8]


def test_nobody_can_join_or_reload_meanwhile() -> None:
    m = machine(load_seconds=1.0)
    begin(m)
    assert m.join(4_200_000) == errno.EINVAL
    assert m.reload() == errno.EBUSY
    m.pass_time(2.0)
    assert m.reload() == errno.EBUSY


@pytest.mark.parametrize("count", [2, 8])
def test_a_load_that_hangs_goes_on_when_the_fault_is_cleared(count: int) -> None:
    m = machine(count=count, load_seconds=1.0)
    m.fault(FaultKind.LOAD_HANG, gpu=None)
    heard: list[str] = []
    m.node.listen(lambda kind, _address: heard.append(kind))
    assert m.node.reload() == errno.ETIMEDOUT
    m.pass_time(3600.0)
    assert len(bound(m) or []) == count // 2
    assert "not bound to the driver yet" in summarize(state(m))
    m.node.act(lambda driver, now: driver.clear_faults(now))
    assert len(bound(m) or []) == count
    assert heard == ["driver_unloaded", *["gpu_added"] * count, "driver_reloaded"]
    assert m.node.reload() == 0


def test_a_device_that_is_lost_during_the_load_is_passed_over() -> None:
    m = machine(count=2, load_seconds=1.0)
    begin(m)
    m.fault(FaultKind.DEVICE_LOST, 1)
    m.pass_time(10.0)
    assert bound(m) == m.node.gpu_addresses[:1]
    assert m.reload() == 0


def test_a_reboot_ends_a_load() -> None:
    m = machine(count=2, load_seconds=1.0)
    m.fault(FaultKind.LOAD_HANG, gpu=None)
    m.node.reload()
    m.node.act(lambda driver, now: driver.reboot(now))
    assert bound(m) == m.node.gpu_addresses


def test_the_summary_tells_that_no_driver_is_loaded() -> None:
    m = machine(load_seconds=1.0)
    begin(m)
    assert "driver 7.2 (not loaded)" in summarize(state(m))


# -- faults that are conditions -------------------------------------------------------------------------------------


def test_conditions_last_until_cleared_whatever_was_asked() -> None:
    m = machine()
    m.fault(FaultKind.CGROUP_DENIED, 0, remaining=1)
    m.fault(FaultKind.BUSY, 0, remaining=1)
    m.fault(FaultKind.BUSY, 1, remaining=3)
    first, second = m.node.gpu_addresses
    assert summarize_faults(state(m)).splitlines() == [
        f"fault cgroup-denied on {first}, until cleared",
        f"fault busy on {first}, once",
        f"fault busy on {second}, 3 times",
    ]


def test_a_second_condition_takes_the_place_of_the_first_on_the_same_gpus() -> None:
    m = machine()
    for gpu, seconds in ((None, 0.2), (0, 0.1), (None, 0.5)):
        m.fault(FaultKind.REBUILD_WINDOW, gpu, seconds=seconds)
    assert summarize_faults(state(m)).splitlines() == [
        f"fault rebuild-window on {m.node.gpu_addresses[0]}, until cleared, 0.1 s",
        "fault rebuild-window on all GPUs, until cleared, 0.5 s",
    ]
