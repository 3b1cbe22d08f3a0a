"""Processes on claims: who becomes a holder, how their end is noticed, and what a drain waits for."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from aimd.domain.claim import Claim, ClaimState
from aimd.domain.ledger import HolderRecord
from aimd.domain.plan import Reason
from aimd.domain.process import Process
from aimd.domain.switch import ModeChange, SwitchState
from aimd.errors import ConflictError, NotFoundError, RefusedError
from aimd.planning import effects as fx
from aimd.planning.attribution import attributed
from aimd.protocol.convert_claims import claim_message
from tests.fakes.claims import places, spec
from tests.unit.planning.desk import POLICY, Desk, desk
from tests.unit.planning.paper import ADDRESSES, holder, mode

GRACE = POLICY.orphan_grace_seconds


def served(replicas: int = 1) -> Desk:
    """A node in CPX with the claim `m`."""
    made = desk("CPX/NPS1", "CPX/NPS1")
    assert isinstance(made.claim("m", spec(24, "CPX", replicas=replicas)), Claim)
    return made


def held(made: Desk, pid: int = 7, replica: int | None = None, name: str = "m", start_time: int = 1) -> HolderRecord:
    answer = made.join(name, pid, replica, start_time)
    assert isinstance(answer, HolderRecord), answer
    return answer


def refusal_hint(answer: fx.Answer) -> str:
    assert isinstance(answer, RefusedError), answer
    return answer.hint or ""


def refused(answer: fx.Answer, kind: type, code: str) -> str:
    assert isinstance(answer, kind), answer
    assert answer.code == code
    return answer.message


def events(made: Desk, kind: str) -> list[str]:
    return [event.message for event in made.ledger.events if event.kind == kind]


# -- becoming a holder ---------------------------------------------------------------------------------------------


def test_a_process_becomes_a_holder_and_is_watched() -> None:
    made = served()
    record = held(made)
    assert (record.claim, record.replica, record.pid, record.start_time) == ("m", 0, 7, 1)
    assert (record.command, record.memory_units) == ("python serve.py", 24 * 1024)
    assert record.place == (ADDRESSES[0], 0, made.ledger.gpus[ADDRESSES[0]].mode_epoch)
    assert made.snapshot.claim_holders == (record,)
    assert list(made.ledger.holders.values()) == [record]
    assert made.watched == [fx.WatchProcess(7, 1)]


def test_the_same_process_again_is_the_same_holder() -> None:
    made = served(2)
    record = held(made, replica=1)
    assert held(made) == record
    assert held(made, replica=1) == record
    assert len(made.ledger.holders) == 1


def test_each_process_gets_a_replica_that_nobody_holds() -> None:
    made = served(3)
    assert held(made, 10, 1).replica == 1
    assert [held(made, pid).replica for pid in (11, 12, 13)] == [0, 2, 0]
    made.end(12)
    assert held(made, 14).replica == 2


def test_several_processes_on_one_replica() -> None:
    made = served()
    assert [held(made, pid, 0).replica for pid in (1, 2)] == [0, 0]
    assert len(made.snapshot.claim_holders) == 2


def test_a_pid_that_was_used_before_is_another_process() -> None:
    made = served(2)
    held(made, 7, 0, start_time=1)
    assert held(made, 7, 1, start_time=2).replica == 1
    made.end(7, 1)
    assert [holder.start_time for holder in made.snapshot.claim_holders] == [2]


def test_who_holds_another_claim_or_replica() -> None:
    made = served(2)
    made.claim("n", spec(24, "CPX"))
    held(made, 7, 0)
    assert "pid 7 already holds m/0" in refused(made.join("n", 7), ConflictError, "already_holding")
    refused(made.join("m", 7, 1), ConflictError, "already_holding")


def test_what_does_not_exist() -> None:
    made = served(2)
    refused(made.join("x", 7), NotFoundError, "unknown_claim")
    for replica in (2, -1):
        words = refused(made.join("m", 7, replica), NotFoundError, "unknown_replica")
        assert f"has no replica {replica}, it has 0,1" in words
    assert made.ledger.holders == {}
    assert made.watched == []


def test_without_a_partition_nobody_can_begin() -> None:
    made = desk("SPX/NPS1")
    made.claim("m", spec(24, "CPX"))
    assert made.snapshot.claim("m").state is ClaimState.SWITCHING
    words = refused(made.join("m", 7), ConflictError, "not_placed")
    assert re.fullmatch(r"claim m has no partition now: mode change claim-m-[0-9.]+ makes room for it", words)
    made.run()
    assert held(made).replica == 0


def test_a_replica_without_a_place() -> None:
    made = desk("CPX/NPS1", "CPX/NPS1")
    made.claim("m", spec(24, "CPX", replicas=16))
    held(made, 99, 15)
    made.drain(1)
    made.node.gpus[ADDRESSES[1]].on_the_bus = False
    made.node.generation += 1
    made.poll()
    assert made.snapshot.claim("m").missing == tuple(range(8, 16))
    refused(made.join("m", 7, 12), ConflictError, "not_placed")
    refused(made.join("m", 99), ConflictError, "not_placed")
    assert held(made).replica == 0


def test_nobody_begins_on_a_gpu_that_is_switched() -> None:
    made = served()
    made.submit((0, "SPX"), drain=True)
    words = refused(made.join("m", 7), ConflictError, "not_placed")
    assert words.endswith("no partition now: its GPU is being switched")


# -- the end of a holder -------------------------------------------------------------------------------------------


def test_an_end_that_was_seen_frees_the_replica_at_once() -> None:
    made = served()
    held(made)
    made.end(7)
    assert (made.snapshot.claim_holders, made.ledger.holders) == ((), {})
    assert events(made, "orphan_found") == []
    assert made.snapshot.claim("m").state is ClaimState.PLACED, "claims last until they are released"


def test_the_end_of_a_stranger_is_nothing() -> None:
    made = served()
    held(made)
    before = made.snapshot
    made.end(8)
    made.end(7, 2)
    assert made.snapshot == before


def test_an_end_found_later_is_an_orphan_for_a_while() -> None:
    made = served()
    record = held(made)
    made.end(7, seen=False)
    (orphan,) = made.snapshot.claim_holders
    assert orphan == replace(record, ended_at=1_000_000 + made.now)
    assert made.ledger.holders[7, 1] == orphan
    assert events(made, "orphan_found") == ["pid 7 (python serve.py) on m/0 ended unseen"]
    made.end(7, seen=False)
    made.end(7)
    assert made.snapshot.claim_holders == (orphan,), "told once"
    made.pass_time(GRACE - 0.001)
    made.poll()
    assert made.snapshot.claim_holders == (orphan,)
    made.pass_time(0.001)
    made.poll()
    assert (made.snapshot.claim_holders, made.ledger.holders) == ((), {})
    assert events(made, "orphan_released") == ["pid 7 (python serve.py) on m/0 is released"]


def test_an_orphan_is_released_while_a_switch_runs() -> None:
    made = served()
    held(made)
    made.end(7, seen=False)
    made.submit((1, "SPX"))
    made.run_until_state(SwitchState.SWITCHING)
    made.pass_time(GRACE)
    made.tell(fx.PollDue())
    assert made.snapshot.claim_holders == ()


def test_released_with_its_holders() -> None:
    """Those that run are kept until they end, however that is found out; orphans are forgotten."""
    made = served()
    held(made, 7)
    held(made, 8)
    made.end(8, seen=False)
    made.release("m")
    assert [holder.pid for holder in made.snapshot.claim_holders] == [7]
    before = len(made.ledger.events)
    made.end(7, seen=False)
    made.end(8, seen=False)
    assert (made.snapshot.claim_holders, made.ledger.holders) == ((), {})
    made.pass_time(GRACE)
    made.poll()
    assert len(made.ledger.events) == before


def test_only_its_own_holders_are_released() -> None:
    made = served()
    made.claim("n", spec(24, "CPX"))
    held(made, 7)
    held(made, 8, name="n")
    made.end(7, seen=False)
    made.release("m")
    assert [holder.pid for holder in made.snapshot.claim_holders] == [8]


def test_a_process_that_outlives_its_claim_keeps_its_memory() -> None:
    made = served()
    place = places(made.snapshot.claim("m"))[0]
    held(made)
    made.release("m")
    assert events(made, "claim_released")[0].endswith("reserved until it ends: pid 7 (python serve.py) on m/0")
    refused(made.claim("n", spec(24, at=place)), RefusedError, "no_room")
    refused(made.claim("m", spec(24, at=place)), RefusedError, "no_room")
    made.start()
    made.run()
    assert made.watched == [fx.WatchProcess(7, 1)]
    refused(made.claim("n", spec(24, at=place)), RefusedError, "no_room")
    made.end(7)
    assert made.ledger.holders == {}
    assert isinstance(made.claim("n", spec(24, at=place)), Claim)


def test_a_process_that_outlives_its_claim_keeps_its_guaranteed_slots() -> None:
    made = desk("CPX/NPS1")
    place = (ADDRESSES[0], 3)
    made.claim("m", spec(12, at=place, guarantee=10))
    assert held(made).guarantee == 10
    made.release("m")
    made.start()
    made.run()
    answer = made.claim("n", spec(1, at=place, guarantee=7))
    assert refused(answer, RefusedError, "no_room").endswith(f"12 GB and 6 slots on partition {place[0]}/3")
    assert answer.hint.endswith(
        f"kept until they end: pid 7 (python serve.py) of the former m/0 on {place[0]}/3 (12 GB, 10 slots)"
    )
    assert isinstance(made.claim("o", spec(1, at=place, guarantee=6)), Claim)
    made.release("o")
    made.end(7)
    assert isinstance(made.claim("n", spec(1, at=place, guarantee=7)), Claim)


def test_two_processes_of_a_replica_keep_its_memory_once() -> None:
    made = desk("CPX/NPS1")
    made.claim("m", spec(12, at=(ADDRESSES[0], 0)))
    held(made, 7, 0)
    held(made, 8, 0)
    made.release("m")
    assert isinstance(made.claim("m", spec(12, at=(ADDRESSES[0], 0))), Claim)
    refused(made.claim("n", spec(1, at=(ADDRESSES[0], 0))), RefusedError, "no_room")
    assert held(made, 9, 0).released_at is None, "the new claim has room for both"
    refused(made.claim("n", spec(1, at=(ADDRESSES[0], 0))), RefusedError, "no_room")


def test_a_gpu_with_a_process_of_a_released_claim_is_not_switched() -> None:
    made = desk("CPX/NPS1")
    made.claim("m", spec(24, "CPX"))
    held(made)
    made.release("m")
    words = refused(made.claim("n", spec(24, "SPX")), RefusedError, "gpu_busy")
    assert words.endswith(
        f"GPU {ADDRESSES[0]}, which would have to be switched for it and is held by "
        "pid 7 (python serve.py) of the former m/0"
    )
    made.submit((0, "SPX"), wait=1.0)
    made.run()
    assert made.ledger.changes["c1"].switches[0].reason is Reason.GPU_BUSY


def test_after_a_reboot_nothing_is_kept_for_a_released_claim() -> None:
    made = served()
    held(made)
    made.release("m")
    made.start(boot="boot-2")
    made.run()
    assert made.ledger.holders == {}


def test_a_process_of_a_released_claim_may_join_another() -> None:
    made = served()
    held(made)
    made.release("m")
    made.claim("n", spec(24, "CPX"))
    assert (held(made, name="n").claim, len(made.ledger.holders)) == ("n", 1)


def test_a_holder_stays_where_it_joined() -> None:
    """Its claim is placed elsewhere: the process blocks the GPU that it runs on, not the new one."""
    made = served()
    held(made)
    paper = made.node.gpus[ADDRESSES[0]]
    paper.file = paper.compute = paper.compute.SPX
    made.node.generation += 9
    made.poll()
    assert places(made.snapshot.claim("m")) == [(ADDRESSES[1], 0)]
    made.submit((1, "SPX"), name="c1", drain=True, wait=1.0)
    made.run()
    assert made.ledger.state("c1") is SwitchState.COMMITTED
    made.submit((0, "DPX"), name="c2", drain=True, wait=1.0)
    made.run()
    assert made.ledger.changes["c2"].switches[0].reason is Reason.GPU_BUSY


# -- processes that outlive their holder ---------------------------------------------------------------------------

LEFT = (Process(70, 2, "worker a"), Process(71, 3, "worker b"))


def test_what_is_left_of_a_holder_is_named_in_its_place() -> None:
    made = served()
    place = places(made.snapshot.claim("m"))[0]
    held(made)
    made.end(7, left=LEFT)
    assert made.watched == [fx.WatchProcess(7, 1), fx.WatchProcess(7, 1, LEFT)]
    told = [(each.pid, each.command) for each in claim_message(made.snapshot.claim("m"), made.snapshot).holders]
    assert told == [(70, "worker a"), (71, "worker b")]
    planned = made.reconciler.plan(((ADDRESSES[0], mode("SPX")),), drain=True)
    assert [each.holder.pid for each in planned.blockers] == [70, 71]
    made.submit((0, "SPX"), drain=True, wait=1.0)
    made.run()
    busy = made.ledger.changes["c1"].switches[0].message or ""
    assert "pid 70 (worker a), pid 71 (worker b)" in busy
    assert "pid 7 " not in busy
    made.release("m")
    assert events(made, "claim_released")[0].endswith(
        "reserved until it ends: pid 70 (worker a) and pid 71 (worker b) on m/0"
    )
    hint = refusal_hint(made.claim("n", spec(24, at=place)))
    assert "pid 70 (worker a) and pid 71 (worker b) of the former m/0" in hint
    made.end(7, left=LEFT[1:])
    assert made.watched[-1] == fx.WatchProcess(7, 1, LEFT[1:])
    hint = refusal_hint(made.claim("n", spec(24, at=place)))
    assert "pid 71 (worker b) of the former m/0" in hint
    assert "pid 70" not in hint
    made.end(7)
    assert made.ledger.holders == {}


def test_a_restarted_daemon_names_what_was_left_and_asks_anew() -> None:
    made = served()
    held(made)
    made.end(7, left=LEFT)
    made.start()
    assert made.watched == [fx.WatchProcess(7, 1)], "what was left then may be over: nothing of it counts as known"
    made.run()
    assert made.snapshot.claim_holders[0].living == LEFT
    made.end(7, seen=False)
    orphan = made.snapshot.claim_holders[0]
    assert (orphan.ended_at is None, orphan.survivors) == (False, ())
    assert events(made, "orphan_found") == ["pid 7 (python serve.py) on m/0 ended unseen"]


def test_memory_of_what_is_left_is_the_claims_use() -> None:
    """Though its environment does not tell whose it is."""
    made = served()
    held(made)
    made.end(7, left=LEFT)
    client = replace(holder(70, 0), vram=((ADDRESSES[0], 0, 5 << 30),))
    assert attributed([client], made.reconciler._desk.holders)[70].claim == "m"


# -- restarts ------------------------------------------------------------------------------------------------------


def test_a_restarted_daemon_watches_them_again() -> None:
    made = served()
    held(made, 7)
    held(made, 8)
    made.end(8, seen=False)
    made.start()
    assert made.watched == [fx.WatchProcess(7, 1)], "the orphan is known to be dead"
    made.run()
    assert [(holder.pid, holder.ended_at is None) for holder in made.snapshot.claim_holders] == [(7, True), (8, False)]
    made.end(7, seen=False)
    made.pass_time(GRACE)
    made.poll()
    assert made.snapshot.claim_holders == ()
    assert len(events(made, "orphan_found")) == 2


def test_after_a_reboot_nobody_lives() -> None:
    """A pid and start time may happen to be somebody else's now: nobody is looked for."""
    made = served()
    held(made)
    made.start(boot="boot-2")
    assert made.watched == []
    made.run()
    assert events(made, "orphan_found") == ["pid 7 (python serve.py) on m/0 ended unseen"]
    made.pass_time(GRACE)
    made.poll()
    assert made.ledger.holders == {}


def test_a_holder_whose_claim_is_lost() -> None:
    """As after damage to the ledger: nobody could ever release it."""
    made = served()
    held(made)
    made.ledger.claims.clear()
    made.start()
    made.run()
    assert (made.snapshot.claim_holders, made.ledger.holders, made.watched) == ((), {}, [])


# -- drains --------------------------------------------------------------------------------------------------------


def test_a_drain_waits_for_registered_holders() -> None:
    made = served()
    held(made)
    made.submit((0, "SPX"), drain=True, wait=5.0)
    made.run_until_state(SwitchState.WAITING)
    for _ in range(6):
        made.answer(made.asked[0])
    change = made.snapshot.change("c1")
    assert change.state is SwitchState.WAITING
    assert made.node.modes()[0] == "CPX/NPS1"
    made.end(7)
    made.run()
    assert made.ledger.state("c1") is SwitchState.COMMITTED
    assert made.node.modes()[0] == "SPX/NPS1"
    assert places(made.snapshot.claim("m")) == [(ADDRESSES[1], 0)]


def test_a_drain_ends_at_its_deadline_and_names_the_holders() -> None:
    made = served()
    held(made)
    before = made.snapshot.claim("m")
    change = made.submit((0, "SPX"), drain=True, wait=1.0)
    assert isinstance(change, ModeChange)
    made.run()
    (switch,) = made.ledger.changes["c1"].switches
    assert (switch.state, switch.reason) == (SwitchState.FAILED, Reason.GPU_BUSY)
    assert switch.message == f"GPU {ADDRESSES[0]} is in use by pid 7 (python serve.py)"
    assert made.snapshot.claim("m") == before
    assert made.node.modes()[0] == "CPX/NPS1"
    assert held(made).pid == 7, "it is a holder still"
    assert isinstance(made.claim("n", spec(24, at=(ADDRESSES[0], 1))), Claim), "and the GPU takes claims again"


def test_a_drain_does_not_wait_for_holders_on_other_gpus() -> None:
    made = served()
    made.claim("n", spec(24, at=(ADDRESSES[1], 0)))
    held(made, name="n")
    made.submit((0, "SPX"), drain=True, wait=1.0)
    made.run()
    assert made.ledger.state("c1") is SwitchState.COMMITTED


def test_a_drain_does_not_wait_for_the_dead() -> None:
    made = served()
    held(made)
    made.end(7, seen=False)
    made.submit((0, "SPX"), drain=True, wait=1.0)
    made.run()
    assert made.ledger.state("c1") is SwitchState.COMMITTED


def test_a_holder_that_is_a_client_of_the_driver_is_named_once() -> None:
    made = served()
    held(made)
    made.node.holders = [holder(7, 0, 1)]
    made.submit((0, "SPX"), drain=True, wait=1.0)
    made.run()
    assert made.ledger.changes["c1"].switches[0].message.count("pid 7") == 1


@pytest.mark.parametrize("drain", [False, True])
def test_the_second_gpu_of_a_drain_is_waited_for_when_its_turn_comes(drain: bool) -> None:
    made = served()
    made.claim("n", spec(24, at=(ADDRESSES[1], 0)))
    held(made, name="n")
    answer = made.submit((0, "SPX"), (1, "SPX"), drain=drain, wait=1.0)
    if not drain:
        refused(answer, Exception, "gpu_in_use")
        return
    made.run()
    states = [switch.state for switch in made.ledger.changes["c1"].switches]
    assert states == [SwitchState.COMMITTED, SwitchState.FAILED]
    assert made.node.modes() == ["SPX/NPS1", "CPX/NPS1"]
    assert places(made.snapshot.claim("m")) == [(ADDRESSES[1], 1)]
