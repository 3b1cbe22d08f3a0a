"""The state of a whole change, and finding GPUs in a snapshot."""

from __future__ import annotations

import pytest

from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.domain.switch import ModeChange, Switch
from aimd.domain.switch import SwitchState as S
from aimd.errors import NotFoundError
from tests.unit.planning.paper import ADDRESSES, compute_step, gpu


def change(*states: S) -> ModeChange:
    return ModeChange("c", "client", (), tuple(Switch(compute_step(), state) for state in states), "boot", 0.0, 30.0)


@pytest.mark.parametrize(
    ("states", "state", "current"),
    [
        ((), S.COMMITTED, None),
        ((S.COMMITTED, S.COMMITTED), S.COMMITTED, None),
        ((S.COMMITTED, S.VERIFYING, S.PLANNED), S.VERIFYING, 1),
        ((S.PLANNED, S.PLANNED), S.PLANNED, 0),
        ((S.COMMITTED, S.FAILED), S.FAILED, None),
        ((S.FAILED, S.NEEDS_OPERATOR, S.FAILED), S.NEEDS_OPERATOR, None),
        ((S.AWAITING_RELOAD, S.PLANNED), S.AWAITING_RELOAD, 0),
    ],
)
def test_the_state_of_a_change_is_that_of_its_current_or_its_worst_switch(states, state, current):
    made = change(*states)
    assert (made.state, made.current) == (state, current)


def test_replacing_a_switch_leaves_the_others():
    made = change(S.PLANNED, S.PLANNED, S.PLANNED)
    after = made.with_switch(1, Switch(compute_step(), S.FAILED))
    assert [switch.state for switch in after.switches] == [S.PLANNED, S.FAILED, S.PLANNED]
    assert [switch.state for switch in made.switches] == [S.PLANNED] * 3


SNAPSHOT = NodeSnapshot(gpus=(GpuStatus(0, gpu(0)), GpuStatus(1, gpu(1))), changes=(change(S.PLANNED),))


@pytest.mark.parametrize("selector", ["gpu1", "GPU1", "1", " gpu1 ", ADDRESSES[1], ADDRESSES[1].upper()])
def test_a_gpu_by_name_number_or_address(selector):
    assert SNAPSHOT.find(selector).index == 1


@pytest.mark.parametrize("selector", ["gpu2", "", "gpu", "01", "05:00.0", ADDRESSES[2]])
def test_a_gpu_that_is_not_there_is_answered_with_those_that_are(selector):
    with pytest.raises(NotFoundError) as failure:
        SNAPSHOT.find(selector)
    assert failure.value.code == "unknown_gpu"
    assert failure.value.hint == f"GPUs of this node: gpu0 ({ADDRESSES[0]}), gpu1 ({ADDRESSES[1]})"


def test_a_change_by_name():
    assert SNAPSHOT.change("c") is SNAPSHOT.changes[0]
    assert SNAPSHOT.change("d") is None
