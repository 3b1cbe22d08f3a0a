"""Who may use which model where: rights, rules, and the choice of a partition."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aimd.domain.claim import Assignment, Claim, ClaimSpec, ClaimState, PodReplica, QosClass
from aimd.domain.gpu import Gpu, Partition
from aimd.domain.ledger import HolderRecord
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.domain.partition import PartitionKey
from aimd.domain.pod import PodRef
from aimd.domain.serving import Caller, Rule, ServedPartition
from aimd.planning.access import Admission, Denial, admit
from aimd.planning.serving import served_partitions

GPU0, GPU1 = "0000:05:00.0", "0000:27:00.0"
OWNER, STRANGER, OPERATOR = 1000, 2000, 0
POD = "0a1b2c3d-0a1b-4c1d-8e9f-001122334455"


def gpu(address: str, count: int) -> Gpu:
    return Gpu(address, 0x74A1, tuple(Partition(index, None, None, 1 << 34) for index in range(count)))


def claim(name: str, *places: tuple[str, int], qos: QosClass = QosClass.MEDIUM, **fields: object) -> Claim:
    spec = ClaimSpec(1024, qos=qos, replicas=max(1, len(places)), **fields)
    assignments = tuple(
        Assignment(name, number, address, index, 1024, spec.guarantee, 1)
        for number, (address, index) in enumerate(places)
    )
    state = ClaimState.PLACED if places else ClaimState.PENDING
    return Claim(name, OWNER, spec, 0.0, state, assignments)


def node(*claims: Claim, holders: tuple[HolderRecord, ...] = ()) -> NodeSnapshot:
    gpus = (GpuStatus(0, gpu(GPU0, 8), mode_epoch=1), GpuStatus(1, gpu(GPU1, 1), mode_epoch=1))
    return NodeSnapshot(1, gpus, claims=claims, claim_holders=holders, ready=True)


def ask(
    snapshot: NodeSnapshot, caller: Caller, model: str = "llama", partition: str = "", rules=(), closed=frozenset()
) -> Admission | Denial:
    return admit(caller, model, partition, served_partitions(snapshot, closed), snapshot, rules)


ONE = node(claim("llama", (GPU0, 3)), claim("embed", (GPU0, 3), qos=QosClass.LOW))
owner, stranger = Caller(10, OWNER, OWNER), Caller(11, STRANGER, STRANGER)
operator = Caller(12, OPERATOR, 0, operator=True)


def test_the_owner_has_the_claims_class() -> None:
    said = ask(ONE, owner)
    assert isinstance(said, Admission)
    assert (said.partition, said.model.name, said.highest) == (PartitionKey(GPU0, 3, 1), "llama", QosClass.MEDIUM)


def test_an_operator_has_every_class() -> None:
    said = ask(ONE, operator, "embed")
    assert isinstance(said, Admission)
    assert said.highest is QosClass.HIGH


def test_a_stranger_has_nothing_and_is_told_how_to_get_it() -> None:
    said = ask(ONE, stranger)
    assert said == Denial(
        "unauthorised",
        "uid 2000 may not use model llama, it belongs to uid 1000; an operator can allow it by [[dispatch.allow]] in"
        " aimd.toml",
    )


def test_a_model_without_a_claim_is_unknown() -> None:
    for caller in (owner, operator, stranger):
        assert ask(ONE, caller, "nope") == Denial(
            "unknown_model", "model nope has no claim on this node; claims: embed, llama"
        )


def test_a_pod_is_nobodys_uid_and_learns_no_names() -> None:
    for uid in (OWNER, OPERATOR):
        caller = Caller(13, uid, uid, pod=POD)
        for model in ("llama", "nope"):
            said = ask(ONE, caller, model)
            assert isinstance(said, Denial)
            assert said.outcome == "unauthorised"
            assert "embed" not in said.message
            assert "1000" not in said.message


@pytest.mark.parametrize(
    ("rule", "caller", "fits"),
    [
        (Rule(QosClass.HIGH, ("*",), uid=STRANGER), stranger, True),
        (Rule(QosClass.HIGH, ("ll*",), gid=STRANGER), stranger, True),
        (Rule(QosClass.HIGH, ("LLAMA",), uid=STRANGER), stranger, False),
        (Rule(QosClass.HIGH, ("*",), uid=STRANGER, gid=5), stranger, False),
        (Rule(QosClass.HIGH, ("*",), gid=5), stranger, False),
        (Rule(QosClass.HIGH, ("*",), uid=STRANGER), replace(stranger, pod=POD), False),
        (Rule(QosClass.HIGH, ("*",), pod=POD), replace(stranger, pod=POD), True),
        (Rule(QosClass.HIGH, ("*",), pod="*"), replace(stranger, pod=POD), True),
        (Rule(QosClass.HIGH, ("*",), pod="*"), replace(stranger, pod=""), False),
        (Rule(QosClass.HIGH, ("*",), pod="*"), stranger, False),
        (Rule(QosClass.HIGH, ("*",), pod=POD, uid=7), replace(stranger, pod=POD), False),
    ],
)
def test_a_rule_is_for_whom_it_names(rule: Rule, caller: Caller, fits: bool) -> None:
    said = ask(ONE, caller, rules=(rule,))
    assert isinstance(said, Admission) == fits
    if isinstance(said, Admission):
        assert said.highest is QosClass.HIGH


def test_the_best_right_for_the_partition_counts() -> None:
    rules = (Rule(QosClass.LOW, ("llama",), uid=STRANGER), Rule(QosClass.HIGH, ("llama",), ("gpu1/*",), uid=STRANGER))
    both = node(claim("llama", (GPU0, 3), (GPU1, 0)))
    for partition, highest in (("gpu0/3", QosClass.LOW), (f"{GPU1}/0", QosClass.HIGH)):
        said = ask(both, stranger, partition=partition, rules=rules)
        assert isinstance(said, Admission)
        assert said.highest is highest


def test_a_rule_for_one_partition_lets_into_no_other() -> None:
    rules = (Rule(QosClass.HIGH, ("llama",), ("gpu1/*",), uid=STRANGER),)
    said = ask(ONE, stranger, rules=rules)
    assert said == Denial("unknown_partition", "model llama is on no partition that this caller may use")


def test_without_a_partition_the_callers_own_is_taken() -> None:
    two = node(
        claim("llama", (GPU0, 3), (GPU1, 0)),
        holders=(HolderRecord("llama", 1, 50, 500, gpu=GPU1, index=0, mode_epoch=1),),
    )
    said = ask(two, Caller(50, STRANGER, 0, holders=frozenset({(50, 500)})))
    assert isinstance(said, Admission)
    assert (said.partition, said.highest) == (PartitionKey(GPU1, 0, 1), QosClass.MEDIUM)
    for identity in ((50, 501), (51, 500)):
        said = ask(two, Caller(50, STRANGER, 0, holders=frozenset({identity})))
        assert isinstance(said, Denial)


def test_a_holder_of_a_released_claim_has_no_right() -> None:
    left = HolderRecord("llama", 0, 50, 500, gpu=GPU0, index=3, mode_epoch=1, released_at=1.0)
    said = ask(
        node(claim("llama", (GPU0, 3)), holders=(left,)), Caller(50, STRANGER, 0, holders=frozenset({(50, 500)}))
    )
    assert isinstance(said, Denial)


def test_several_partitions_are_listed() -> None:
    many = node(claim("llama", *((GPU0, index) for index in range(8)), (GPU1, 0), (GPU1, 0)))
    said = ask(many, owner)
    assert isinstance(said, Denial)
    assert said.outcome == "unknown_partition"
    assert said.message.startswith(f"model llama is on 9 partitions, name one of {GPU0}/0, {GPU0}/1,")
    assert said.message.endswith(f"{GPU0}/7 and 1 more")


@pytest.mark.parametrize("partition", ["gpu0/4", "gpu9/0", "gpu0/", "gpu0/-3", "3", "gpu0/³", f"{GPU0}/3/1"])
def test_a_partition_without_the_model(partition: str) -> None:
    said = ask(ONE, owner, partition=partition)
    assert said == Denial("unknown_partition", f"model llama is not on partition {partition}: it is on {GPU0}/3")


def test_a_claim_without_a_place() -> None:
    said = ask(node(claim("llama")), owner)
    assert said == Denial("unknown_partition", "model llama has no partition now: its claim waits for room")


def test_a_closed_gpu_is_draining() -> None:
    said = ask(ONE, owner, closed=frozenset({GPU0}))
    assert isinstance(said, Denial)
    assert said.outcome == "draining"


def test_replicas_on_one_partition_are_one_model_with_the_sum() -> None:
    served = served_partitions(node(claim("llama", (GPU0, 3), (GPU0, 3), (GPU1, 0), guarantee=2, limit=3, weight=5)))
    (three,) = [one for one in served if one.key == PartitionKey(GPU0, 3, 1)]
    (other,) = [one for one in served if one.key == PartitionKey(GPU1, 0, 1)]
    assert [(model.guarantee, model.limit, model.weight) for model in three.models] == [(4, 6, 5)]
    assert [(model.guarantee, model.limit, model.weight) for model in other.models] == [(2, 3, 5)]
    assert len(served) == 9


def test_a_place_of_another_epoch_is_no_place() -> None:
    moved = claim("llama", (GPU0, 3))
    (old,) = moved.assignments
    served = served_partitions(node(replace(moved, assignments=(replace(old, mode_epoch=0),))))
    assert all(not one.models for one in served)
    assert served[0] == ServedPartition(PartitionKey(GPU0, 0, 1))


# -- pods that have made the claim ---------------------------------------------------------------------------------

TWO_PODS = replace(
    claim("default/llama", (GPU0, 3), (GPU1, 0), qos=QosClass.LOW),
    owner_uid=0,
    pods=(
        PodReplica(0, PodRef("default", "llama-0", POD), ClaimSpec(1024)),
        PodReplica(1, PodRef("default", "llama-1", "another"), ClaimSpec(1024)),
    ),
)


def test_a_pod_uses_the_model_that_it_is_a_replica_of_on_its_own_partition() -> None:
    for uid, place in ((POD, PartitionKey(GPU0, 3, 1)), ("another", PartitionKey(GPU1, 0, 1))):
        said = ask(node(TWO_PODS), Caller(20, 0, 0, pod=uid), "default/llama")
        assert isinstance(said, Admission)
        assert (said.partition, said.highest) == (place, QosClass.LOW)


def test_root_in_another_pod_and_the_nodes_own_uid_have_no_right_to_it() -> None:
    for caller in (Caller(21, 0, 0, pod="stranger"), Caller(22, 0, 0, pod=""), Caller(23, 0, 0)):
        said = ask(node(TWO_PODS), caller, "default/llama")
        assert isinstance(said, Denial)
        assert said.outcome == "unauthorised"
