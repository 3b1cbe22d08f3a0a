"""The life of a claim: each state against each event, on a paper node. The desk checks every snapshot and answer."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from aimd.domain.claim import Claim, ClaimState
from aimd.domain.ledger import LedgerState
from aimd.domain.plan import PlanRefusedError, Reason
from aimd.domain.switch import ModeChange, SwitchState
from aimd.errors import AimdError, ConflictError, NotFoundError, RefusedError, UnreachableError
from aimd.planning import effects as fx
from aimd.planning.rooms import Repartition
from tests.fakes.claims import places, spec
from tests.unit.planning.desk import NPS_POLICY, POLICY, Desk, desk, wish_of
from tests.unit.planning.paper import ADDRESSES, PaperNode, holder

CPX_20 = spec(20, "CPX")
DPX_90 = spec(90, "DPX")
NEVER = replace(POLICY, repartition=Repartition.NEVER)
PLACED, SWITCHING, PENDING = ClaimState.PLACED, ClaimState.SWITCHING, ClaimState.PENDING


def shown(made: Desk, name: str = "m") -> Claim:
    return made.snapshot.claim(name)


def claimed(made: Desk, name: str = "m", wanted=CPX_20) -> Claim:
    """The answer to a request that is granted."""
    answer = made.claim(name, wanted)
    assert isinstance(answer, Claim), answer
    assert name in made.ledger.claims
    return answer


def kinds(made: Desk, subject: str = "m") -> list[str]:
    return [event.kind for event in made.ledger.events if event.subject == subject]


def at(*indexes: int, gpu: int = 0) -> list[tuple[str, int]]:
    return [(ADDRESSES[gpu], index) for index in indexes]


def placed() -> Desk:
    made = desk("CPX/NPS1", "SPX/NPS1")
    claimed(made)
    return made


def switching() -> Desk:
    """In the middle of the write."""
    made = desk("SPX/NPS1", "SPX/NPS1")
    claimed(made)
    made.run_until_state(SwitchState.SWITCHING, shown(made).change)
    return made


def pending() -> Desk:
    """Displaced by an operator who has changed the mode, with no other place to go to."""
    made = desk("CPX/NPS1", "SPX/NPS1", policy=NEVER)
    claimed(made)
    assert isinstance(made.submit((0, "DPX"), drain=True), ModeChange)
    made.run()
    return made


STATES = {PLACED: placed, SWITCHING: switching, PENDING: pending}
in_each_state = pytest.mark.parametrize("state", list(STATES))


# -- the three states ----------------------------------------------------------------------------------------------


def test_placed() -> None:
    made = placed()
    claim = shown(made)
    assert (claim.state, places(claim), claim.change, claim.reason, claim.message) == (PLACED, at(0), None, None, None)
    assert (claim.owner_uid, claim.created_at) == (1000, 1_000_100.0)
    assert claim.assignments[0].mode_epoch == made.snapshot.gpus[0].mode_epoch == 1
    assert kinds(made) == ["claim_placed"]
    assert made.node.modes() == ["CPX/NPS1", "SPX/NPS1"]


def test_switching() -> None:
    made = switching()
    claim = shown(made)
    assert (claim.state, places(claim), claim.reason) == (SWITCHING, at(0), None)
    change = made.snapshot.change(claim.change)
    assert (change.origin, change.requester_uid, change.state) == ("claim", 1000, SwitchState.SWITCHING)
    made.run()
    claim = shown(made)
    assert (claim.state, places(claim), claim.change) == (PLACED, at(0), None)
    assert claim.assignments[0].mode_epoch == 2
    assert kinds(made) == ["claim_placed"]
    assert made.node.modes() == ["CPX/NPS1", "SPX/NPS1"]
    assert wish_of(made, 0) is None, "what a claim needs is no wish"


def test_pending() -> None:
    made = pending()
    claim = shown(made)
    assert (claim.state, claim.assignments, claim.change) == (PENDING, (), None)
    assert claim.reason is Reason.MODE_NOT_AVAILABLE
    assert "wants mode CPX/?, which no GPU is in or can be switched to; they are in DPX/NPS1, SPX/NPS1" in claim.message
    assert "repartition = never" in claim.message
    assert kinds(made) == ["claim_placed", "claim_displaced", "claim_pending"]


def test_a_refused_claim_is_not_kept() -> None:
    made = desk("CPX/NPS1")
    answer = made.claim("m", spec(193))
    assert isinstance(answer, RefusedError)
    assert (answer.code, bool(answer.hint)) == ("memory_too_large", True)
    assert made.ledger.claims == {}
    assert made.snapshot.claims == ()


def test_before_the_first_scan() -> None:
    made = Desk(PaperNode("CPX/NPS1"))
    made.start()
    assert isinstance(made.claim("m", CPX_20), UnreachableError)
    assert isinstance(made.release("m"), NotFoundError)
    assert isinstance(made.join("m", 7), NotFoundError)
    assert made.drain(0) is None
    made.run()
    assert isinstance(made.claim("m", CPX_20), RefusedError), "the only GPU is draining"


# -- requests in each state ----------------------------------------------------------------------------------------


@in_each_state
def test_the_same_request_again(state) -> None:
    made = STATES[state]()
    before, events = shown(made), len(made.ledger.events)
    assert claimed(made, wanted=before.spec) == before
    assert before.state is state
    assert len(made.ledger.events) == events
    assert shown(made) == before


@in_each_state
def test_the_same_name_for_something_else(state) -> None:
    made = STATES[state]()
    before = shown(made)
    answer = made.claim("m", spec(21, "CPX"))
    assert isinstance(answer, ConflictError)
    assert (answer.code, answer.message) == ("name_taken", "claim m exists and asks for something else")
    assert shown(made) == before


@in_each_state
def test_released(state) -> None:
    made = STATES[state]()
    before = shown(made)
    assert made.release("m") == before
    assert made.snapshot.claims == ()
    assert made.ledger.claims == {}
    assert kinds(made)[-1] == "claim_released"
    answer = made.release("m")
    assert isinstance(answer, NotFoundError)
    assert answer.code == "unknown_claim"
    made.run()
    made.poll()
    assert made.snapshot.claims == ()
    assert all(change.current is None for change in made.snapshot.changes)


def test_released_while_its_gpu_is_switched() -> None:
    """The write cannot be called back; the GPU returns to its wish when the switch has ended."""
    made = desk("SPX/NPS1")
    made.change((0, "SPX"))
    change = claimed(made).change
    made.run_until_state(SwitchState.RESCANNING, change)
    made.release("m")
    made.run()
    assert made.ledger.state(change) is SwitchState.COMMITTED
    made.pass_time(POLICY.wish_retry_seconds)
    made.poll()
    assert made.node.modes() == ["SPX/NPS1"]
    assert made.snapshot.gpus[0].drift == ()


def test_released_while_switching_and_asked_for_again() -> None:
    made = switching()
    made.release("m")
    assert claimed(made).state is PENDING
    made.run()
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0))
    assert len(made.ledger.changes) == 1


# -- how a mode change for a claim ends ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("nothing", Reason.NO_EFFECT),
        (errno.EINVAL, Reason.MODE_NOT_AVAILABLE),
        (errno.EACCES, Reason.NOT_PERMITTED),
        ("dead", Reason.DRIVER_FAILED),
    ],
)
def test_a_switch_that_fails(outcome, reason) -> None:
    """The claim waits with the reason, and is tried on the GPU again only after a pause."""
    made = desk("SPX/NPS1")
    claimed(made)
    made.node.outcomes.append(outcome)
    made.run()
    claim = shown(made)
    assert (claim.state, claim.assignments, claim.change) == (PENDING, (), None)
    assert reason in {switch.reason for change in made.ledger.changes.values() for switch in change.switches}
    assert claim.reason is (reason if outcome != "dead" else Reason.NO_ROOM), "without partitions there is no other way"
    changes = len(made.ledger.changes)
    made.poll()
    assert len(made.ledger.changes) == changes, "no loop of attempts"
    if outcome == "dead":
        made.node.reload()
    made.pass_time(POLICY.wish_retry_seconds)
    made.poll()
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0))


def test_after_a_failure_another_gpu_is_taken_at_once() -> None:
    made = desk("SPX/NPS1", "SPX/NPS1")
    claimed(made)
    made.node.outcomes.append(errno.EINVAL)
    made.run()
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0, gpu=1))
    assert made.node.modes() == ["SPX/NPS1", "CPX/NPS1"]
    assert [event.kind for event in made.ledger.events if event.subject == "m"] == ["claim_pending", "claim_placed"]


def test_one_of_two_switches_fails() -> None:
    """What the first has brought is used again; the second GPU is left alone for a while."""
    made = desk("SPX/NPS1", "SPX/NPS1")
    claimed(made, wanted=spec(20, "CPX", replicas=16))
    made.node.outcomes.extend(["done", errno.EINVAL])
    made.run()
    assert made.node.modes() == ["CPX/NPS1", "SPX/NPS1"]
    assert (shown(made).state, shown(made).reason) == (PENDING, Reason.MODE_NOT_AVAILABLE)
    assert isinstance(made.claim("small", CPX_20), Claim)
    made.release("small")
    made.pass_time(POLICY.wish_retry_seconds)
    made.poll()
    assert shown(made).state is PLACED
    assert made.node.modes() == ["CPX/NPS1", "CPX/NPS1"]


def test_a_new_request_may_try_a_gpu_at_rest_when_there_is_no_other_way() -> None:
    made = desk("SPX/NPS1")
    claimed(made)
    made.node.outcomes.append(errno.EINVAL)
    made.run()
    claimed(made, "other", spec(20, "CPX"))
    made.run()
    assert shown(made, "other").state is PLACED
    assert shown(made).state is PLACED, "the first one fits now, too"


def test_the_gpu_has_left_the_mode_before_the_claim_was_told() -> None:
    """The daemon dies after the commit of the switch; the machine is rebooted: index 0 is another partition now."""
    made = desk("SPX/NPS1")
    claimed(made)
    change = shown(made).change
    made.run_until_state(SwitchState.VERIFYING, change)
    made.tell(made.result(made.asked.pop(0)), cut=1)
    assert made.ledger.state(change) is SwitchState.COMMITTED
    assert made.ledger.claims["m"].state is SWITCHING
    made.node.reload()
    made.start(boot="boot-2")
    made.run(lambda: made.snapshot.ready)
    assert shown(made).state is not PLACED
    made.run()
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0))
    assert made.node.modes() == ["CPX/NPS1"]


def test_the_driver_is_loaded_with_another_memory_mode_while_a_gpu_is_switched_for_a_claim() -> None:
    """The compute mode is the right one afterwards, the memory mode is not the one that the claim wants."""
    made = desk("SPX/NPS1", policy=NPS_POLICY)
    made.submit((0, "NPS4"), name="memory")
    made.run()
    claimed(made, wanted=spec(1, "CPX/NPS1"))
    made.run_until_state(SwitchState.WAITING, shown(made).change)
    made.node.reload()
    made.run()
    assert made.node.modes() == ["CPX/NPS4"]
    assert (shown(made).state, shown(made).reason) == (PENDING, Reason.MODE_NOT_AVAILABLE)


def test_killed_between_the_commit_of_the_switch_and_that_of_the_claim() -> None:
    made = desk("SPX/NPS1")
    claimed(made)
    change = shown(made).change
    made.run_until_state(SwitchState.VERIFYING, change)
    made.tell(made.result(made.asked.pop(0)), cut=2)
    assert made.ledger.state(change) is SwitchState.COMMITTED
    assert made.ledger.claims["m"].state is SWITCHING
    made.start()
    made.run()
    assert (shown(made).state, places(shown(made)), len(made.ledger.changes)) == (PLACED, at(0), 1)


def test_a_replica_that_needed_no_switch_moves_when_its_gpu_is_switched_meanwhile() -> None:
    made = desk("CPX/NPS1", "SPX/NPS1", "SPX/NPS1")
    wanted = spec(20, "CPX", replicas=9)
    claimed(made, wanted=wanted)
    made.run_until_state(SwitchState.SWITCHING, shown(made).change)
    paper = made.node.gpus[ADDRESSES[0]]
    paper.file = paper.compute = paper.compute.SPX
    made.node.generation += 1
    made.tell(fx.DriverChanged("gpu_reset", ADDRESSES[0]))
    made.run()
    assert shown(made).state is PLACED
    assert len(set(places(shown(made)))) == 9


# -- displaced -----------------------------------------------------------------------------------------------------


def test_a_mode_change_of_a_gpu_in_use_is_refused() -> None:
    made = placed()
    claimed(made, "other")
    answer = made.submit((0, "SPX"))
    assert isinstance(answer, PlanRefusedError)
    assert answer.code == "gpu_in_use"
    assert answer.message == f"GPU {ADDRESSES[0]} is in use by claims: m, other"
    assert "--drain" in answer.hint
    assert made.node.modes() == ["CPX/NPS1", "SPX/NPS1"]
    same = made.submit((0, "CPX"), name="c2")
    assert isinstance(same, ModeChange), "what it is in needs no switch"


def test_a_memory_mode_change_of_a_hive_in_use_is_refused() -> None:
    made = desk("CPX/NPS1", "SPX/NPS1", policy=NPS_POLICY)
    claimed(made)
    answer = made.submit((1, "NPS4"))
    assert isinstance(answer, PlanRefusedError)
    assert answer.code == "gpu_in_use"
    assert "in use by claims: m" in answer.message


def test_with_drain_claims_are_placed_again_the_largest_first() -> None:
    """gpu1 has room for one of 20 GB only: the 24 GB one on gpu0's partitions goes first, where it still fits."""
    made = desk("CPX/NPS1", "QPX/NPS1", policy=NEVER)
    for index in range(4):
        claimed(made, f"full-{index}", spec(24, at=(ADDRESSES[1], index)))
    claimed(made, "small", spec(10, at=None, preferred=(ADDRESSES[0], 0)))
    claimed(made, "large", spec(14, preferred=(ADDRESSES[0], 0)))
    claimed(made, "tiny", spec(1, preferred=(ADDRESSES[0], 1)))
    assert isinstance(made.submit((0, "SPX"), drain=True), ModeChange)
    made.run()
    told = [e.subject for e in made.ledger.events if e.kind == "claim_placed"][-3:]
    assert told == ["large", "small", "tiny"]
    assert [shown(made, name).state for name in ("small", "large", "tiny")] == [PLACED] * 3
    assert made.node.modes()[0] == "SPX/NPS1"


def test_with_drain_claims_move_in_the_snapshot_of_the_new_partitions() -> None:
    """The desk checks each snapshot: none shows the new partitions with the old places."""
    made = placed()
    made.submit((0, "QPX"), drain=True)
    made.run()
    claim = shown(made)
    assert claim.state is PLACED, "another GPU is switched for it"
    assert (places(claim), made.node.modes()) == (at(0, gpu=1), ["QPX/NPS1", "CPX/NPS1"])


def test_with_drain_a_failed_switch_leaves_the_claims() -> None:
    made = placed()
    before = shown(made)
    made.node.outcomes.append(errno.EINVAL)
    made.submit((0, "QPX"), drain=True)
    made.run()
    assert made.ledger.state("c1") is SwitchState.FAILED
    assert shown(made) == before


def test_a_rolled_back_switch_leaves_the_claims() -> None:
    made = placed()
    before = shown(made)
    made.node.outcomes.append("refused")
    made.submit((0, "QPX"), drain=True)
    made.run()
    assert made.ledger.state("c1") is SwitchState.FAILED
    assert shown(made) == before


def test_a_driver_reload_displaces_what_was_not_in_the_drivers_own_mode() -> None:
    made = placed()
    made.node.reload()
    made.tell(fx.DriverChanged("driver_reloaded", None))
    made.run()
    claim = shown(made)
    assert (claim.state, made.node.modes()) == (PLACED, ["CPX/NPS1", "SPX/NPS1"]), "switched again for it"
    assert kinds(made)[:2] == ["claim_placed", "claim_displaced"]
    assert kinds(made)[-1] == "claim_placed"


def test_while_there_is_no_driver_claims_wait() -> None:
    made = placed()
    made.tell(fx.Scanned(0, None, "there is no KFD topology", gone=True))
    claim = shown(made)
    assert (claim.state, claim.assignments) == (PENDING, ())
    assert isinstance(made.claim("other", CPX_20), RefusedError)
    made.tell(fx.DriverChanged("driver_reloaded", None))
    made.run()
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0))


def test_a_scan_that_fails_displaces_nobody() -> None:
    made = placed()
    before = shown(made)
    made.tell(fx.Scanned(0, None, "the topology kept moving"))
    assert shown(made) == before


def test_the_driver_goes_in_the_middle_of_a_switch_with_drain() -> None:
    made = placed()
    made.submit((0, "QPX"), drain=True)
    made.run_until_state(SwitchState.SWITCHING)
    made.tell(fx.Scanned(0, None, "there is no KFD topology", gone=True))
    assert shown(made).state is PENDING
    made.run()
    assert shown(made).state is PLACED


def test_a_lost_gpu() -> None:
    made = desk("CPX/NPS1", "CPX/NPS1")
    claimed(made, wanted=spec(20, "CPX", replicas=2, guarantee=16))
    claimed(made, "pinned", spec(20, "CPX", at=(ADDRESSES[0], 5)))
    made.node.gpus[ADDRESSES[0]].on_the_bus = False
    made.node.generation += 1
    made.poll()
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0, 1, gpu=1))
    assert shown(made, "pinned").state is PENDING
    assert shown(made, "pinned").reason is Reason.UNKNOWN_PARTITION
    made.node.gpus[ADDRESSES[0]].on_the_bus = True
    made.node.generation += 1
    made.poll()
    assert (shown(made, "pinned").state, places(shown(made, "pinned"))) == (PLACED, at(5))
    assert places(shown(made)) == at(0, 1, gpu=1), "who has a place stays there"


def test_a_gpu_that_somebody_else_has_switched() -> None:
    made = desk("CPX/NPS1", "CPX/NPS1")
    claimed(made, wanted=spec(20, replicas=2, guarantee=16))
    paper = made.node.gpus[ADDRESSES[0]]
    paper.file = paper.compute = paper.compute.SPX
    made.node.generation += 9
    made.poll()
    claim = shown(made)
    assert claim.state is PLACED
    assert [a.mode_epoch for a in claim.assignments] == [made.snapshot.gpus[1].mode_epoch] * 2
    assert places(claim) == at(0, 1, gpu=1), "best fit"


def test_a_gpu_is_switched_by_somebody_else_while_another_one_is_switched() -> None:
    """It is shown at once, and its claims move with it; the desk checks that no snapshot mixes the two."""
    made = desk("CPX/NPS1", "SPX/NPS1", policy=NEVER)
    claimed(made)
    made.submit((1, "QPX"))
    made.run_until_state(SwitchState.SWITCHING)
    paper = made.node.gpus[ADDRESSES[0]]
    paper.file = paper.compute = paper.compute.SPX
    made.node.generation += 1
    made.run()
    assert shown(made).state is PENDING
    assert made.node.modes() == ["SPX/NPS1", "QPX/NPS1"]


def test_a_reset_displaces_nobody() -> None:
    made = placed()
    before = shown(made)
    made.node.in_reset = True
    made.tell(fx.DriverChanged("gpu_reset", ADDRESSES[0]))
    made.run()
    assert shown(made) == before


def test_in_another_mode_during_a_reset() -> None:
    """During a reset no change of mode is adopted, and yet the partition is another one."""
    made = desk("CPX/NPS1", policy=NEVER)
    claimed(made)
    made.node.in_reset = True
    paper = made.node.gpus[ADDRESSES[0]]
    paper.file = paper.compute = paper.compute.SPX
    made.tell(fx.DriverChanged("gpu_reset", ADDRESSES[0]))
    made.run()
    assert shown(made).state is PENDING


def test_claims_stay_until_the_switch_of_their_gpu_has_ended() -> None:
    made = placed()
    before = shown(made)
    made.submit((0, "QPX"), drain=True)
    made.run_until_state(SwitchState.VERIFYING)
    assert shown(made) == before
    assert len(made.snapshot.gpus[0].gpu.partitions) == 8
    made.tell(fx.DriverChanged("gpu_reset", ADDRESSES[0]))
    made.answer(made.asked[-1])
    assert shown(made) == before


# -- restarts ------------------------------------------------------------------------------------------------------


@in_each_state
def test_a_restarted_daemon(state) -> None:
    made = STATES[state]()
    before = shown(made)
    made.start()
    made.run()
    after = shown(made)
    assert (after.spec, after.created_at, after.owner_uid) == (before.spec, before.created_at, before.owner_uid)
    assert after.state is (PENDING if state is PENDING else PLACED)
    if state is not PENDING:
        assert places(after) == at(0)


@in_each_state
def test_a_rebooted_machine(state) -> None:
    """Every GPU is in SPX then; a claim of a CPX partition gets its switch, without the pause after a failure."""
    made = STATES[state]()
    before = made.now
    made.node.reload()
    made.start(boot="boot-2")
    made.run()
    if state is PENDING:
        assert shown(made).state is PENDING
        return
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0))
    assert made.node.modes() == ["CPX/NPS1", "SPX/NPS1"]
    assert made.now - before < POLICY.wish_retry_seconds


def test_after_a_reboot_one_switch_follows_the_other() -> None:
    made = desk("CPX/NPS1", "QPX/NPS1", "DPX/NPS1")
    claimed(made, "small", spec(20, "CPX"))
    claimed(made, "middle", spec(40, "QPX"))
    claimed(made, "large", spec(90, "DPX"))
    before = made.now
    made.node.reload()
    made.start(boot="boot-2")
    made.run()
    assert sorted(made.node.modes()) == ["CPX/NPS1", "DPX/NPS1", "QPX/NPS1"]
    assert [shown(made, name).state for name in ("small", "middle", "large")] == [PLACED] * 3
    assert made.now - before < POLICY.wish_retry_seconds
    order = [e.subject for e in made.ledger.events if e.kind == "claim_placed"][3:]
    assert order == ["large", "middle", "small"]


def test_the_switch_of_a_claim_is_not_known_any_more() -> None:
    """As after damage to the ledger: the claim is kept and placed."""
    made = switching()
    made.ledger.changes.clear()
    made.node.holders.clear()
    made.start()
    made.run()
    assert shown(made).state is PLACED


def test_the_record_of_a_gpu_is_lost_and_the_partition_is_smaller_now() -> None:
    """The epoch starts again and happens to be the old one: the size tells that it is not the same partition."""
    made = desk("DPX/NPS1", policy=NEVER)
    claimed(made, wanted=spec(90))
    made.ledger.gpus.clear()
    paper = made.node.gpus[ADDRESSES[0]]
    paper.file = paper.compute = paper.compute.CPX
    made.start()
    made.run()
    assert shown(made).state is PENDING


def test_claims_keep_their_order() -> None:
    made = desk("CPX/NPS1")
    for name in ("c", "a", "b"):
        claimed(made, name)
    made.start()
    made.run()
    assert [claim.name for claim in made.snapshot.claims] == ["c", "a", "b"]


def test_notes_of_the_ledger_are_kept_with_claims() -> None:
    made = Desk(PaperNode("CPX/NPS1"))
    made.tell(fx.Started(LedgerState(boot_id="boot-1"), {}, ""))
    made.run()
    assert isinstance(claimed(made), Claim)


# -- pending claims ------------------------------------------------------------------------------------------------


def test_a_pending_claim_is_placed_when_room_is_given_back() -> None:
    made = desk("CPX/NPS1", "SPX/NPS1", policy=NEVER)
    claimed(made, wanted=spec(100))
    claimed(made, "second", spec(80))
    made.submit((1, "QPX"), drain=True)
    made.run()
    assert {shown(made, name).state for name in ("m", "second")} == {PENDING}
    assert shown(made).reason is Reason.MEMORY_TOO_LARGE
    assert made.submit((1, "SPX"), name="c2").name == "c2"
    made.run()
    assert {shown(made, name).state for name in ("m", "second")} == {PLACED}


def test_a_pending_claim_does_not_hold_what_it_could_not_get() -> None:
    made = pending()
    assert made.release("m").state is PENDING
    made.run()
    assert isinstance(made.claim("x", spec(90)), Claim)


def test_a_partial_claim_keeps_what_it_has() -> None:
    made = desk("CPX/NPS1", "CPX/NPS1", policy=NEVER)
    claimed(made, wanted=spec(20, "CPX", replicas=16))
    made.submit((1, "SPX"), drain=True)
    made.run()
    claim = shown(made)
    assert (claim.state, places(claim), claim.missing) == (PENDING, at(*range(8)), tuple(range(8, 16)))
    assert "8 x 20 GB" in claim.message
    made.submit((1, "CPX"), name="back")
    made.run()
    assert (shown(made).state, len(places(shown(made)))) == (PLACED, 16)


def test_the_message_of_a_pending_claim_follows_what_is_free() -> None:
    made = desk("CPX/NPS1", "DPX/NPS1", policy=NEVER)
    claimed(made, wanted=spec(60))
    claimed(made, "other", spec(50, at=(ADDRESSES[1], 1)))
    made.submit((1, "SPX"), drain=True)
    made.run()
    assert shown(made).state is PLACED
    assert shown(made, "other").reason is Reason.UNKNOWN_PARTITION


# -- draining ------------------------------------------------------------------------------------------------------


def test_a_draining_gpu_takes_nobody_and_keeps_who_is_there() -> None:
    made = desk("CPX/NPS1", "CPX/NPS1")
    claimed(made)
    assert made.drain(0) is None
    assert made.snapshot.gpus[0].draining
    assert shown(made).state is PLACED
    assert places(claimed(made, "other")) == at(0, gpu=1)
    events = len(made.ledger.events)
    made.drain(0)
    assert len(made.ledger.events) == events, "the same again changes nothing"
    answer = made.claim("pinned", spec(1, at=(ADDRESSES[0], 7)))
    assert isinstance(answer, RefusedError)
    assert answer.code == "gpu_draining"
    made.drain(1)
    assert made.claim("third", CPX_20).code == "gpu_draining"


def test_draining_survives_a_restart() -> None:
    made = placed()
    made.drain(0)
    made.start()
    made.run()
    assert made.snapshot.gpus[0].draining
    assert made.ledger.gpus[ADDRESSES[0]].draining


def test_a_displaced_claim_does_not_go_to_a_draining_gpu_and_undrain_lets_it_in() -> None:
    made = desk("CPX/NPS1", "CPX/NPS1", policy=NEVER)
    claimed(made)
    made.drain(1)
    made.submit((0, "SPX"), drain=True)
    made.run()
    assert (shown(made).state, shown(made).reason) == (PENDING, Reason.GPU_DRAINING)
    made.drain(1, draining=False)
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0, gpu=1))
    assert [e.kind for e in made.ledger.events if e.subject == ADDRESSES[1]] == ["gpu_draining", "gpu_undrained"]


def test_a_draining_gpu_is_not_switched_for_a_claim() -> None:
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.drain(0)
    claimed(made)
    made.run()
    assert made.node.modes() == ["SPX/NPS1", "CPX/NPS1"]


# -- wishes --------------------------------------------------------------------------------------------------------


def test_a_gpu_returns_to_its_wish_when_its_last_claim_has_left() -> None:
    made = desk("SPX/NPS1")
    made.change((0, "SPX"))
    claimed(made)
    made.run()
    claimed(made, "other")
    assert made.node.modes() == ["CPX/NPS1"]
    assert made.snapshot.gpus[0].drift == (), "a claim has set the wish aside"
    made.release("m")
    made.run()
    assert made.node.modes() == ["CPX/NPS1"]
    made.release("other")
    made.run()
    assert made.node.modes() == ["SPX/NPS1"]


def test_a_gpu_returns_to_its_wish_when_its_claim_went_elsewhere() -> None:
    """gpu0 is switched for the claim and lost for a moment; the claim lives on gpu1, and gpu0 is nobody's."""
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.change((0, "SPX"))
    claimed(made)
    made.run()
    made.node.gpus[ADDRESSES[0]].on_the_bus = False
    made.node.generation += 1
    made.poll()
    assert places(shown(made)) == at(0, gpu=1)
    made.node.gpus[ADDRESSES[0]].on_the_bus = True
    made.node.generation += 1
    made.pass_time(POLICY.wish_retry_seconds)
    made.poll()
    assert made.node.modes() == ["SPX/NPS1", "CPX/NPS1"]


def test_a_gpu_returns_to_its_wish_when_the_other_switch_of_a_claim_has_failed() -> None:
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.change((0, "SPX"))
    claimed(made, wanted=spec(20, "CPX", replicas=16))
    made.node.outcomes.extend(["done", errno.EINVAL])
    made.run()
    made.release("m")
    made.pass_time(POLICY.wish_retry_seconds)
    made.poll()
    assert made.node.modes() == ["SPX/NPS1", "SPX/NPS1"]


def test_a_wish_whose_gpu_leaves_it_while_its_change_runs() -> None:
    """It had the mode when the change was planned, and so has no step of it; found by random lives."""
    made = desk("SPX/NPS1", "CPX/NPS1")
    made.submit((1, "CPX"), (0, "DPX"))
    made.run_until_state(SwitchState.WAITING)
    made.node.reload()
    made.run()
    made.poll()
    assert made.node.modes() == ["DPX/NPS1", "CPX/NPS1"]


def test_two_changes_of_one_instant_have_names_of_their_own() -> None:
    """The memory mode is requested and parked, and in the same instant the others' wishes are pursued."""
    made = Desk(PaperNode("SPX/NPS1", "SPX/NPS1", "SPX/NPS1"), NPS_POLICY)
    made.start({"default": "QPX", "gpu1": "QPX/NPS4"}, "digest")
    made.run()
    assert any(change.current is not None for change in made.ledger.changes.values()), "the parked one is still known"
    assert all(status.pending_memory for status in made.snapshot.gpus)


def test_a_wish_waits_while_a_claim_is_there() -> None:
    made = desk("CPX/NPS1")
    claimed(made)
    made.start({"default": "SPX"}, "digest")
    made.run()
    assert made.node.modes() == ["CPX/NPS1"]
    made.release("m")
    made.run()
    assert made.node.modes() == ["SPX/NPS1"]


# -- policy --------------------------------------------------------------------------------------------------------


def test_never_switched_by_a_claim() -> None:
    made = desk("SPX/NPS1", policy=NEVER)
    answer = made.claim("m", CPX_20)
    assert isinstance(answer, AimdError)
    assert answer.code == "mode_not_available"
    assert "repartition = never" in answer.hint
    made.tell(fx.Reconfigured(POLICY, {}, "", "", {}))
    assert claimed(made).state is SWITCHING


def test_slots_of_the_configuration() -> None:
    made = desk("CPX/NPS1", policy=replace(POLICY, slots_per_partition=4))
    assert made.claim("m", spec(1, guarantee=5)).code == "guarantee_too_large"
    assert isinstance(made.claim("n", spec(1, guarantee=4, at=(None, 0))), Claim)
    assert made.claim("o", spec(1, guarantee=1, at=(None, 0))).code == "no_room"


def test_a_gpu_that_a_process_holds_is_not_switched_for_a_claim() -> None:
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.node.holders = [holder(7, 0)]
    made.poll()
    claimed(made)
    made.run()
    assert made.node.modes() == ["SPX/NPS1", "CPX/NPS1"]
