"""What the control loop decides, sans I/O: start and restart, requests, wishes, layouts, and what driver loads mean."""

from __future__ import annotations

import pytest

from aimd.domain.gpu import BusyRule, GpuState
from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.domain.plan import PlanRefusedError, Reason
from aimd.domain.switch import SwitchState as S
from aimd.errors import ConflictError, UnreachableError
from aimd.planning import effects as fx
from tests.fakes.claims import spec
from tests.unit.planning.desk import NPS_POLICY, POLICY, Desk, desk, wish_of
from tests.unit.planning.paper import ADDRESSES, PaperNode, holder, mode

COMPUTE_STATES = [S.PLANNED, S.DRAINING, S.WAITING, S.SWITCHING, S.RESCANNING, S.VERIFYING, S.ROLLING_BACK]
MEMORY_STATES = [S.PLANNED, S.SWITCHING, S.AWAITING_RELOAD, S.RESCANNING, S.VERIFYING]


def writes(made: Desk) -> list[str]:
    return [str(effect.mode) for effect in made.effects if isinstance(effect, fx.WriteMode)]


def stopped_in(state: S, node: PaperNode, *wishes: tuple[int, str], policy=POLICY) -> Desk:
    """A desk whose daemon was killed as soon as the state was journaled, before anything that follows from it."""
    made = desk(node=node, policy=policy)
    if state is S.PLANNED:
        parsed = tuple((ADDRESSES[number], mode(text)) for number, text in wishes)
        made.tell(fx.Submitted(99, "c1", parsed, None, 0), cut=1)
    else:
        made.submit(*wishes)
        if state is S.AWAITING_RELOAD or state not in (S.RESCANNING, S.VERIFYING) or policy is POLICY:
            made.run_until_state(state)
        else:
            made.run_until_state(S.AWAITING_RELOAD)
            node.reload()
            made.tell(fx.DriverChanged("driver_reloaded", None))
            made.run_until_state(state)
    assert made.ledger.state("c1") is state
    return made


# -- before anything is known ---------------------------------------------------------------------------------------


def test_before_the_first_scan_nothing_is_planned_and_nothing_shown_as_ready():
    made = Desk(PaperNode("SPX/NPS1"))
    made.start()
    assert not made.snapshot.ready
    assert isinstance(made.submit((0, "CPX")), UnreachableError)
    with pytest.raises(UnreachableError):
        made.reconciler.plan(((ADDRESSES[0], mode("CPX")),))
    made.run()
    assert made.snapshot.ready


def test_a_scan_that_fails_is_shown_as_a_warning_and_mended_by_the_next_poll():
    made = desk("SPX/NPS1")
    made.node.scan_failures = 1
    made.node.generation += 1
    made.poll()
    assert made.snapshot.warnings == ("the topology kept moving",)
    assert made.snapshot.ready
    made.poll()
    assert made.snapshot.warnings == ()


# -- requests -------------------------------------------------------------------------------------------------------


def test_the_same_name_with_the_same_wishes_is_the_same_request():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.change((0, "CPX"))
    assert made.submit((0, "CPX")) == made.ledger.changes["c1"]
    assert writes(made) == ["CPX"]


def test_the_same_name_for_something_else_is_refused():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.change((0, "CPX"))
    answer = made.submit((1, "CPX"))
    assert isinstance(answer, ConflictError)
    assert answer.code == "name_taken"


def test_one_change_runs_at_a_time():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.submit((0, "CPX"))
    answer = made.submit((1, "CPX"), name="c2")
    assert isinstance(answer, ConflictError)
    assert answer.code == Reason.SWITCH_IN_PROGRESS
    assert "c1" in str(answer)
    assert "c1" in (answer.hint or "")
    assert "c2" not in made.ledger.changes
    made.run()
    assert made.change((1, "CPX"), name="c2").state is S.COMMITTED


def test_a_refused_plan_is_not_journaled():
    made = desk("SPX/NPS1")
    answer = made.submit((0, "TPX"))
    assert isinstance(answer, PlanRefusedError)
    assert answer.code == Reason.MODE_NOT_AVAILABLE
    assert made.ledger.changes == {}


def test_a_change_without_steps_ends_at_once_and_is_a_wish_all_the_same():
    made = desk("SPX/NPS1")
    change = made.submit((0, "SPX"))
    assert change.state is S.COMMITTED
    assert change.switches == ()
    assert wish_of(made, 0) == mode("SPX")


def test_who_asked_is_kept():
    made = desk("SPX/NPS1")
    assert made.submit((0, "CPX"), uid=1234).requester_uid == 1234


def test_the_epoch_of_a_gpu_counts_its_modes():
    made = desk("SPX/NPS1", "SPX/NPS1")
    epochs = [status.mode_epoch for status in made.snapshot.gpus]
    made.change((0, "CPX"))
    assert [status.mode_epoch for status in made.snapshot.gpus] == [epochs[0] + 1, epochs[1]]
    made.start()
    made.run()
    assert [status.mode_epoch for status in made.snapshot.gpus] == [epochs[0] + 1, epochs[1]]


def test_a_switch_by_somebody_else_is_seen_and_told():
    made = desk("SPX/NPS1")
    made.change((0, "CPX"))
    paper = made.node.gpus[ADDRESSES[0]]
    paper.file = paper.compute = ComputeMode.DPX
    made.node.generation += 5
    made.poll()
    assert len(made.snapshot.gpus[0].gpu.partitions) == 2
    assert made.snapshot.gpus[0].drift == ("wished CPX/NPS1, is DPX/NPS1",)
    assert "GPU 0000:05:00.0 went from CPX/NPS1 to DPX/NPS1" in [event.message for event in made.ledger.events]


# -- restart --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [False, True], ids=["before the driver", "after the driver"])
@pytest.mark.parametrize("state", COMPUTE_STATES)
def test_a_compute_switch_goes_on_after_a_restart_in_any_state(state, written):
    node = PaperNode("SPX/NPS1", "SPX/NPS1")
    if state is S.ROLLING_BACK:
        node.outcomes.append("refused")
    made = stopped_in(state, node, (0, "CPX"))
    if written and state is S.SWITCHING:
        node.write(ADDRESSES[0], ComputeMode.CPX)
    if written and state is S.ROLLING_BACK:
        node.write(ADDRESSES[0], ComputeMode.SPX)
    made.start()
    made.run()
    (switch,) = made.ledger.changes["c1"].switches
    if state is S.ROLLING_BACK:
        assert (switch.state, switch.reason) == (S.FAILED, Reason.FIRMWARE_REFUSED)
        assert made.node.modes() == ["SPX/NPS1", "SPX/NPS1"]
        assert "reported success" in (switch.message or "")
    else:
        assert (switch.state, switch.reason) == (S.COMMITTED, None)
        assert made.node.modes() == ["CPX/NPS1", "SPX/NPS1"]
        assert wish_of(made, 0) == mode("CPX")


def test_admission_is_closed_again_after_a_restart_while_waiting():
    made = stopped_in(S.WAITING, PaperNode("SPX/NPS1"), (0, "CPX"))
    made.start()
    made.effects.clear()
    made.run()
    assert isinstance(next(e for e in made.effects if isinstance(e, (fx.Drain, fx.ListHolders))), fx.Drain)


def test_later_steps_are_done_after_a_restart_too():
    made = stopped_in(S.SWITCHING, PaperNode("SPX/NPS1", "SPX/NPS1", "SPX/NPS1"), (0, "CPX"), (1, "DPX"), (2, "QPX"))
    made.start()
    made.run()
    assert made.node.modes() == ["CPX/NPS1", "DPX/NPS1", "QPX/NPS1"]
    assert made.ledger.state("c1") is S.COMMITTED


@pytest.mark.parametrize("state", COMPUTE_STATES)
def test_a_reboot_ends_a_compute_switch(state):
    node = PaperNode("DPX/NPS1", "SPX/NPS1")
    if state is S.ROLLING_BACK:
        node.outcomes.append("refused")
    made = stopped_in(state, node, (0, "CPX"), (1, "CPX"))
    node.reload()
    made.start(boot="boot-2")
    made.run()
    change = made.ledger.changes["c1"]
    assert [s.state for s in change.switches] == [S.FAILED, S.FAILED]
    assert [s.reason for s in change.switches] == [Reason.INTERRUPTED_BY_REBOOT, Reason.EARLIER_STEP_FAILED]
    assert change.boot_id == "boot-2"
    assert made.node.modes() == ["SPX/NPS1", "SPX/NPS1"]


def test_what_was_done_before_a_reboot_is_a_wish_and_what_was_not_is_none():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.submit((0, "CPX"), (1, "CPX"))
    made.run(lambda: made.ledger.changes["c1"].switches[1].state is S.SWITCHING)
    made.node.reload()
    made.start(boot="boot-2")
    made.run()
    assert wish_of(made, 0) == mode("CPX")
    assert wish_of(made, 1) is None
    assert made.node.modes() == ["CPX/NPS1", "SPX/NPS1"]


@pytest.mark.parametrize("state", MEMORY_STATES)
def test_a_memory_change_goes_on_after_a_restart_in_any_state(state):
    node = PaperNode("SPX/NPS1", "SPX/NPS1")
    made = stopped_in(state, node, (0, "QPX/NPS4"), policy=NPS_POLICY)
    made.start()
    made.run()
    if state in (S.PLANNED, S.SWITCHING, S.AWAITING_RELOAD):
        assert made.ledger.state("c1") is S.AWAITING_RELOAD
        assert [status.pending_memory for status in made.snapshot.gpus] == [MemoryMode.NPS4] * 2
        assert "reload the amdgpu driver" in (made.ledger.changes["c1"].switches[0].message or "")
        node.reload()
        made.tell(fx.DriverChanged("driver_reloaded", None))
        made.run()
    assert made.ledger.state("c1") is S.COMMITTED
    assert made.node.modes() == ["QPX/NPS4", "CPX/NPS4"]
    assert [status.pending_memory for status in made.snapshot.gpus] == [None] * 2


@pytest.mark.parametrize("state", MEMORY_STATES[1:])
def test_a_reboot_is_a_driver_load_for_a_memory_change(state):
    node = PaperNode("SPX/NPS1", "SPX/NPS1")
    made = stopped_in(state, node, (0, "QPX/NPS4"), policy=NPS_POLICY)
    for paper in node.gpus.values():
        paper.requested = MemoryMode.NPS4
    node.reload()
    made.start(boot="boot-2")
    made.run()
    assert made.ledger.state("c1") is S.COMMITTED
    assert made.node.modes() == ["QPX/NPS4", "CPX/NPS4"]


# -- driver loads ---------------------------------------------------------------------------------------------------


def parked(*modes: str, target: str = "QPX/NPS4") -> Desk:
    made = desk(*modes, policy=NPS_POLICY)
    made.change((0, target))
    assert made.ledger.state("c1") is S.AWAITING_RELOAD
    return made


def test_a_pending_memory_mode_does_not_hold_the_node_wide_lock():
    made = parked("SPX/NPS1", "SPX/NPS1")
    assert made.change((1, "CPX"), name="c2").state is S.COMMITTED
    assert made.ledger.state("c1") is S.AWAITING_RELOAD


def test_a_second_memory_request_is_refused_while_one_is_pending():
    made = parked("SPX/NPS1", "SPX/NPS1")
    answer = made.submit((1, "DPX/NPS2"), name="c2")
    assert isinstance(answer, PlanRefusedError)
    assert answer.code == Reason.MEMORY_MODE_PENDING
    assert writes(made) == ["NPS4"]


def test_a_load_that_nobody_told_of_is_seen_by_the_poll():
    made = parked("SPX/NPS1", "SPX/NPS1")
    made.poll()
    assert made.ledger.state("c1") is S.AWAITING_RELOAD
    made.node.reload()
    made.poll()
    assert made.ledger.state("c1") is S.COMMITTED
    assert made.node.modes() == ["QPX/NPS4", "CPX/NPS4"]


def test_a_driver_that_went_and_came_back_is_a_load():
    made = parked("SPX/NPS1", "SPX/NPS1")
    made.tell(fx.Scanned(0, None, "no KFD topology is there", gone=True))
    assert all(status.gpu.state is GpuState.LOST for status in made.snapshot.gpus)
    made.node.firmware_accepts_memory = False
    made.node.reload()
    made.poll()
    assert made.ledger.state("c1") is S.FAILED
    assert made.ledger.changes["c1"].switches[0].reason is Reason.FIRMWARE_REFUSED


def test_a_memory_mode_that_the_firmware_refuses_fails_the_change_and_its_compute_step():
    made = parked("SPX/NPS1", "SPX/NPS1")
    made.node.firmware_accepts_memory = False
    made.node.reload()
    made.tell(fx.DriverChanged("driver_reloaded", None))
    made.run()
    change = made.ledger.changes["c1"]
    assert [s.state for s in change.switches] == [S.FAILED, S.FAILED]
    assert [s.reason for s in change.switches] == [Reason.FIRMWARE_REFUSED, Reason.EARLIER_STEP_FAILED]
    assert "the memory mode is still NPS1" in (change.switches[0].message or "")
    assert [status.pending_memory for status in made.snapshot.gpus] == [None] * 2


def test_a_load_that_leaves_no_trace_is_known_by_its_event():
    """Nothing was switched since the last load, and the firmware refuses: generation and modes are as before."""
    node = PaperNode("SPX/NPS1", "SPX/NPS1")
    node.generation = 3
    made = desk(node=node, policy=NPS_POLICY)
    made.change((0, "CPX/NPS4"))
    node.firmware_accepts_memory = False
    node.reload()
    made.poll()
    assert made.ledger.state("c1") is S.AWAITING_RELOAD
    made.tell(fx.DriverChanged("driver_reloaded", None))
    made.run()
    assert made.ledger.state("c1") is S.FAILED


def test_a_start_during_a_reset_counts_no_new_mode():
    made = desk("CPX/NPS1")
    epoch = made.snapshot.gpus[0].mode_epoch
    made.node.in_reset = True
    made.start()
    made.run()
    assert made.snapshot.gpus[0].mode_epoch == epoch
    made.node.in_reset = False
    made.tell(fx.Scanned(0, made.node.observe()))
    assert made.snapshot.gpus[0].mode_epoch == epoch


def test_a_scan_during_a_reset_is_no_driver_load_and_no_new_mode():
    made = parked("CPX/NPS1", "CPX/NPS1")
    before = [(status.mode_epoch, status.gpu.memory_mode) for status in made.snapshot.gpus]
    made.node.in_reset = True
    made.tell(fx.Scanned(0, made.node.observe()))
    assert [(status.mode_epoch, status.gpu.memory_mode) for status in made.snapshot.gpus] == before
    assert all(status.gpu.in_reset and not status.drift for status in made.snapshot.gpus)
    made.node.in_reset = False
    made.tell(fx.Scanned(0, made.node.observe()))
    made.run()
    assert made.ledger.state("c1") is S.AWAITING_RELOAD
    assert [(status.mode_epoch, status.gpu.memory_mode) for status in made.snapshot.gpus] == before
    assert "mode_changed" not in [event.kind for event in made.ledger.events]


def test_wishes_of_other_gpus_are_done_again_after_a_load_has_reset_them():
    made = desk("SPX/NPS1", "SPX/NPS1", "SPX/NPS1", policy=NPS_POLICY)
    made.change((1, "QPX"), name="q")
    made.change((0, "CPX/NPS4"))
    made.node.reload()
    assert made.node.modes() == ["CPX/NPS4"] * 3
    made.tell(fx.DriverChanged("driver_reloaded", None))
    made.run()
    assert made.node.modes() == ["CPX/NPS4", "QPX/NPS4", "CPX/NPS4"]


def test_wishes_are_done_again_after_a_load_that_only_the_generation_tells_of():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.change((0, "CPX"))
    made.node.reload()
    assert made.node.modes() == ["SPX/NPS1", "SPX/NPS1"]
    made.poll()
    assert made.node.modes() == ["CPX/NPS1", "SPX/NPS1"]


def test_an_interrupted_switch_goes_on_before_a_memory_change_whose_load_has_come():
    made = parked("SPX/NPS1", "SPX/NPS1")
    made.submit((1, "QPX"), name="c2")
    made.run_until_state(S.DRAINING, "c2")
    made.node.reload()
    made.passed.clear()
    made.start()
    made.run()  # the desk fails where two changes act at once
    assert [made.ledger.state("c1"), made.ledger.state("c2")] == [S.COMMITTED] * 2
    assert made.node.modes() == ["QPX/NPS4", "QPX/NPS4"]


def test_the_last_memory_mode_of_a_hive_is_the_wish_of_all_its_gpus():
    made = desk("SPX/NPS1", "SPX/NPS1", policy=NPS_POLICY)
    made.change((1, "QPX/NPS1"), name="q")
    made.change((0, "CPX/NPS4"))
    made.node.reload()
    made.tell(fx.DriverChanged("driver_reloaded", None))
    made.run()
    assert made.node.modes() == ["CPX/NPS4", "QPX/NPS4"]
    assert wish_of(made, 1) == mode("QPX/NPS4")
    made.start()
    made.run()
    assert writes(made).count("NPS1") == 0, "the older wish must not fight the newer one"
    assert [status.pending_memory for status in made.snapshot.gpus] == [None] * 2


# -- wishes and layouts ---------------------------------------------------------------------------------------------


def started_with(layout: dict[str, str], digest: str, *modes: str, policy=POLICY) -> Desk:
    made = Desk(PaperNode(*modes), policy)
    made.start(layout, digest)
    made.run()
    return made


def test_a_layout_is_applied_at_start():
    made = started_with({"default": "CPX", "gpu1": "QPX"}, "d1", "SPX/NPS1", "SPX/NPS1", "SPX/NPS1")
    assert made.node.modes() == ["CPX/NPS1", "QPX/NPS1", "CPX/NPS1"]
    (change,) = made.ledger.changes.values()
    assert (change.origin, change.requester_uid) == ("wish", None)
    assert made.ledger.layout_digest == "d1"


def test_a_busy_gpu_is_left_alone_until_it_is_idle():
    node = PaperNode("SPX/NPS1", "SPX/NPS1")
    node.holders = [holder(4711, 0)]
    made = Desk(node)
    made.start({"default": "CPX"}, "d1")
    made.run()
    assert node.modes() == ["SPX/NPS1", "CPX/NPS1"]
    assert made.snapshot.gpus[0].drift == ("wished CPX/NPS1, is SPX/NPS1",)
    made.pass_time(POLICY.wish_retry_seconds)
    made.poll()
    assert node.modes() == ["SPX/NPS1", "CPX/NPS1"]
    node.holders = []
    made.poll()
    assert node.modes() == ["CPX/NPS1", "CPX/NPS1"]
    assert made.snapshot.gpus[0].drift == ()


def test_under_the_node_wide_rule_any_holder_makes_all_gpus_busy():
    node = PaperNode("SPX/NPS1", "SPX/NPS1", rule=BusyRule.NODE_WIDE)
    node.holders = [holder(4711, 1)]
    made = Desk(node)
    made.start({"gpu0": "CPX"}, "d1")
    made.run()
    assert made.ledger.changes == {}
    node.holders = []
    made.poll()
    assert node.modes() == ["CPX/NPS1", "SPX/NPS1"]


def test_a_wish_that_fails_is_tried_again_after_a_while_not_at_once():
    node = PaperNode("SPX/NPS1")
    node.outcomes.append("refused")
    made = Desk(node)
    made.start({"default": "CPX"}, "d1")
    made.run()
    assert node.modes() == ["SPX/NPS1"]
    made.poll()
    assert writes(made) == ["CPX", "SPX"]
    made.pass_time(POLICY.wish_retry_seconds)
    made.poll()
    assert node.modes() == ["CPX/NPS1"]


def test_a_wish_that_cannot_be_is_told_once_and_does_not_keep_the_others():
    made = started_with({"gpu0": "TPX", "gpu1": "CPX"}, "d1", "SPX/NPS1", "SPX/NPS1")
    for _ in range(3):
        made.pass_time(10)
        made.poll()
    refused = [event for event in made.ledger.events if event.kind == "wish_refused"]
    assert [event.subject for event in refused] == [ADDRESSES[0]]
    assert made.node.modes() == ["SPX/NPS1", "CPX/NPS1"]


def test_memory_modes_of_a_layout_need_the_permission():
    made = started_with({"default": "CPX/NPS4"}, "d1", "SPX/NPS1", "SPX/NPS1")
    assert made.node.modes() == ["SPX/NPS1", "SPX/NPS1"]
    assert {event.subject for event in made.ledger.events if event.kind == "wish_refused"} == set(ADDRESSES[:2])
    allowed = started_with({"default": "CPX/NPS4"}, "d1", "SPX/NPS1", "SPX/NPS1", policy=NPS_POLICY)
    assert writes(allowed) == ["NPS4"]
    assert [status.pending_memory for status in allowed.snapshot.gpus] == [MemoryMode.NPS4] * 2


def refusals(made: Desk) -> list[str]:
    return [event.subject for event in made.ledger.events if event.kind == "wish_refused"]


def test_a_refused_wish_is_told_once_however_often_it_is_looked_at():
    """A claim that leaves, a driver load and a reload open it again; nothing of its cause has changed."""
    made = started_with({"gpu0": "CPX/NPS4"}, "d1", "SPX/NPS1", "SPX/NPS1")
    for number in range(3):
        made.claim(f"m{number}", spec(20, at=(ADDRESSES[0], 0)))
        made.release(f"m{number}")
        made.node.reload()
        made.tell(fx.DriverChanged("driver_reloaded", None))
        made.run()
        made.tell(fx.Reconfigured(POLICY, {}, "d1", "d1", {}))
        made.run()
    assert refusals(made) == [ADDRESSES[0]]


def test_a_refused_wish_of_another_cause_is_told_again():
    made = started_with({"gpu0": "CPX/NPS4"}, "d1", "SPX/NPS1", "SPX/NPS1")
    another = {"gpu0": mode("TPX")}
    made.tell(fx.Reconfigured(POLICY, another, "d2", "d1", {"gpu0": mode("CPX/NPS4")}))
    made.run()
    assert refusals(made) == [ADDRESSES[0]] * 2
    assert "does not offer TPX" in [e.message for e in made.ledger.events if e.kind == "wish_refused"][-1]


def test_a_wish_that_was_possible_meanwhile_is_told_again():
    made = started_with({"gpu0": "TPX"}, "d1", "SPX/NPS1", "SPX/NPS1")
    for number, asked in enumerate(["DPX", "TPX"], 2):
        made.tell(fx.Reconfigured(POLICY, {"gpu0": mode(asked)}, f"d{number}", f"d{number - 1}", {}))
        made.run()
    assert made.node.modes() == ["DPX/NPS1", "SPX/NPS1"]
    assert refusals(made) == [ADDRESSES[0]] * 2


def test_a_refused_wish_is_pursued_when_a_reload_allows_it():
    made = started_with({"default": "CPX/NPS4"}, "d1", "SPX/NPS1", "SPX/NPS1")
    assert writes(made) == []
    made.tell(fx.Reconfigured(NPS_POLICY, {}, "d1", "d1", {}))
    made.run()
    assert writes(made) == ["NPS4"]


def test_set_mode_wins_over_a_layout_that_has_not_changed():
    made = started_with({"default": "CPX"}, "d1", "SPX/NPS1")
    made.change((0, "DPX"), name="mine")
    made.start({"default": "CPX"}, "d1")
    made.run()
    assert made.node.modes() == ["DPX/NPS1"]
    assert wish_of(made, 0) == mode("DPX")


def test_a_changed_layout_wins_over_set_mode():
    made = started_with({"default": "CPX"}, "d1", "SPX/NPS1")
    made.change((0, "DPX"), name="mine")
    made.start({"default": "QPX"}, "d2")
    made.run()
    assert made.node.modes() == ["QPX/NPS1"]
    assert wish_of(made, 0) == mode("QPX")


def test_a_layout_whose_digest_was_not_kept_is_applied_again():
    node = PaperNode("SPX/NPS1")
    made = Desk(node)
    made.start({"default": "CPX"}, "d1")
    made.tell(fx.Scanned(0, node.observe()), cut=1)  # killed after the first of its commits
    made.start({"default": "CPX"}, "d1")
    made.run()
    assert node.modes() == ["CPX/NPS1"]


def test_a_failed_change_is_no_wish():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.node.outcomes.extend(["done", "refused"])
    made.change((0, "CPX"), (1, "CPX"))
    assert wish_of(made, 0) == mode("CPX")
    assert wish_of(made, 1) is None


def test_set_mode_of_one_kind_keeps_the_wish_of_the_other():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.change((0, "CPX/NPS1"), name="a")
    made.change((0, "DPX"), name="b")
    assert wish_of(made, 0) == mode("DPX/NPS1")


def test_set_mode_survives_a_reboot():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.change((0, "CPX"))
    made.node.reload()
    made.start(boot="boot-2")
    made.run()
    assert made.node.modes() == ["CPX/NPS1", "SPX/NPS1"]


def test_a_wish_is_not_forced_upon_a_mode_that_somebody_else_has_set():
    made = desk("SPX/NPS1")
    made.change((0, "CPX"))
    paper = made.node.gpus[ADDRESSES[0]]
    paper.file = paper.compute = ComputeMode.DPX
    made.node.generation += 3
    made.pass_time(100)
    made.poll()
    made.poll()
    assert made.node.modes() == ["DPX/NPS1"]


def test_a_gpu_that_vanishes_is_shown_as_gone_and_its_wish_waits():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.change((1, "CPX"))
    made.node.gpus[ADDRESSES[1]].on_the_bus = False
    made.node.generation += 8
    made.poll()
    assert [status.gpu.state for status in made.snapshot.gpus] == [GpuState.READY, GpuState.GONE]
    answer = made.submit((1, "SPX"), name="c2")
    assert isinstance(answer, PlanRefusedError)
    assert answer.code == Reason.GPU_GONE


def test_ended_changes_are_forgotten_beyond_a_hundred():
    made = desk("SPX/NPS1")
    for number in range(105):
        made.submit((0, "SPX"), name=f"n{number}")
    assert len(made.snapshot.changes) == 100
    assert made.snapshot.change("n0") is None
    assert made.snapshot.change("n104") is not None


def test_a_poll_looks_at_nothing_while_a_change_runs():
    made = desk("SPX/NPS1")
    made.submit((0, "CPX"))
    asked = list(made.asked)
    made.tell(fx.PollDue())
    made.tell(fx.Polled(999, ()))
    assert made.asked == asked
