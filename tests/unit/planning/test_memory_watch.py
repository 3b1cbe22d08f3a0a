"""Findings of the control loop about memory: when they come, what they say and do, when they go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aimd.domain.accounting import FindingKind, OverrunPolicy
from aimd.domain.claim import Claim
from aimd.domain.partition import PartitionKey
from aimd.domain.probe import PartitionMemory, ProbeReport, ProbeState
from aimd.planning import effects as fx
from aimd.planning.memory import TOLERANCE_BYTES
from aimd.planning.policy import Policy
from aimd.planning.serving import served_partitions
from tests.fakes.claims import spec
from tests.unit.planning.desk import POLICY, Desk, desk
from tests.unit.planning.paper import ADDRESSES, GIB, holder

LIMIT = 12 * GIB
DENY = replace(POLICY, on_memory_overrun=OverrunPolicy.DENY_NEW_LEASES)
KEY = PartitionKey(ADDRESSES[0], 0, 1)


def served(policy: Policy = POLICY) -> Desk:
    """A node in CPX with the claim `m`, 12 of 24 GB, and its process."""
    made = desk("CPX/NPS1", "CPX/NPS1", policy=policy)
    assert isinstance(made.claim("m", spec(12, "CPX", at=(ADDRESSES[0], 0))), Claim)
    made.join("m", 7)
    return made


def use(made: Desk, size: int | None, *, seconds: float = 0.0, pid: int = 7, index: int = 0) -> None:
    """The process uses so much (None: its counter cannot be read) when it is looked at after this time."""
    place = (ADDRESSES[0], index)
    client = replace(holder(pid, 0), start_time=1, unread=(place,) if size is None else ())
    made.node.holders = [replace(client, vram=((*place, size),) if size else ())]
    made.pass_time(seconds)
    made.poll()


def kinds(made: Desk) -> list[str]:
    return [event.kind for event in made.ledger.events if event.kind.startswith("memory_")]


def denied(made: Desk) -> list[str]:
    return [
        model.name
        for partition in served_partitions(made.snapshot)
        for model in partition.models
        if model.denied and partition.key == KEY
    ]


@pytest.mark.parametrize("policy", [POLICY, DENY])
def test_a_claim_over_its_limit(policy: Policy) -> None:
    made = served(policy)
    use(made, LIMIT + TOLERANCE_BYTES + 1)
    use(made, LIMIT + TOLERANCE_BYTES + 1, seconds=policy.overrun_seconds - 0.1)
    assert made.snapshot.findings == ()
    assert denied(made) == kinds(made) == []
    use(made, LIMIT + TOLERANCE_BYTES + 1, seconds=0.2)
    (found,) = made.snapshot.findings
    assert (found.kind, found.gpu, found.index, found.mode_epoch, found.claim) == (
        FindingKind.OVER_LIMIT,
        *(ADDRESSES[0], 0, 1, "m"),
    )
    assert found.message == f"claim m uses 12.063 GiB of {ADDRESSES[0]}/0, where it has 12.000 GiB reserved"
    assert found.denied == (policy is DENY)
    assert denied(made) == (["m"] if policy is DENY else [])
    event = made.ledger.events[-1]
    assert (event.kind, event.subject) == ("memory_over_limit", "m")
    assert ("no new leases" in event.message) == (policy is DENY)
    use(made, LIMIT + 1, seconds=99)  # above the limit, below the tolerance
    use(made, LIMIT + 1, seconds=99)
    assert made.snapshot.findings
    use(made, LIMIT)
    use(made, LIMIT, seconds=policy.overrun_seconds)
    assert made.snapshot.findings == ()
    assert denied(made) == []
    assert kinds(made) == ["memory_over_limit", "memory_within_limit"]


def over(policy: Policy = DENY) -> Desk:
    made = served(policy)
    use(made, LIMIT * 2)
    use(made, LIMIT * 2, seconds=policy.overrun_seconds)
    assert made.snapshot.findings
    return made


def test_what_a_runtime_takes_beside_is_tolerated() -> None:
    made = served()
    for _ in range(3):
        use(made, LIMIT + TOLERANCE_BYTES, seconds=99)
    assert made.snapshot.findings == ()


def test_a_peak_is_none() -> None:
    made = served()
    for _ in range(5):
        use(made, LIMIT * 2, seconds=6)
        use(made, GIB, seconds=6)
    assert made.snapshot.findings == ()
    assert kinds(made) == []


def test_what_cannot_be_read_neither_raises_nor_ends_a_finding() -> None:
    made = served()
    for _ in range(3):
        use(made, None, seconds=99)
    assert made.snapshot.findings == ()
    assert made.snapshot.memory.partitions[ADDRESSES[0], 0].used_bytes is None
    made = over()
    for _ in range(3):
        use(made, None, seconds=99)
    assert denied(made) == ["m"]


def test_a_node_that_cannot_be_looked_at_changes_nothing() -> None:
    made = over()
    for _ in range(3):
        made.pass_time(99)
        made.tell(fx.Scanned(0, None, "the list of KFD clients could not be read"))
    assert denied(made) == ["m"]
    account = made.snapshot.memory.partitions[ADDRESSES[0], 0]
    assert (account.used_bytes, account.unattributed_bytes) == (None, None)
    made.run()


def test_a_released_claim_has_no_finding() -> None:
    made = over()
    made.node.holders = []
    made.end(7)
    made.release("m")
    made.poll()
    assert made.snapshot.findings == ()
    assert kinds(made) == ["memory_over_limit", "memory_within_limit"]
    assert made.ledger.events[-1].message.endswith("any more")


def test_a_released_claim_whose_process_goes_on_is_still_over_its_limit() -> None:
    made = over()
    made.release("m")
    made.poll()
    (found,) = made.snapshot.findings
    assert found.claim == "m"
    assert denied(made) == [], "there is no model to deny"


def test_the_policy_can_be_changed_while_there_is_a_finding() -> None:
    made = over(DENY)
    for policy, expected in ((POLICY, []), (DENY, ["m"])):
        made.tell(fx.Reconfigured(policy, {}, "", "", {}))
        assert denied(made) == expected


def test_a_restart_lifts_no_denial() -> None:
    made = over()
    (found,) = made.snapshot.findings
    made.start()
    made.run()
    assert made.snapshot.findings == (found,)
    assert denied(made) == ["m"]
    use(made, LIMIT)
    assert denied(made) == ["m"], "as long as before without a restart"
    use(made, LIMIT, seconds=DENY.overrun_seconds)
    assert denied(made) == []
    made.start()
    made.run()
    assert made.snapshot.findings == ()
    assert kinds(made) == ["memory_over_limit", "memory_within_limit"]


def test_a_kill_before_the_finding_is_durable_leaves_none() -> None:
    made = served(DENY)
    use(made, LIMIT * 2)
    made.pass_time(DENY.overrun_seconds)
    seen = tuple(replace(one, vram=((ADDRESSES[0], 0, LIMIT * 2),)) for one in made.node.holders)
    made.tell(fx.Polled(made.node.generation, seen), cut=0)
    made.start()
    made.run()
    assert made.snapshot.findings == ()
    assert kinds(made) == []


def test_a_claim_that_is_gone_at_the_restart_has_no_finding() -> None:
    made = over()
    made.end(7)
    made.node.holders = []
    made.release("m")
    made.start()
    made.run()
    assert made.snapshot.findings == ()
    assert kinds(made) == ["memory_over_limit", "memory_within_limit"]


def test_a_boot_ends_findings() -> None:
    made = over()
    made.node.holders = []
    made.start(boot="boot-2")
    made.run()
    assert denied(made) == []
    assert kinds(made) == ["memory_over_limit", "memory_within_limit"]
    made.start(boot="boot-2")
    made.run()
    assert made.snapshot.findings == ()


def test_a_finding_while_another_gpu_is_switched() -> None:
    """A drain can last for long: what is seen meanwhile counts."""
    made = served(DENY)
    use(made, LIMIT * 2)
    made.node.holders.append(holder(9, 1))
    made.submit((1, "SPX"), wait=60.0)
    made.run(lambda: bool(made.snapshot.findings), most=400)
    assert made.ledger.acting()


def test_figures_alone_are_no_new_generation() -> None:
    made = served()
    use(made, GIB)
    generation = made.snapshot.generation
    use(made, 2 * GIB)
    assert made.snapshot.generation == generation
    assert made.snapshot.memory.partitions[ADDRESSES[0], 0].used_bytes == 2 * GIB
    published = len(made.effects)
    use(made, 2 * GIB)
    assert not any(isinstance(effect, fx.Publish) for effect in made.effects[published:])


# -- HIP -----------------------------------------------------------------------------------------------------------


def probe(made: Desk, *free: int, state: ProbeState = ProbeState.READ, epoch: int = 1) -> None:
    """HIP says so much is free on each partition of the first GPU."""
    memory = tuple(PartitionMemory(index, size, 24 * GIB) for index, size in enumerate(free))
    made.tell(fx.Probed(ProbeReport(ADDRESSES[0], state, partitions=memory), epoch))
    made.run()


USUAL = [23 * GIB] * 8


def test_what_hip_says_is_compared_with_the_counters_of_that_time() -> None:
    made = served()
    use(made, 2 * GIB)
    made.node.holders = [replace(one, vram=((ADDRESSES[0], 0, 3 * GIB),)) for one in made.node.holders]
    probe(made, 20 * GIB, *USUAL[1:])
    account = made.snapshot.memory.partitions[ADDRESSES[0], 0]
    assert account.probed is not None
    assert (account.free_bytes, account.probed.used_bytes, account.probed.missing_bytes) == (20 * GIB, 3 * GIB, GIB)
    assert account.probed_at == 1_000_000 + made.now
    use(made, 5 * GIB)
    assert made.snapshot.memory.partitions[ADDRESSES[0], 0].estimated_free_bytes == 18 * GIB
    assert made.snapshot.memory.partitions[ADDRESSES[1], 0].free_bytes is None


def test_memory_of_nobody_is_a_drift_after_two_answers() -> None:
    made = served()
    probe(made, *USUAL)
    probe(made, *USUAL[:7], 20 * GIB)
    assert made.snapshot.findings == ()
    probe(made, *USUAL[:7], 20 * GIB)
    (found,) = made.snapshot.findings
    assert (found.kind, found.index, found.claim, found.denied) == (FindingKind.DRIFT, 7, None, False)
    assert "lacks 3 GiB that no process of KFD's list uses" in found.message
    event = made.ledger.events[-1]
    assert (event.kind, event.subject) == ("memory_drift", ADDRESSES[0])
    probe(made, *USUAL)
    assert made.snapshot.findings
    probe(made, *USUAL)
    assert made.snapshot.findings == ()
    assert kinds(made) == ["memory_drift", "memory_drift_over"]


def test_what_a_gpu_lacks_usually_outlives_the_daemon() -> None:
    """All partitions, or the only one, lack more than before: only what was before can tell."""
    made = served()
    probe(made, *USUAL)
    made.start()
    made.run()
    for _ in range(2):
        probe(made, *[20 * GIB] * 8)
    assert len(made.snapshot.findings) == 8
    made.start()
    made.run()
    for _ in range(2):
        probe(made, *[20 * GIB] * 8)
    assert len(made.snapshot.findings) == 8
    made.start(boot="boot-2")
    made.run()
    for _ in range(2):
        probe(made, *[20 * GIB] * 8)
    assert made.snapshot.findings == (), "another boot pins other memory"


def test_answers_that_bring_nothing_end_no_drift() -> None:
    made = served()
    for free in (USUAL, [20 * GIB] * 8, [20 * GIB] * 8):
        probe(made, *free)
    assert len(made.snapshot.findings) == 8
    for _ in range(3):
        probe(made, state=ProbeState.TIMED_OUT)
    assert len(made.snapshot.findings) == 8
    account = made.snapshot.memory.partitions[ADDRESSES[0], 0]
    assert (account.free_bytes, account.estimated_free_bytes) == (None, None)
    assert made.snapshot.memory.gpus[ADDRESSES[0]].report.state is ProbeState.TIMED_OUT


def test_an_answer_of_another_mode_is_not_used() -> None:
    made = served()
    probe(made, *USUAL, epoch=0)
    assert made.snapshot.memory.partitions[ADDRESSES[0], 0].free_bytes is None
    probe(made, *USUAL)
    assert made.snapshot.memory.partitions[ADDRESSES[0], 0].free_bytes == 23 * GIB
    made.node.holders = []
    made.end(7)
    made.release("m")
    made.change((0, "SPX"))
    assert made.snapshot.memory.partitions[ADDRESSES[0], 0].free_bytes is None
    assert (ADDRESSES[0], 1) not in made.snapshot.memory.partitions


def test_an_answer_too_old_for_the_counters_is_not_compared() -> None:
    made = served()
    memory = tuple(PartitionMemory(index, size, 24 * GIB) for index, size in enumerate(USUAL))
    made.tell(fx.Probed(ProbeReport(ADDRESSES[0], ProbeState.READ, partitions=memory), 1))
    made.pass_time(6)
    made.run()
    assert made.snapshot.memory.partitions[ADDRESSES[0], 0].free_bytes is None
