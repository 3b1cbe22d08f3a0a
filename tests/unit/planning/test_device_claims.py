"""ResourceClaims at a desk: what the scheduler has allocated is reserved there, switched for, kept and given back."""

from __future__ import annotations

from dataclasses import replace

from aimd.domain.claim import Claim, ClaimState, DeviceShare, PartitionRef, PodRequest
from aimd.domain.modes import ComputeMode, PartitionMode
from aimd.domain.pod import PodRef
from aimd.errors import ConflictError
from aimd.planning import effects as fx
from tests.fakes.claims import spec
from tests.unit.planning.desk import Desk, desk
from tests.unit.planning.paper import ADDRESSES, holder

MODEL = "default/llama"


def pod(number: int) -> PodRef:
    return PodRef("default", f"llama-{number}", f"uid-{number}")


def share(number: int, mode: str, index: int, units: int = 8, *, prepared: bool = True) -> PodRequest:
    """A ResourceClaim of one pod that has so many GB of a partition of the first GPU."""
    asked = replace(
        spec(units), mode=PartitionMode(ComputeMode(mode)), partition=PartitionRef(index, ADDRESSES[0]), guarantee=2
    )
    name = f"gpu0-{mode.lower()}-{index}"
    device = DeviceShare(f"claim-{number}", f"claim-uid-{number}", "gpu", name, f"share-{number}", prepared)
    return PodRequest(pod(number), MODEL, asked, f"2026-01-01T00:00:{number:02}Z", device)


def take(made: Desk, *requests: PodRequest) -> object:
    assert requests[0].device is not None
    made.replies.pop(1, None)
    made.tell(fx.DevicesTaken(1, requests[0].device.uid, requests))
    made.run()
    return made.replies[1]


def leave(made: Desk, number: int) -> None:
    made.replies.pop(1, None)
    made.tell(fx.DevicesLeft(1, f"claim-uid-{number}"))
    made.run()
    assert made.replies[1] is None


def claim(made: Desk) -> Claim:
    return made.ledger.claims[MODEL]


def places(made: Desk) -> dict[str, int]:
    """Index of each pod's partition."""
    by_number = {a.replica: a.index for a in claim(made).assignments}
    return {one.pod.name: by_number[one.replica] for one in claim(made).pods if one.replica in by_number}


def test_it_is_placed_where_the_scheduler_says() -> None:
    made = desk("CPX/NPS1")
    answer = take(made, share(1, "CPX", 5))
    assert isinstance(answer, Claim)
    take(made, share(2, "CPX", 5))
    assert places(made) == {"llama-1": 5, "llama-2": 5}
    assert [(a.memory_units, a.guarantee) for a in claim(made).assignments] == [(8 * 1024, 2)] * 2


def test_it_is_taken_once_however_often_the_kubelet_asks() -> None:
    made = desk("CPX/NPS1")
    take(made, share(1, "CPX", 5, prepared=False))
    take(made, share(1, "CPX", 5))
    before = claim(made)
    take(made, share(1, "CPX", 5))
    assert claim(made) == before
    assert len(before.pods) == 1
    assert before.pods[0].device is not None
    assert before.pods[0].device.prepared


def test_an_idle_gpu_is_switched_for_it() -> None:
    made = desk("CPX/NPS1")
    take(made, share(1, "SPX", 0, 100))
    assert claim(made).state is ClaimState.PLACED
    assert made.snapshot.gpus[0].gpu.compute_mode is ComputeMode.SPX


def test_one_that_needs_a_gpu_that_is_held_waits_with_the_reason_and_is_placed_when_it_is_free() -> None:
    made = desk("CPX/NPS1")
    made.node.holders.append(holder(7, 0))
    made.poll()
    take(made, share(1, "SPX", 0, 100))
    assert claim(made).state is not ClaimState.PLACED
    made.node.holders.clear()
    made.poll()
    made.pass_time(60)
    made.poll()
    assert claim(made).state is ClaimState.PLACED


def test_pods_that_are_seen_do_not_touch_it() -> None:
    made = desk("CPX/NPS1")
    take(made, share(1, "CPX", 5))
    before = claim(made)
    made.tell(fx.PodsSeen(()))
    assert claim(made) == before
    made.tell(fx.PodsSeen((PodRequest(pod(1), MODEL, spec(24)),)))
    assert claim(made) == before, "its pod's annotations place nothing"


def test_a_pod_that_was_placed_by_annotations_moves_to_its_device() -> None:
    made = desk("CPX/NPS1")
    made.tell(fx.PodsSeen((PodRequest(pod(1), MODEL, spec(24)),)))
    take(made, share(1, "CPX", 5))
    assert places(made) == {"llama-1": 5}
    assert len(claim(made).assignments) == 1


def test_beside_it_pods_are_replicas_of_the_same_model() -> None:
    made = desk("CPX/NPS1")
    take(made, share(1, "CPX", 5))
    made.tell(fx.PodsSeen((PodRequest(pod(2), MODEL, spec(8)),)))
    assert set(places(made)) == {"llama-1", "llama-2"}
    made.tell(fx.PodsSeen(()))
    assert places(made) == {"llama-1": 5}


def test_it_is_given_back_once_and_again() -> None:
    made = desk("CPX/NPS1")
    take(made, share(1, "CPX", 5))
    take(made, share(2, "CPX", 6))
    leave(made, 1)
    assert places(made) == {"llama-2": 6}
    leave(made, 1)
    leave(made, 2)
    assert MODEL not in made.ledger.claims
    leave(made, 2)


def test_it_is_the_same_after_a_restart() -> None:
    made = desk("CPX/NPS1")
    take(made, share(1, "CPX", 5))
    before = claim(made)
    made.start()
    made.run()
    made.tell(fx.PodsSeen(()))
    assert claim(made) == before
    leave(made, 1)
    assert MODEL not in made.ledger.claims


def test_pods_that_share_a_resource_claim_share_its_replica() -> None:
    made = desk("CPX/NPS1")
    shared = share(1, "CPX", 5)
    assert shared.device is not None
    take(made, shared)
    take(made, replace(shared, device=replace(shared.device, also=("uid-2",))))
    assert [claim(made).replica_of(uid) for uid in ("uid-1", "uid-2", "uid-3")] == [0, 0, None]
    take(made, replace(shared, pod=pod(2)))
    assert [claim(made).replica_of(uid) for uid in ("uid-1", "uid-2")] == [None, 0]
    assert len(claim(made).assignments) == 1


def test_two_requests_of_one_claim_are_two_replicas() -> None:
    made = desk("CPX/NPS1")
    one, other = share(1, "CPX", 5), share(1, "CPX", 6)
    assert other.device is not None
    take(made, one, replace(other, device=replace(other.device, request="second")))
    assert sorted(a.index for a in claim(made).assignments) == [5, 6]
    leave(made, 1)
    assert MODEL not in made.ledger.claims


def test_what_the_kubelet_has_asked_for_is_its_own_to_give_back() -> None:
    """Who follows pods that wait has looked a moment before."""
    made = desk("CPX/NPS1")
    take(made, share(1, "CPX", 5))
    before = claim(made)
    take(made, share(1, "CPX", 6, prepared=False))
    assert claim(made) == before
    made.replies.clear()
    made.tell(fx.DevicesLeft(1, "claim-uid-1", waiting=True))
    assert claim(made) == before
    leave(made, 1)
    assert MODEL not in made.ledger.claims
    take(made, share(1, "CPX", 6, prepared=False))
    made.replies.clear()
    made.tell(fx.DevicesLeft(1, "claim-uid-1", waiting=True))
    assert MODEL not in made.ledger.claims


def test_its_guarantee_is_the_scheduler_s_whatever_its_model_asks_now() -> None:
    made = desk("CPX/NPS1")
    take(made, share(1, "CPX", 5))
    made.tell(fx.PodsSeen((PodRequest(pod(2), MODEL, replace(spec(8), guarantee=5), "2027"),)))
    guarantees = {a.replica: a.guarantee for a in claim(made).assignments}
    assert guarantees == {0: 2, 1: 5}
    take(made, share(3, "CPX", 5))
    assert {a.replica: a.guarantee for a in claim(made).assignments} == {0: 2, 1: 5, 2: 2}


def test_beside_a_claim_of_the_same_name_it_is_refused() -> None:
    made = desk("CPX/NPS1")
    made.claim(MODEL, spec(8))
    refused = take(made, share(1, "CPX", 5))
    assert isinstance(refused, ConflictError)
    assert refused.code == "name_taken"
