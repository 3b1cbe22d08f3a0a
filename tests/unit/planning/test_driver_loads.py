"""Driver loads that take their time: the GPUs come one after the other, some never, or while no daemon runs."""

from __future__ import annotations

import pytest

from aimd.domain.plan import Reason
from aimd.domain.switch import SwitchState as S
from aimd.planning import effects as fx
from tests.unit.planning.desk import NPS_POLICY, Desk, desk
from tests.unit.planning.paper import ADDRESSES


def parked(count: int = 3, target: str = "QPX/NPS4") -> Desk:
    made = desk(*["SPX/NPS1"] * count, policy=NPS_POLICY)
    made.change((0, target))
    assert made.ledger.state("c1") is S.AWAITING_RELOAD
    return made


def bring(made: Desk, *numbers: int) -> None:
    """These GPUs alone are bound to the driver."""
    for number, paper in enumerate(made.node.gpus.values()):
        paper.on_the_bus = number in numbers
    made.node.generation = 1 + len(numbers)


def unload(made: Desk) -> None:
    made.tell(fx.Scanned(0, None, "no KFD topology is there", gone=True))


def look(made: Desk) -> None:
    """A poll and what follows, but for the pause of a change that goes on waiting."""
    made.tell(fx.PollDue())
    made.run(lambda: all(isinstance(asked, fx.Wake) for asked in made.asked))


@pytest.mark.parametrize("told", ["seen to go", "load alone"])
def test_a_memory_change_waits_for_every_gpu_of_the_hive(told):
    made = parked()
    if told == "seen to go":
        unload(made)
        assert made.ledger.state("c1") is S.AWAITING_RELOAD
    made.node.reload()
    for numbers in ((0,), (0, 1)):
        bring(made, *numbers)
        look(made)
        assert made.ledger.state("c1") is S.RESCANNING
    assert ADDRESSES[2] in (made.snapshot.change("c1").switches[0].message or "")
    bring(made, 0, 1, 2)
    made.run()
    assert made.ledger.state("c1") is S.COMMITTED
    assert made.node.modes() == ["QPX/NPS4", "CPX/NPS4", "CPX/NPS4"]


def test_the_verdict_on_a_refused_request_waits_too():
    made = parked()
    made.node.firmware_accepts_memory = False
    unload(made)
    made.node.reload()
    bring(made, 1)
    look(made)
    assert made.ledger.state("c1") is S.RESCANNING
    bring(made, 0, 1, 2)
    made.run()
    assert made.ledger.changes["c1"].switches[0].reason is Reason.FIRMWARE_REFUSED
    assert made.ledger.state("c1") is S.FAILED


def test_a_load_that_stops_half_way_needs_an_operator_after_minutes():
    made = parked()
    unload(made)
    made.node.reload()
    bring(made, 0)
    began = made.now
    look(made)
    made.pass_time(NPS_POLICY.settle_seconds + 1)
    made.run(lambda: made.now > began + 100, most=5000)
    assert made.ledger.state("c1") is S.RESCANNING
    made.run(most=5000)
    assert made.now >= began + NPS_POLICY.reload_seconds
    change = made.ledger.changes["c1"]
    assert [(s.state, s.reason) for s in change.switches] == [
        (S.NEEDS_OPERATOR, Reason.DRIVER_FAILED),
        (S.FAILED, Reason.EARLIER_STEP_FAILED),
    ]
    message = change.switches[0].message or ""
    assert ADDRESSES[1] in message
    assert ADDRESSES[2] in message
    assert ADDRESSES[0] not in message
    assert "waited 300 s" in message


def test_an_unloaded_driver_alone_ends_nothing():
    made = parked()
    for _ in range(3):
        unload(made)
        made.pass_time(NPS_POLICY.reload_seconds)
        made.tell(fx.DrainingSet(1, ADDRESSES[1], draining=True))
        made.replies.clear()
        assert made.ledger.state("c1") is S.AWAITING_RELOAD


def test_after_a_reboot_there_is_time_for_a_whole_load():
    made = parked()
    made.node.reload()
    bring(made, 0)
    made.start(boot="boot-2")
    made.run(lambda: all(isinstance(asked, fx.Wake) for asked in made.asked))
    made.pass_time(NPS_POLICY.wait_seconds + 1)
    bring(made, 0, 1, 2)
    made.run()
    assert made.ledger.state("c1") is S.COMMITTED


# -- while the daemon was down --------------------------------------------------------------------------------------


def test_a_refusal_while_the_daemon_was_down_is_found_by_the_generation():
    made = parked()
    assert made.ledger.changes["c1"].switches[0].generation == made.node.generation == 10
    made.node.firmware_accepts_memory = False
    made.node.reload()
    made.start()
    made.run()
    assert made.ledger.changes["c1"].switches[0].reason is Reason.FIRMWARE_REFUSED


def test_a_restart_without_a_load_leaves_the_change_pending():
    made = parked()
    made.change((1, "CPX"), name="c2")
    made.start()
    made.run()
    assert made.ledger.state("c1") is S.AWAITING_RELOAD


# -- wishes ---------------------------------------------------------------------------------------------------------


def test_wishes_of_gpus_that_come_late_are_fulfilled():
    made = desk("SPX/NPS1", "SPX/NPS1", "SPX/NPS1")
    made.change((0, "CPX"), (1, "DPX"), (2, "QPX"))
    unload(made)
    made.node.reload()
    for numbers in ((), (0,), (0, 1), (0, 1, 2)):
        bring(made, *numbers)
        made.poll()
    assert made.node.modes() == ["CPX/NPS1", "DPX/NPS1", "QPX/NPS1"]
    assert "wish_refused" not in [event.kind for event in made.ledger.events]


def test_a_gpu_that_is_seen_to_go_and_come_back_gets_its_wish():
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.change((0, "CPX"), (1, "DPX"))
    bring(made, 0)
    made.poll()
    node = made.node.gpus[ADDRESSES[1]]
    node.file = node.compute = made.node.gpus[ADDRESSES[1]].compute.SPX
    bring(made, 0, 1)
    made.node.generation = 99
    made.poll()
    assert made.node.modes() == ["CPX/NPS1", "DPX/NPS1"]


@pytest.mark.parametrize("told", [True, False])
def test_a_rebind_between_two_polls_reopens_the_wish_of_that_gpu_alone(told):
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.change((0, "CPX"), (1, "DPX"))
    for paper in made.node.gpus.values():  # GPU 0 was rebound, GPU 1 switched by hand
        paper.file = paper.compute = paper.compute.SPX
    made.node.generation += 9
    if told:
        made.tell(fx.DriverChanged("gpu_added", ADDRESSES[0]))
        made.run()
    else:
        made.poll()
    assert made.node.modes() == ["CPX/NPS1" if told else "SPX/NPS1", "SPX/NPS1"]
