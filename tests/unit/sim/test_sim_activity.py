"""What the simulated hardware shows of the work that its clients say they do."""

from __future__ import annotations

import errno

import pytest
from machines import Machine, machine

from aimd.sim.activity import SMOOTHING_SECONDS, level, set_work
from aimd.sim.state import Work, dump, restore

PID = 77
LONG = 40 * SMOOTHING_SECONDS


def compute(m: Machine, share: float, index: int = 0, pid: int = PID) -> int:
    node = [node for node in m.state.nodes if node.address == m.state.gpus[0].address][index]
    return set_work(m.state, pid, node.gpu_id, share, m.clock.now)


def percent(m: Machine) -> int:
    return int(m.read("gpu_busy_percent"))


def test_it_follows_what_a_client_says_and_ends_with_it() -> None:
    m = machine()
    m.join(PID)
    assert percent(m) == 0
    assert compute(m, 0.8) == 0
    assert percent(m) == 0, "smoothed: nothing was done yet"
    m.clock.sleep(SMOOTHING_SECONDS)
    assert percent(m) == round(80 * (1 - 0.36788))
    m.clock.sleep(LONG)
    assert percent(m) == 80
    assert compute(m, 0.0) == 0
    assert percent(m) == 80
    m.clock.sleep(LONG)
    assert percent(m) == 0
    compute(m, 1.0)
    m.clock.sleep(LONG)
    m.leave(PID)
    assert percent(m) == 0


def test_clients_add_up_to_all_there_is() -> None:
    m = machine()
    for pid in (1, 2, 3):
        m.join(pid)
        compute(m, 0.4, pid=pid)
    m.clock.sleep(LONG)
    assert percent(m) == 100


def test_a_partition_is_a_part_of_its_gpu() -> None:
    m = machine()
    m.switch("QPX")
    m.join(PID)
    compute(m, 1.0, index=3)
    m.clock.sleep(LONG)
    assert percent(m) == 25


def test_who_may_compute() -> None:
    m = machine()
    assert compute(m, 0.5) == errno.ESRCH
    m.join(PID)
    assert set_work(m.state, PID, 1, 0.5, m.clock.now) == errno.EINVAL
    m.leave(PID)
    assert compute(m, 0.5) == errno.ESRCH


def test_a_clock_that_began_anew_does_no_harm() -> None:
    assert level(Work(0.5, 0.25, 1000.0), 0.0) == pytest.approx(0.25)


def test_it_is_kept_with_the_state() -> None:
    m = machine()
    m.join(PID)
    compute(m, 0.5)
    assert restore(dump(m.state)).clients[0].work == m.state.clients[0].work


def test_files_of_partitions_are_there_while_the_mode_uses_them() -> None:
    m = machine()
    folders = [f"class/drm/renderD{minor}/device/xcp" for minor in range(128, 136)]
    assert [m.node.listdir(path) for path in folders] == [["xcp_metrics"], *[[]] * 7]
    m.switch("QPX")
    assert [m.node.listdir(path) for path in folders] == [["xcp_metrics"]] * 4 + [[]] * 4


def test_an_older_driver_has_none_of_them() -> None:
    m = machine(profile="6.12")
    with pytest.raises(FileNotFoundError):
        m.node.listdir("class/drm/renderD128/device/xcp")
