"""What a mode switch, a driver load and KFD clients do to the node, and when."""

from __future__ import annotations

import errno

import pytest
from machines import TOPOLOGY, Machine, code, machine

from aimd.domain.modes import MemoryMode
from aimd.sim.state import FaultKind, new_state

COMPUTE, MEMORY = "current_compute_partition", "current_memory_partition"


def test_switch_takes_its_time() -> None:
    m = machine(switch_seconds=0.5)
    began = m.clock.now
    assert m.switch("CPX") == 0
    assert m.clock.now - began == pytest.approx(0.5 + 8 * 2 * m.state.rebuild_seconds)


def test_reader_of_the_mode_file_waits_for_the_switch_and_others_do_not() -> None:
    m = machine(switch_seconds=0.5)
    began = m.clock.now
    seen: list[tuple[str, float]] = []
    for name in (MEMORY, COMPUTE):
        m.during(0.1, lambda name=name: seen.append((m.read(name), m.clock.now - began)))
    assert m.switch("CPX") == 0
    assert seen[0] == ("NPS1\n", pytest.approx(0.1))
    assert seen[1][0] == "CPX\n"
    assert seen[1][1] >= 0.5


def test_slow_write_is_slower() -> None:
    m = machine(switch_seconds=0.5)
    m.fault(FaultKind.SLOW_WRITE, seconds=3.0)
    began = m.clock.now
    assert m.switch("CPX") == 0
    assert m.clock.now - began >= 3.5
    began = m.clock.now
    assert m.switch("SPX") == 0
    assert m.clock.now - began < 1


def test_second_writer_of_a_gpu_waits_for_the_first() -> None:
    m = machine()
    results: list[int] = []
    m.during(0.1, lambda: results.append(m.switch("CPX")))
    assert m.switch("DPX") == 0
    assert results == [0]
    assert len(m.nodes_of(0)) == 8


def test_newer_drivers_switch_two_gpus_at_a_time() -> None:
    m = machine()
    m.during(0.1, lambda: m.switch("QPX", 1))
    assert m.switch("CPX", 0) == 0
    assert (len(m.nodes_of(0)), len(m.nodes_of(1))) == (8, 4)
    minors = [m.properties(n)["drm_render_minor"] for n in m.numbers()]
    assert minors == [128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139]


def test_spx_to_cpx_moves_the_generation_by_nine_and_renumbers_the_others() -> None:
    m = machine(count=4)
    before = m.generation()
    assert [m.properties(n)["location_id"] >> 8 for n in m.numbers()] == [0x05, 0x27, 0x47, 0x65]
    assert m.switch("CPX", 1) == 0
    assert m.generation() == before + 9
    buses = [m.properties(n)["location_id"] >> 8 for n in m.numbers()]
    assert buses == [0x05, 0x47, 0x65] + [0x27] * 8
    assert [m.properties(n)["location_id"] & 7 for n in m.numbers()[3:]] == list(range(8))


def test_nodes_vanish_at_once_and_come_back_at_the_end() -> None:
    m = machine(switch_seconds=0.5)
    seen: list[int] = []
    m.during(0.25, lambda: seen.append(len(m.nodes_of(0))))
    m.switch("CPX")
    assert seen == [0]
    assert len(m.nodes_of(0)) == 8


def test_tree_is_empty_while_it_is_rebuilt_and_generation_tells_only_after_an_addition() -> None:
    m = machine(switch_seconds=0.5)
    m.fault(FaultKind.REBUILD_WINDOW, None, seconds=0.1)
    seen: list[tuple[int, int]] = []
    before = m.generation()
    for seconds in (0.05, 0.2, 0.65, 0.75, 0.85):
        m.during(seconds, lambda: seen.append((len(m.node.listdir(f"{TOPOLOGY}/nodes")), m.generation() - before)))
    assert m.switch("DPX") == 0
    assert seen == [(0, 1), (3, 1), (0, 1), (4, 2), (0, 2)]
    m.pass_time(1)
    assert len(m.numbers()) == 3


def test_partitions_have_the_memory_and_dies_of_their_mode() -> None:
    m = machine()
    for mode, count in (("DPX", 2), ("QPX", 4), ("CPX", 8), ("SPX", 1)):
        assert m.switch(mode) == 0
        nodes = [m.properties(n) for n in m.nodes_of(0)]
        assert [n["num_xcc"] for n in nodes] == [8 // count] * count
        assert [n["simd_count"] for n in nodes] == [1216 // count] * count
        assert [n["array_count"] for n in nodes] == [32 // count] * count
        assert [n["num_sdma_engines"] + n["num_sdma_xgmi_engines"] for n in nodes] == [16 // count] * count
        assert [n["num_sdma_engines"] for n in nodes] == [2] * count
        assert [n["drm_render_minor"] for n in nodes] == list(range(128, 128 + count))


def test_unique_ids_differ_by_partition_with_newer_drivers_only() -> None:
    for profile, distinct in (("6.12", 1), ("7.2", 8)):
        m = machine(profile=profile)
        whole = m.state.gpus[0].unique_id
        assert m.properties(m.nodes_of(0)[0])["unique_id"] == whole
        m.switch("CPX")
        found = {m.properties(n)["unique_id"] for n in m.nodes_of(0)}
        assert len(found) == distinct
        assert (whole in found) == (distinct == 1)
        assert m.read("unique_id") == f"{whole:016x}\n"


def test_last_partition_has_no_node_when_minors_are_exhausted() -> None:
    m = machine(count=8)
    m.fault(FaultKind.MINORS_EXHAUSTED, None)
    assert m.reload() == 0
    for gpu in range(8):
        assert m.switch("CPX", gpu) == 0
    assert len(m.numbers()) == 63
    assert len(m.nodes_of(7)) == 7
    assert "renderD191" not in m.node.listdir("class/drm")


# -- clients ---------------------------------------------------------------------------------------------------


def test_client_is_listed_until_the_driver_has_released_it() -> None:
    m = machine(reap_seconds=0.5)
    assert m.join(4711) == 0
    folder = "class/kfd/kfd/proc/4711"
    ids = [m.topology(f"nodes/{n}/gpu_id").strip() for n in m.numbers()]
    assert {f"vram_{i}" for i in ids} <= set(m.node.listdir(folder))
    assert m.node.read(f"{folder}/vram_{ids[0]}") == b"0\n"
    m.leave(4711)
    assert m.switch("CPX") == errno.EBUSY  # process_wq_release has not run
    assert m.node.listdir("class/kfd/kfd/proc") == ["4711"]
    m.pass_time(0.6)
    assert m.node.listdir("class/kfd/kfd/proc") == []
    assert m.switch("CPX") == 0


def test_client_of_one_gpu_is_listed_for_this_gpu_alone() -> None:
    m = machine()
    assert m.join(4711, 1) == 0
    names = m.node.listdir("class/kfd/kfd/proc/4711")
    (own,) = (m.topology(f"nodes/{n}/gpu_id").strip() for n in m.nodes_of(1))
    assert [name for name in names if name.startswith("vram_")] == [f"vram_{own}"]
    assert (m.switch("CPX", 0), m.switch("CPX", 1)) == (0, errno.EBUSY)


def test_reset_delays_the_release_of_clients() -> None:
    m = machine(reap_seconds=0.1)
    m.join(4711)
    m.leave(4711)
    m.fault(FaultKind.RESET, seconds=2.0)
    m.pass_time(1.0)
    assert m.node.clients() == []
    assert m.node.listdir("class/kfd/kfd/proc") == ["4711"]
    m.pass_time(1.1)
    assert m.node.listdir("class/kfd/kfd/proc") == []


def test_opening_twice_is_one_client() -> None:
    m = machine()
    assert (m.join(4711), m.join(4711)) == (0, 0)
    assert m.node.clients() == [(4711, 1)]


def test_reset_keeps_the_mode_and_is_told_where_the_driver_tells_it() -> None:
    for profile, told in (("6.12", []), ("7.2", [("gpu_reset", "0000:05:00.0")])):
        m = machine(profile=profile)
        heard: list[tuple[str, str | None]] = []
        m.node.listen(lambda kind, address, heard=heard: heard.append((kind, address)))
        m.switch("CPX")
        m.fault(FaultKind.RESET, seconds=1.0)
        m.pass_time(1.5)
        assert m.read(COMPUTE) == "CPX\n"
        assert len(m.nodes_of(0)) == 8
        assert heard == told


def test_reset_waits_for_the_end_of_a_switch() -> None:
    m = machine()
    m.during(0.1, lambda: m.fault(FaultKind.RESET, seconds=0.05))
    assert m.switch("CPX") == 0
    assert code(lambda: m.read(COMPUTE)) == errno.EPERM
    m.pass_time(0.1)
    assert m.read(COMPUTE) == "CPX\n"


# -- memory mode -----------------------------------------------------------------------------------------------


def test_memory_mode_is_pending_for_the_hive_until_the_driver_is_loaded() -> None:
    m = machine()
    assert m.write(MEMORY, "NPS4") == 0
    assert [m.read(MEMORY, gpu) for gpu in (0, 1)] == ["NPS1\n", "NPS1\n"]
    assert m.write(MEMORY, "NPS1") == 0  # skipped before the store: does not cancel
    assert m.reload() == 0
    assert [m.read(MEMORY, gpu) for gpu in (0, 1)] == ["NPS4\n", "NPS4\n"]
    assert [m.read(COMPUTE, gpu) for gpu in (0, 1)] == ["CPX\n", "CPX\n"]
    assert m.sizes() == [25769803776] * 6 + [25761415168] * 2
    assert m.read("available_compute_partition") == "QPX, CPX\n"
    assert m.reload() == 0
    assert m.read(MEMORY) == "NPS4\n"


def test_last_memory_request_counts() -> None:
    m = machine()
    m.write(MEMORY, "NPS4")
    m.write(MEMORY, "NPS2", 1)
    m.reload()
    assert [m.read(MEMORY, gpu) for gpu in (0, 1)] == ["NPS2\n", "NPS2\n"]
    assert m.read(COMPUTE) == "DPX\n"
    assert m.sizes() == [103079215104, 103062437888]


def test_gpus_without_a_hive_are_asked_one_by_one() -> None:
    m = machine()
    for gpu in m.state.gpus:
        gpu.hive_id = 0
    m.write(MEMORY, "NPS4")
    m.reload()
    assert [m.read(MEMORY, gpu) for gpu in (0, 1)] == ["NPS4\n", "NPS1\n"]


def test_one_refusal_rolls_back_the_hive_and_forgets_the_request() -> None:
    m = machine()
    m.write(MEMORY, "NPS4")
    m.fault(FaultKind.MEMORY_REFUSAL, 1)
    assert m.reload() == 0
    assert [m.read(MEMORY, gpu) for gpu in (0, 1)] == ["NPS1\n", "NPS1\n"]
    assert m.reload() == 0
    assert m.read(MEMORY) == "NPS1\n"


def test_driver_load_resets_the_compute_mode_and_is_told() -> None:
    m = machine()
    heard: list[str] = []
    m.node.listen(lambda kind, _address: heard.append(kind))
    m.switch("CPX")
    m.write("compute_partition_mem_alloc_mode", "ALL")
    assert m.reload() == 0
    assert m.read(COMPUTE) == "SPX\n"
    assert m.read("compute_partition_mem_alloc_mode") == "CAPPING\n"
    assert m.generation() == 3
    assert heard == ["driver_unloaded", "gpu_added", "gpu_added", "driver_reloaded"]


def test_switch_resets_the_allocation_mode() -> None:
    m = machine()
    m.write("compute_partition_mem_alloc_mode", "ALL")
    assert m.read("compute_partition_mem_alloc_mode") == "ALL\n"
    m.switch("CPX")
    assert m.read("compute_partition_mem_alloc_mode") == "CAPPING\n"


def test_driver_load_waits_for_nobody() -> None:
    m = machine()
    results: list[int] = []
    m.during(0.1, lambda: results.append(m.reload()))
    m.switch("CPX")
    assert results == [errno.EBUSY]


def test_reboot_is_a_clean_start() -> None:
    m = machine(count=1)
    boot = m.node.boot_id
    m.join(1)
    m.fault(FaultKind.DEVICE_LOST)
    m.fault(FaultKind.BUSY, None)
    m.node.act(lambda driver, now: driver.reboot(now))
    assert m.node.boot_id != boot
    assert m.node.clients() == []
    assert m.switch("CPX") == 0


def test_lost_device_takes_its_files_and_nodes_along() -> None:
    m = Machine(new_state("mi300x", 2))
    m.switch("CPX", 1)
    before = m.generation()
    m.fault(FaultKind.DEVICE_LOST, 0)
    m.fault(FaultKind.DEVICE_LOST, 0)
    m.pass_time(0.01)
    assert m.generation() == before + 1
    assert {m.properties(n)["location_id"] >> 8 for n in m.numbers()} == {0x27}
    assert m.node.listdir("bus/pci/devices") == ["0000:27:00.0"]
    assert "renderD128" not in m.node.listdir("class/drm")
    assert "renderD136" in m.node.listdir("class/drm")
    assert m.node.readlink("class/drm/renderD137").endswith("platform/amdgpu_xcp_7/drm/renderD137")
    assert m.reload() == 0
    assert [m.properties(n)["drm_render_minor"] for n in m.nodes_of(1)] == [128]  # minors are given anew


def test_memory_mode_of_the_firmware_is_shown_read_only_by_older_drivers() -> None:
    m = machine(profile="6.12")
    m.state.gpus[0].memory = MemoryMode.NPS4
    assert m.read(MEMORY) == "NPS4\n"
    assert not m.node.writable(m.file(MEMORY))
    assert m.read("available_compute_partition") == "SPX, DPX, QPX, CPX\n"
