"""The state of a simulated node outlives the process that simulates it."""

from __future__ import annotations

import errno
import uuid
from pathlib import Path

import msgspec
import pytest
from machines import TOPOLOGY, FakeClock, Machine, machine

from aimd.errors import ConflictError
from aimd.sim.driver import Driver
from aimd.sim.entries import Link, folder, resolve
from aimd.sim.node import SimulatedNode
from aimd.sim.spec import open_node
from aimd.sim.state import FaultKind, SimFault, dump, new_state, restore


def test_round_trip_of_a_busy_node() -> None:
    m = machine()
    m.join(4711, 1)
    m.write("current_memory_partition", "NPS4")
    m.fault(FaultKind.RESET, 1, seconds=3.0)
    m.fault(FaultKind.BUSY, 1, remaining=None)
    copies = []
    m.during(0.1, lambda: copies.append((m.node.state_json(), dump(m.state))))
    m.switch("CPX")
    kept, direct = copies[0]
    assert kept == direct
    assert dump(restore(kept)) == kept
    assert restore(kept).additions


@pytest.mark.parametrize("text", [b"", b"{", b"{}", b'{"model": 5}', b"[]"])
def test_what_is_no_state_is_refused(text: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        restore(text)


def test_restored_node_shows_what_it_showed() -> None:
    m = machine()
    m.switch("CPX")
    other = Machine(restore(m.node.state_json()))
    assert other.numbers() == m.numbers()
    for number in m.numbers():
        assert other.topology(f"nodes/{number}/properties") == m.topology(f"nodes/{number}/properties")
        assert other.topology(f"nodes/{number}/gpu_id") == m.topology(f"nodes/{number}/gpu_id")


def test_switch_in_flight_when_the_process_died_is_completed() -> None:
    m = machine(switch_seconds=5.0)
    m.fault(FaultKind.REBUILD_WINDOW, None, seconds=1.0)
    states: list[bytes] = []
    m.during(0.0, lambda: states.append(dump(m.state)))
    m.during(5.5, lambda: states.append(m.node.state_json()))
    m.switch("QPX")
    for kept in states:
        other = Machine(restore(kept))
        assert other.read("current_compute_partition") == "QPX\n"
        assert len(other.nodes_of(0)) == 4
        assert other.generation() == m.generation()
        assert other.clock.now == 100.0  # at once


def test_file_is_taken_up_by_the_next_process(tmp_path: Path) -> None:
    file = tmp_path / "sim.json"
    clock = FakeClock()
    first = SimulatedNode(new_state("mi300x", 1), file, clock, clock.sleep)
    boot = first.boot_id
    first.write("bus/pci/devices/0000:05:00.0/current_compute_partition", b"CPX")
    second = SimulatedNode.open(file, new_state("mi300x", 1))
    assert len(second.listdir(f"{TOPOLOGY}/nodes")) == 2 + 8
    assert second.boot_id == boot


@pytest.mark.parametrize("asked", [("mi325x", 1, "7.2"), ("mi300x", 2, "7.2"), ("mi300x", 1, "6.12")])
def test_a_file_of_another_machine_is_refused_and_left_alone(tmp_path: Path, asked: tuple[str, int, str]) -> None:
    file = tmp_path / "sim.json"
    SimulatedNode(new_state("mi300x", 1), file)
    kept = file.read_bytes()
    with pytest.raises(ConflictError, match=r"holds a simulated node of mi300x:1, driver 7\.2, expected ") as caught:
        open_node(new_state(*asked), file)
    assert f"remove {file} to replace it" in (caught.value.hint or "")
    assert file.read_bytes() == kept


def test_boot_ids_are_random_and_kept(tmp_path: Path) -> None:
    """Not made of path and number of boots: a new machine at an old path is another one."""
    file = tmp_path / "sim.json"
    seen = set()
    for _ in range(3):
        node = SimulatedNode(new_state("mi300x", 1), file)
        seen.add(node.boot_id)
        node.act(lambda driver, now: driver.reboot(now))
        seen.add(node.boot_id)
        assert SimulatedNode.open(file, new_state("mi300x", 1)).boot_id == node.boot_id
        file.unlink()
    assert len(seen) == 6
    assert all(uuid.UUID(boot).version == 4 for boot in seen)


@pytest.mark.parametrize(("model", "count", "profile"), [("mi200", 1, "7.2"), ("mi300x", 0, "7.2"), ("mi300x", 9, "7.2"), ("mi300x", 1, "5.0")])  # fmt: skip
def test_unknown_machines(model: str, count: int, profile: str) -> None:
    with pytest.raises(ValueError, match=r"is unknown, expected mi300a\|"):
        new_state(model, count, profile)


def test_two_gpus_of_one_gpu_id_are_told_apart() -> None:
    state = new_state("mi300x", 2)
    state.gpus[1].bus = state.gpus[0].bus
    driver = Driver(state)
    driver.load()
    assert [node.gpu_id for node in state.nodes] == [28851, 28852]


def test_counted_and_lasting_faults() -> None:
    m = machine()
    m.fault(FaultKind.BUSY, None, remaining=2)
    assert [m.switch("CPX", gpu) for gpu in (0, 1, 0)] == [errno.EBUSY, errno.EBUSY, 0]
    m.fault(FaultKind.BUSY, 0, remaining=None)
    assert [m.switch("SPX") for _ in range(3)] == [errno.EBUSY] * 3
    assert m.state.faults == [SimFault(FaultKind.BUSY, "0000:05:00.0", None)]


def test_endless_links_are_refused() -> None:
    root = folder({"a": Link("b"), "b": Link("./a")})
    with pytest.raises(OSError, match="symbolic links") as caught:
        resolve(root, "a/x", 0.0)
    assert caught.value.errno == errno.ELOOP
