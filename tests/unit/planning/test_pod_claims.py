"""Claims that pods make, at a desk: what is seen of pods is followed, twice, after restarts, and when they go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimd.domain.claim import Claim, ClaimSpec, ClaimState, PodReplica, PodRequest, QosClass
from aimd.domain.ledger import HolderRecord
from aimd.domain.pod import PodRef
from aimd.errors import ConflictError
from aimd.planning import effects as fx
from aimd.planning.pod_claims import follow
from aimd.planning.serving import served_partitions
from tests.fakes.claims import places, spec
from tests.unit.planning.desk import POLICY, Desk, desk
from tests.unit.planning.paper import ADDRESSES, holder

MODEL = "default/llama"
SLOTS = 16


def pod(number: int) -> PodRef:
    return PodRef("default", f"llama-{number}", f"uid-{number}")


def request(number: int, asked: ClaimSpec | None = None, model: str = MODEL, created: str = "") -> PodRequest:
    return PodRequest(pod(number), model, asked or spec(8, "CPX"), created or f"2026-01-01T00:00:{number:02}Z")


def see(made: Desk, *requests: PodRequest) -> None:
    made.tell(fx.PodsSeen(requests))
    made.run()


def claim(made: Desk, name: str = MODEL) -> Claim:
    return made.ledger.claims[name]


def kinds(made: Desk) -> list[str]:
    return [event.kind for event in made.ledger.events if event.kind.startswith("claim_")]


def test_pods_of_a_model_are_replicas_of_one_claim() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1), request(2))
    found = claim(made)
    assert (found.state, len(found.assignments), found.spec.replicas) == (ClaimState.PLACED, 2, 2)
    assert found.pods == tuple(PodReplica(number, pod(number + 1), spec(8, "CPX")) for number in (0, 1))
    assert kinds(made) == ["claim_requested", "claim_placed"]


def test_seen_again_it_is_the_same() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1), request(2))
    before, told = claim(made), len(made.ledger.events)
    see(made, request(2), request(1))
    assert (claim(made), len(made.ledger.events)) == (before, told)


def test_a_pod_that_goes_gives_up_its_own_replica() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1), request(2, spec(8, "CPX")), request(3))
    kept = {a.replica: a for a in claim(made).assignments}
    see(made, request(1), request(3))
    assert claim(made).assignments == (kept[0], kept[2])
    assert claim(made).numbers == (0, 2)
    assert claim(made).state is ClaimState.PLACED
    see(made, request(1), request(3), request(4))
    assert [(one.replica, one.pod) for one in claim(made).pods] == [(0, pod(1)), (1, pod(4)), (2, pod(3))]


def test_a_pod_of_the_same_name_is_another_one() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1))
    again = replace(request(1), pod=replace(pod(1), uid="another"))
    see(made, again)
    assert [one.pod.uid for one in claim(made).pods] == ["another"]


def test_with_its_last_pod_the_claim_ends() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1), request(7, model="default/other"))
    see(made, request(7, model="default/other"))
    assert set(made.ledger.claims) == {"default/other"}
    assert kinds(made)[-1] == "claim_released"


def test_it_is_the_same_after_a_restart() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1), request(2))
    before = claim(made)
    made.start()
    made.run()
    see(made, request(1), request(2))
    assert claim(made) == before
    made.start()
    made.run()
    see(made, request(2))
    assert claim(made).assignments == before.assignments[1:]


def test_what_does_not_fit_waits_and_is_placed_when_there_is_room() -> None:
    made = desk("SPX/NPS1", policy=replace(POLICY, repartition=False))
    see(made, request(1, spec(190)), request(2, spec(190)))
    assert (claim(made).state, len(claim(made).assignments)) == (ClaimState.PENDING, 1)
    assert claim(made).message
    see(made, request(2, spec(190)))
    assert (claim(made).state, claim(made).numbers) == (ClaimState.PLACED, (1,))


def test_nobody_sees_a_pod_waiting_that_has_room() -> None:
    made = desk("CPX/NPS1")
    made.effects.clear()
    see(made, request(1))
    shown = [effect.snapshot for effect in made.effects if isinstance(effect, fx.Publish)]
    assert [one.state for snapshot in shown for one in snapshot.claims] == [ClaimState.PLACED] * len(shown)


def test_a_pod_is_placed_beside_a_mode_change_of_another_gpu() -> None:
    made = desk("CPX/NPS1", "SPX/NPS1")
    made.node.holders.append(holder(7, 1))
    made.poll()
    made.submit((1, "CPX"))
    made.run(lambda: made.ledger.changes["c1"].state == "waiting_for_clients")
    made.tell(fx.PodsSeen((request(1, spec(8, "CPX")), request(2, spec(8, "QPX"), model="default/other"))))
    assert claim(made).state is ClaimState.PLACED
    assert claim(made, "default/other").state is ClaimState.PENDING


def test_an_idle_gpu_is_switched_for_a_pod() -> None:
    made = desk("SPX/NPS1")
    see(made, request(1, spec(8, "CPX")))
    assert claim(made).state is ClaimState.PLACED
    assert [change.origin for change in made.ledger.changes.values()] == ["claim"]


def test_of_more_pods_than_a_switched_gpu_holds_the_others_wait() -> None:
    made = desk("SPX/NPS1")
    see(made, *(request(number, spec(24, "CPX")) for number in range(9)))
    assert (claim(made).state, len(claim(made).assignments)) == (ClaimState.PENDING, 8)


def test_processes_that_go_on_keep_what_their_pod_had() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1, spec(24, "CPX")), request(2, spec(24, "CPX")))
    joined = made.join(MODEL, 7, 1)
    assert isinstance(joined, HolderRecord)
    place = claim(made).assignments[1].place
    see(made, request(1, spec(24, "CPX")))
    (left,) = made.ledger.holders.values()
    assert left.released_at is not None
    wanted = [request(number, spec(24, "CPX")) for number in range(10, 17)]
    see(made, request(1, spec(24, "CPX")), *wanted)
    assert place not in places(claim(made))
    assert len(claim(made).assignments) == 7, "one of eight partitions is still taken"
    made.end(7)
    made.poll()
    assert place in places(claim(made))


def test_a_holder_stays_one_when_its_pod_s_service_asks_for_another_class() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1))
    made.join(MODEL, 7, 0)
    see(made, request(1, replace(spec(8, "CPX"), qos=QosClass.HIGH)))
    assert claim(made).spec.qos is QosClass.HIGH
    assert [record.released_at for record in made.ledger.holders.values()] == [None]


def test_a_pod_in_its_place_is_not_touched_by_the_mode_change_for_another() -> None:
    made = desk("CPX/NPS1", "SPX/NPS1")
    see(made, request(1))
    made.tell(fx.PodsSeen((request(1), request(2, spec(8, "QPX")))))
    assert claim(made).state is ClaimState.SWITCHING
    first, second = claim(made).assignments
    assert [made.snapshot.in_place(claim(made), one) for one in (first, second)] == [True, False]
    assert isinstance(made.join(MODEL, 7, 0), HolderRecord)
    assert isinstance(made.join(MODEL, 8, 1), ConflictError)
    made.run()
    assert all(made.snapshot.in_place(claim(made), one) for one in claim(made).assignments)
    assert isinstance(made.join(MODEL, 8, 1), HolderRecord)


def test_after_a_restart_nobody_joins_what_a_mode_change_is_still_to_bring() -> None:
    made = desk("CPX/NPS1", "SPX/NPS1")
    see(made, request(1))
    made.tell(fx.PodsSeen((request(1), request(2, spec(8, "QPX")))))
    made.start()
    assert isinstance(made.join(MODEL, 8, 1), ConflictError)
    assert isinstance(made.join(MODEL, 7, 0), HolderRecord)


def test_the_holder_of_another_replica_stays_one() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1), request(2))
    made.join(MODEL, 7, 0)
    see(made, request(1))
    assert [record.released_at for record in made.ledger.holders.values()] == [None]


def test_no_operator_releases_what_pods_claim() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1))
    answer = made.release(MODEL)
    assert isinstance(answer, ConflictError)
    assert (answer.code, "default/llama-1" in answer.message) == ("claim_of_pods", True)
    assert claim(made).state is ClaimState.PLACED


def test_the_name_of_a_claim_that_was_made_here_is_not_taken_away() -> None:
    made = desk("CPX/NPS1")
    made.claim(MODEL, spec(4, "CPX"))
    before = claim(made)
    see(made, request(1))
    assert claim(made) == before
    see(made)
    assert claim(made) == before


# -- what takes effect at once --------------------------------------------------------------------------------------


def test_class_limit_and_weight_of_the_newest_pod_count_at_once_memory_does_not() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1))
    newer = replace(spec(16, "CPX"), qos=QosClass.HIGH, limit=3, weight=7)
    see(made, request(1), request(2, newer))
    assert [a.memory_units for a in claim(made).assignments] == [8 * 1024, 16 * 1024]
    (model, *_) = [one for place in served_partitions(made.snapshot) for one in place.models]
    assert (model.qos, model.weight) == (QosClass.HIGH, 7)


def test_memory_and_place_are_each_pods_own_also_when_they_are_seen_together() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1, spec(8, at=(ADDRESSES[0], 5))), request(2, spec(16, at=(ADDRESSES[0], 6))))
    assert [(a.index, a.memory_units) for a in claim(made).assignments] == [(5, 8 * 1024), (6, 16 * 1024)]


def test_one_that_fits_does_not_wait_for_one_that_does_not() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1, spec(25, "CPX")), request(2, spec(8, "CPX")))
    assert [a.replica for a in claim(made).assignments] == [1]
    assert claim(made).state is ClaimState.PENDING
    assert "25" in (claim(made).message or "")


def test_the_newest_counts_in_whatever_order_they_are_seen() -> None:
    old, new = request(2, replace(spec(8), weight=2), created="1"), request(1, replace(spec(8), weight=3), created="2")
    for order in ((old, new), (new, old)):
        assert follow({}, order, 0.0, SLOTS).claims[0].spec.weight == 3


def test_a_guarantee_is_raised_where_there_are_slots_for_it() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1, spec(8, "CPX", guarantee=2)))
    see(made, request(1, spec(8, "CPX", guarantee=16)))
    assert [a.guarantee for a in claim(made).assignments] == [16]
    assert [one.guarantee for place in served_partitions(made.snapshot) for one in place.models] == [16]


def test_a_guarantee_that_the_partition_has_no_slots_for_waits_for_them() -> None:
    made = desk("CPX/NPS1")
    here = (ADDRESSES[0], 0)
    other = request(9, spec(4, "CPX", at=here, guarantee=10), model="default/other")
    mine = spec(4, "CPX", at=here, guarantee=4)
    see(made, other, request(1, mine))
    see(made, other, request(1, replace(mine, guarantee=7)))
    assert [a.guarantee for a in claim(made).assignments] == [4], "17 of 16 slots"
    assert sum(one.guarantee for place in served_partitions(made.snapshot) for one in place.models) == 14
    see(made, request(1, replace(mine, guarantee=7)))
    assert [a.guarantee for a in claim(made).assignments] == [7]


def test_a_guarantee_can_always_be_lowered() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1, spec(8, "CPX", guarantee=16)))
    see(made, request(1, spec(8, "CPX", guarantee=1)))
    assert [a.guarantee for a in claim(made).assignments] == [1]


# -- whatever is seen -----------------------------------------------------------------------------------------------

seen = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["a", "b"]), st.sampled_from([4, 12, 24])), max_size=6),
    max_size=8,
)


@pytest.mark.parametrize("mode", ["CPX/NPS1", "SPX/NPS1"])
@given(sequence=seen)
def test_every_pod_that_asks_has_one_replica_and_no_other_has(
    mode: str, sequence: list[list[tuple[int, str, int]]]
) -> None:
    made = desk(mode, mode)
    for looks in sequence:
        asked = {number: request(number, spec(gb), model=model) for number, model, gb in looks}
        see(made, *asked.values())
        have = [(one.pod, each.name) for each in made.ledger.claims.values() for one in each.pods]
        assert sorted(have) == sorted((one.pod, one.model) for one in asked.values())
        for each in made.ledger.claims.values():
            assert len(set(each.numbers)) == len(each.pods)
            assert set(each.missing) == set(each.numbers) - {a.replica for a in each.assignments}
            assert (each.state is ClaimState.PLACED) == (not each.missing)


def test_a_drain_waits_for_the_processes_of_pods() -> None:
    made = desk("CPX/NPS1")
    see(made, request(1))
    made.join(MODEL, 7)
    made.node.holders.append(holder(7, 0))
    assert [one.pid for one in made.reconciler._desk.holders_on(ADDRESSES[0])] == [7]
