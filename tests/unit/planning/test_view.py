"""What people are shown: drift, layouts, pending memory modes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aimd.domain.gpu import Gpu, GpuState
from aimd.domain.ledger import GpuRecord
from aimd.domain.modes import MemoryMode
from aimd.domain.switch import ModeChange, Switch
from aimd.domain.switch import SwitchState as S
from aimd.planning.view import drift, gpu_statuses, pending_memory, satisfied, wished_by_layout
from tests.unit.planning.paper import ADDRESSES, compute_step, gpu, memory_step, mode

HIDDEN = "the device cgroup hides the GPU's partitions from aimd"
GONE = "the GPU has left the bus, or the driver does not have it"
LOST = "the driver has the GPU, but KFD shows no partition of it"


@pytest.mark.parametrize(
    ("made", "wish", "sentences"),
    [
        (gpu(0), None, ()),
        (gpu(0), "SPX/NPS1", ()),
        (gpu(0), "NPS1", ()),
        (gpu(0), "CPX", ("wished CPX/NPS1, is SPX/NPS1",)),
        (gpu(0), "NPS4", ("wished SPX/NPS4, is SPX/NPS1",)),
        (gpu(0, "SPX/NPS1", file="CPX"), None, ("the mode file says CPX, the partitions are those of SPX",)),
        (gpu(0, "CPX/NPS1", partitions=7), None, ("1 of 8 partitions are missing",)),
        (gpu(0, partitions=0), None, (LOST,)),
        (replace(gpu(0, partitions=0), absence=GpuState.HIDDEN), None, (HIDDEN,)),
        (replace(gpu(0, partitions=0), absence=GpuState.GONE), None, (GONE,)),
        (
            gpu(0, "CPX/NPS1", file="SPX", partitions=6),
            "DPX",
            (
                "the mode file says SPX, the partitions are those of CPX",
                "2 of 8 partitions are missing",
                "wished DPX/NPS1, is CPX/NPS1",
            ),
        ),
        (Gpu("0000:05:00.0", None, gpu(0).partitions), None, ()),  # a capture: what cannot be read is no drift
    ],
)
def test_drift_is_a_sentence_for_each_difference(made, wish, sentences):
    assert drift(made, mode(wish) if wish else None) == sentences


def test_a_wish_is_met_by_what_it_names():
    now = gpu(0, "CPX/NPS4")
    assert satisfied(now, mode("CPX"))
    assert satisfied(now, mode("NPS4"))
    assert satisfied(now, mode("CPX/NPS4"))
    assert not satisfied(now, mode("CPX/NPS1"))
    assert not satisfied(now, mode("QPX/NPS4"))


def test_the_most_exact_key_of_a_layout_wins():
    layout = {
        "default": mode("SPX"),
        "gpu1": mode("DPX"),
        ADDRESSES[2]: mode("CPX"),
        "gpu9": mode("QPX"),
    }
    found = wished_by_layout(layout, [gpu(number) for number in range(4)])
    assert [str(found[ADDRESSES[number]].compute) for number in range(4)] == ["SPX", "DPX", "CPX", "SPX"]
    assert len(found) == 4


def test_a_layout_without_default_wishes_nothing_for_others():
    assert wished_by_layout({"gpu1": mode("CPX")}, [gpu(0), gpu(1)]) == {ADDRESSES[1]: mode("CPX")}
    assert wished_by_layout({}, [gpu(0)]) == {}


def change(*switches: Switch) -> ModeChange:
    return ModeChange("c", "client", (), switches, "boot", 0.0, 30.0)


@pytest.mark.parametrize("state", S)
def test_a_memory_mode_is_pending_from_its_write_until_its_end(state):
    switch = Switch(memory_step(), state)
    pending = pending_memory([change(switch, Switch(compute_step()))])
    ended_or_not_begun = {S.PLANNED, S.COMMITTED, S.FAILED, S.NEEDS_OPERATOR}
    expected = {} if state in ended_or_not_begun else dict.fromkeys(ADDRESSES[:2], MemoryMode.NPS4)
    assert pending == expected


def test_compute_switches_leave_nothing_pending():
    assert pending_memory([change(Switch(compute_step(), S.SWITCHING))]) == {}


def test_a_status_for_each_gpu_in_the_order_of_the_node():
    active = change(Switch(compute_step("SPX/NPS1", "CPX/NPS1", 1), S.WAITING))
    records = {ADDRESSES[0]: GpuRecord(ADDRESSES[0], 5, mode("SPX/NPS1"), mode("CPX"))}
    statuses = gpu_statuses([gpu(0), gpu(1)], records, {ADDRESSES[1]: MemoryMode.NPS4}, active)
    assert [status.name for status in statuses] == ["gpu0", "gpu1"]
    assert [status.mode_epoch for status in statuses] == [5, 0]
    assert [status.wish for status in statuses] == [mode("CPX"), None]
    assert [status.pending_memory for status in statuses] == [None, MemoryMode.NPS4]
    assert [status.change for status in statuses] == [None, "c"]
    assert statuses[0].drift == ("wished CPX/NPS1, is SPX/NPS1",)


def test_a_status_does_not_change_under_its_reader():
    (status,) = gpu_statuses([gpu(0)], {}, {}, None)
    assert replace(status, mode_epoch=1) != status
    with pytest.raises(AttributeError):
        status.mode_epoch = 1
