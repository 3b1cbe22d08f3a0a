"""One mode change, sans I/O: what each result leads to, who is named, what is journaled, and how it ends."""

from __future__ import annotations

import errno

import pytest

from aimd.domain.gpu import BusyRule
from aimd.domain.modes import ComputeMode
from aimd.domain.plan import Reason
from aimd.domain.switch import SwitchState as S
from aimd.planning import effects as fx
from tests.unit.planning.desk import NPS_POLICY, Desk, desk
from tests.unit.planning.paper import ADDRESSES, PaperNode, holder

COMPUTE_PATH = [S.PLANNED, S.DRAINING, S.WAITING, S.SWITCHING, S.RESCANNING, S.VERIFYING]


def journaled(made: Desk) -> list[S]:
    """States in the order in which they were committed, without repetitions."""
    return [state for index, state in enumerate(made.passed) if index == 0 or made.passed[index - 1] is not state]


def writes(made: Desk) -> list[tuple[str, str]]:
    return [(effect.gpu, str(effect.mode)) for effect in made.effects if isinstance(effect, fx.WriteMode)]


def switch_of(made: Desk, index: int = 0, name: str = "c1"):
    return made.ledger.changes[name].switches[index]


def test_a_switch_that_goes_well_journals_each_state_in_turn():
    made = desk("SPX/NPS1", "SPX/NPS1")
    change = made.change((0, "CPX"))
    assert journaled(made) == [*COMPUTE_PATH, S.COMMITTED]
    assert made.node.modes() == ["CPX/NPS1", "SPX/NPS1"]
    (switch,) = change.switches
    assert (switch.reason, switch.message, switch.write_seconds) == (None, None, 0.25)
    assert switch.began == 100.0
    assert switch.ended is not None


def test_each_step_has_admission_closed_before_and_opened_after():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.change((0, "CPX"), (1, "DPX"))
    told = [e for e in made.effects if isinstance(e, (fx.Drain, fx.Undrain, fx.WriteMode))]
    assert [type(effect) for effect in told] == [fx.Drain, fx.WriteMode, fx.Undrain] * 2
    assert [effect.gpu for effect in told] == [ADDRESSES[0]] * 3 + [ADDRESSES[1]] * 3


def test_steps_are_done_one_after_the_other():
    made = desk("SPX/NPS1", "SPX/NPS1", "SPX/NPS1")
    change = made.change((2, "CPX"), (0, "QPX"))
    assert writes(made) == [(ADDRESSES[0], "QPX"), (ADDRESSES[2], "CPX")]
    assert change.state is S.COMMITTED
    assert made.node.modes() == ["QPX/NPS1", "SPX/NPS1", "CPX/NPS1"]


def test_a_mode_that_is_there_meanwhile_needs_no_write():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.submit((0, "CPX"), (1, "CPX"))
    made.run(lambda: made.ledger.changes["c1"].switches[0].state is S.SWITCHING)
    paper = made.node.gpus[ADDRESSES[1]]
    paper.file = paper.compute = ComputeMode.CPX
    made.run()
    assert made.ledger.state("c1") is S.COMMITTED
    assert writes(made) == [(ADDRESSES[0], "CPX")]


def test_holders_are_named_while_they_are_waited_for_and_no_write_is_tried():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.node.holders = [holder(4711, 0, command="python serve.py"), holder(4712, 1)]
    made.submit((0, "CPX"), wait=1.0)
    made.run(lambda: made.now > 100.5)
    (change,) = made.snapshot.changes
    assert change.state is S.WAITING
    assert change.switches[0].reason is Reason.GPU_BUSY
    assert change.switches[0].message == f"GPU {ADDRESSES[0]} is in use by pid 4711 (python serve.py)"
    made.node.holders = []
    made.run()
    assert made.ledger.state("c1") is S.COMMITTED
    assert switch_of(made).message is None, "what it waited for is past"


def test_holders_that_stay_end_the_change_at_its_deadline():
    made = desk("SPX/NPS1")
    made.node.holders = [holder(4711, 0, command=None)]
    change = made.change((0, "CPX"), wait=1.0)
    assert change.state is S.FAILED
    assert change.switches[0].reason is Reason.GPU_BUSY
    assert "pid 4711 (exited, not released yet)" in (change.switches[0].message or "")
    assert 101.0 <= made.now < 101.2
    assert writes(made) == []


def test_the_node_wide_rule_waits_for_holders_of_other_gpus_and_says_why():
    made = desk(node=PaperNode("SPX/NPS1", "SPX/NPS1", rule=BusyRule.NODE_WIDE))
    made.node.holders = [holder(4711, 1)]
    change = made.change((0, "CPX"), wait=0.5)
    assert change.state is S.FAILED
    assert "pid 4711" in (change.switches[0].message or "")
    assert "switches no GPU while any process of the node uses one" in (change.switches[0].message or "")


@pytest.mark.parametrize(
    ("code", "reason", "word"),
    [(errno.EBUSY, Reason.GPU_BUSY, "in use"), (errno.EPERM, Reason.GPU_IN_RESET, "in reset")],
)
def test_a_write_that_may_succeed_later_is_repeated_with_growing_pauses(code, reason, word):
    made = desk("SPX/NPS1")
    made.node.outcomes.extend([code, code, code])
    made.submit((0, "CPX"))
    made.run(lambda: len(writes(made)) == 3 and isinstance(made.asked[0], fx.Wake))
    waiting = made.snapshot.changes[0].switches[0]
    assert waiting.state is S.SWITCHING
    made.run()
    assert switch_of(made).attempts == 3
    assert made.ledger.state("c1") is S.COMMITTED
    pauses = [e.seconds for e in made.effects if isinstance(e, fx.Wake) and e.seconds]
    assert pauses == [0.02, 0.04, 0.08]
    made.node.outcomes.extend([code] * 100)
    change = made.change((0, "SPX"), name="c2", wait=3.0)
    assert change.state is S.FAILED
    assert change.switches[0].reason is reason
    assert word in (change.switches[0].message or "")
    assert made.node.modes() == ["CPX/NPS1"]
    made.node.outcomes.clear()


def test_busy_while_nobody_holds_this_gpu_shows_that_the_rule_is_node_wide():
    made = desk(node=PaperNode("SPX/NPS1", "SPX/NPS1", rule=BusyRule.UNKNOWN))
    made.node.holders = [holder(4711, 1, command="rocminfo")]
    made.node.outcomes.extend([errno.EBUSY] * 100)
    change = made.change((0, "CPX"), wait=0.5)
    assert change.state is S.FAILED
    assert change.switches[0].reason is Reason.GPU_BUSY
    assert "rule is node-wide, by pid 4711 (rocminfo) on other GPUs" in (change.switches[0].message or "")
    assert made.snapshot.busy_rule is BusyRule.NODE_WIDE
    (blocker,) = made.reconciler.plan(((ADDRESSES[0], change.wishes[0][1]),)).blockers
    assert (blocker.holder.pid, blocker.node_wide) == (4711, True)


def test_nothing_is_learned_of_a_rule_that_the_driver_shows():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.node.holders = [holder(4711, 1)]
    made.node.outcomes.append(errno.EBUSY)
    made.submit((0, "CPX"))
    made.run(lambda: made.ledger.state("c1") is S.RESCANNING)
    assert made.snapshot.busy_rule is BusyRule.PER_GPU
    made.run()
    assert made.ledger.state("c1") is S.COMMITTED


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        (errno.EINVAL, S.FAILED, Reason.MODE_NOT_AVAILABLE),
        (errno.EACCES, S.FAILED, Reason.NOT_PERMITTED),
        (errno.EROFS, S.FAILED, Reason.NOT_PERMITTED),
        (errno.EIO, S.NEEDS_OPERATOR, Reason.DRIVER_FAILED),
        (errno.ENODEV, S.NEEDS_OPERATOR, Reason.GPU_LOST),
        (errno.ENXIO, S.NEEDS_OPERATOR, Reason.DRIVER_FAILED),
    ],
)
def test_a_write_that_cannot_succeed_is_not_repeated_and_later_steps_are_not_tried(code, state, reason):
    made = desk("SPX/NPS1", "SPX/NPS1", "SPX/NPS1")
    made.node.outcomes.append(code)
    change = made.change((0, "CPX"), (1, "CPX"), (2, "CPX"))
    assert len(writes(made)) == 1
    assert change.state is state
    assert [s.state for s in change.switches] == [state, S.FAILED, S.FAILED]
    assert change.switches[0].reason is reason
    assert ADDRESSES[0] in (change.switches[0].message or "")
    for later in change.switches[1:]:
        assert later.reason is Reason.EARLIER_STEP_FAILED
        assert later.message == f"not tried, because the step of GPU {ADDRESSES[0]} has {state}"
    assert made.node.modes() == ["SPX/NPS1"] * 3


def test_a_silent_firmware_refusal_is_rolled_back():
    made = desk("DPX/NPS1")
    made.node.outcomes.append("refused")
    change = made.change((0, "CPX"))
    assert journaled(made) == [*COMPUTE_PATH, S.ROLLING_BACK, S.FAILED]
    assert writes(made) == [(ADDRESSES[0], "CPX"), (ADDRESSES[0], "DPX")]
    assert change.switches[0].reason is Reason.FIRMWARE_REFUSED
    assert "reported success, but it shows 2 partitions in DPX/NPS1 instead of CPX/NPS1" in (
        change.switches[0].message or ""
    )
    assert made.node.gpus[ADDRESSES[0]].file is ComputeMode.DPX


def test_a_write_without_effect_leaves_nothing_to_roll_back():
    made = desk("SPX/NPS1")
    made.node.outcomes.append("nothing")
    change = made.change((0, "CPX"))
    assert change.state is S.FAILED
    assert change.switches[0].reason is Reason.NO_EFFECT
    assert len(writes(made)) == 1


def test_a_roll_back_that_has_to_wait_still_tells_why_it_was_needed():
    made = desk("SPX/NPS1")
    made.node.outcomes.extend(["refused", errno.EBUSY, errno.EBUSY])
    made.submit((0, "CPX"))
    made.run_until_state(S.ROLLING_BACK)
    made.run(lambda: made.node.outcomes == type(made.node.outcomes)() and isinstance(made.asked[0], fx.Scan))
    made.node.scan_failures = 2
    made.run()
    change = made.ledger.changes["c1"]
    assert change.state is S.FAILED
    assert change.switches[0].reason is Reason.FIRMWARE_REFUSED
    assert "reported success" in (change.switches[0].message or "")
    assert made.node.modes() == ["SPX/NPS1"]


@pytest.mark.parametrize("outcome", ["nothing", "refused"])
def test_a_roll_back_without_effect_needs_an_operator(outcome):
    node = PaperNode("SPX/NPS1")
    made = desk(node=node)
    made.submit((0, "CPX"))
    node.outcomes.append("refused")
    made.run_until_state(S.ROLLING_BACK)
    node.gpus[ADDRESSES[0]].compute = ComputeMode.QPX  # the firmware did something else
    node.outcomes.append(outcome)
    made.run()
    change = made.ledger.changes["c1"]
    assert change.state is S.NEEDS_OPERATOR
    assert change.switches[0].reason is Reason.ROLLBACK_FAILED
    assert "could not be brought back to SPX/NPS1" in (change.switches[0].message or "")
    assert "reported success" in (change.switches[0].message or ""), "and why it was to be"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO, errno.EBUSY])
def test_a_roll_back_that_the_driver_refuses_needs_an_operator(code):
    made = desk("SPX/NPS1")
    made.node.outcomes.extend(["refused", *[code] * 100])
    change = made.change((0, "CPX"), wait=1.0)
    assert change.state is S.NEEDS_OPERATOR
    assert made.node.gpus[ADDRESSES[0]].file is ComputeMode.CPX


def test_nodes_that_are_gone_after_a_success_need_an_operator():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.submit((0, "CPX"))
    made.run_until_state(S.RESCANNING)
    made.node.gpus[ADDRESSES[0]].compute = None
    made.run()
    assert made.ledger.state("c1") is S.NEEDS_OPERATOR
    assert switch_of(made).reason is Reason.DRIVER_FAILED
    assert made.snapshot.gpus[0].gpu.partitions == ()


def test_a_scan_that_fails_is_repeated_until_the_settle_time_is_over():
    made = desk("SPX/NPS1")
    made.submit((0, "CPX"))
    made.run_until_state(S.RESCANNING)
    made.node.scan_failures = 3
    made.run()
    assert made.ledger.state("c1") is S.COMMITTED
    made.submit((0, "SPX"), name="c2")
    made.run_until_state(S.RESCANNING, "c2")
    made.node.scan_failures = 1000
    made.run_until_state(S.ROLLING_BACK, "c2")
    made.node.scan_failures = 0
    made.run()
    assert made.ledger.state("c2") is S.FAILED
    assert switch_of(made, name="c2").reason is Reason.DEADLINE_EXCEEDED
    assert made.node.modes() == ["CPX/NPS1"]


def test_results_with_an_old_token_are_ignored():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.submit((0, "CPX"))
    made.run_until_state(S.WAITING)
    stale = made.asked[0].token - 1
    before, effects = made.snapshot, len(made.effects)
    for event in (
        fx.Drained(stale),
        fx.HoldersSeen(stale, ()),
        fx.WriteEnded(stale, 0, 0.1),
        fx.Woken(stale),
        fx.WriteEnded(stale, errno.EIO, 0.1),
    ):
        made.tell(event)
    assert made.snapshot == before
    assert len(made.effects) == effects
    made.run()
    assert made.ledger.state("c1") is S.COMMITTED


def test_a_result_that_comes_twice_does_not_write_twice():
    made = desk("SPX/NPS1")
    made.submit((0, "CPX"))
    made.run_until_state(S.WAITING)
    late = made.asked[0].token
    made.run_until_state(S.SWITCHING)
    made.tell(fx.HoldersSeen(late, ()))
    assert len(writes(made)) == 1
    made.run()
    assert made.ledger.state("c1") is S.COMMITTED


def test_a_roll_back_goes_to_the_mode_that_was_there_when_the_step_began():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.submit((0, "CPX"), (1, "CPX"))
    made.run_until_state(S.SWITCHING)
    paper = made.node.gpus[ADDRESSES[1]]
    paper.file = paper.compute = ComputeMode.DPX  # somebody else, after the plan was made
    made.node.outcomes.extend(["done", "refused"])
    made.run()
    assert made.node.modes() == ["CPX/NPS1", "DPX/NPS1"]
    assert switch_of(made, 1).reason is Reason.FIRMWARE_REFUSED


def test_results_that_do_not_belong_to_the_state_change_nothing():
    made = desk("SPX/NPS1")
    made.submit((0, "CPX"))
    made.run_until_state(S.DRAINING)
    token = made.asked[0].token
    effects = len(made.effects)
    made.tell(fx.WriteEnded(token, 0, 0.1))
    made.tell(fx.HoldersSeen(token, ()))
    assert len([e for e in made.effects[effects:] if not isinstance(e, fx.Publish)]) == 0
    assert made.ledger.state("c1") is S.DRAINING


def test_partitions_between_two_modes_are_shown_as_they_were():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.submit((0, "CPX"))
    made.run_until_state(S.RESCANNING)
    assert made.node.modes() == ["CPX/NPS1", "SPX/NPS1"]
    made.tell(fx.Scanned(0, made.node.observe()))
    assert len(made.snapshot.gpus[0].gpu.partitions) == 1
    assert made.snapshot.gpus[0].change == "c1"
    made.run()
    assert len(made.snapshot.gpus[0].gpu.partitions) == 8
    assert made.snapshot.gpus[0].change is None


def test_partitions_are_shown_as_they_were_during_a_roll_back_too():
    made = desk("SPX/NPS1")
    made.node.outcomes.append("refused")
    made.submit((0, "CPX"))
    made.run_until_state(S.ROLLING_BACK)
    made.node.gpus[ADDRESSES[0]].compute = ComputeMode.QPX
    made.tell(fx.Scanned(0, made.node.observe()))
    assert len(made.snapshot.gpus[0].gpu.partitions) == 1
    assert made.snapshot.gpus[0].drift == ()


def test_a_memory_step_is_written_once_for_the_hive_and_parks_the_change():
    made = desk("SPX/NPS1", "DPX/NPS1", policy=NPS_POLICY)
    made.change((1, "CPX/NPS4"))
    assert writes(made) == [(ADDRESSES[0], "NPS4")]
    assert journaled(made) == [S.PLANNED, S.SWITCHING, S.AWAITING_RELOAD]
    assert "modprobe -r amdgpu && modprobe amdgpu" in (switch_of(made).message or "")
    assert made.node.modes() == ["SPX/NPS1", "DPX/NPS1"]
