"""Claims, holders and drains among everything else that can happen to a node; the desk checks each snapshot and answer.

In no snapshot is a partition over-committed or a claim on a partition that is not there (tests/fakes/claims.py). In the
end, when the world is kind, every claim is placed or is refused a place for a reason that holds.

The long run: python -m pytest tests/property/test_claim_lives.py -m campaign
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from aimd.domain.claim import Claim, ClaimState
from aimd.domain.gpu import Observed
from aimd.domain.ledger import HolderRecord
from aimd.domain.plan import Refusal
from aimd.errors import AimdError
from aimd.planning import effects as fx
from aimd.planning.placement import place
from aimd.planning.rooms import Occupancy, Repartition
from tests.fakes.claims import spec
from tests.property.test_reconciler_machine import GPUS, MODES, Life
from tests.unit.planning.desk import NPS_POLICY
from tests.unit.planning.paper import ADDRESSES

NAMES = st.sampled_from("mnopq")
PIDS = st.integers(100, 105)
places = st.one_of(st.none(), st.tuples(st.sampled_from([None, *ADDRESSES[:GPUS]]), st.integers(0, 7)))
specs = st.builds(
    lambda gb, mode, at, preferred, guarantee, replicas: spec(
        gb, mode, at=at, preferred=preferred, guarantee=guarantee, replicas=replicas
    ),
    st.sampled_from([1, 12, 24, 24, 48, 90, 100, 192]),
    st.sampled_from([None, None, "CPX", "DPX", "SPX", "CPX/NPS1", "NPS4"]),
    st.one_of(st.none(), st.none(), st.none(), places),
    places,
    st.sampled_from([0, 0, 4, 16]),
    st.sampled_from([1, 1, 2, 8, 9]),
)
wishes = st.dictionaries(st.integers(0, GPUS - 1), st.sampled_from(MODES), min_size=1).map(lambda w: tuple(w.items()))


class ClaimLife(Life):
    """A Life with claims."""

    @rule(name=NAMES, wanted=specs)
    def claim(self, name, wanted):
        before = self.desk.ledger.claims.get(name)
        answer = self.desk.claim(name, wanted)
        if before is not None:
            assert isinstance(answer, AimdError) or (answer, before.spec) == (before, wanted)
        else:
            assert isinstance(answer, (AimdError, Claim))
        assert (name in self.desk.ledger.claims) == (before is not None or isinstance(answer, Claim))

    @rule(name=NAMES)
    def release(self, name):
        before = self.desk.ledger.claims.get(name)
        answer = self.desk.release(name)
        assert answer == before if before is not None else isinstance(answer, AimdError)
        assert name not in self.desk.ledger.claims
        left = [holder for holder in self.desk.ledger.holders.values() if holder.claim == name]
        assert all(holder.released_at is not None for holder in left), "they go on, and are nobody's"

    @rule(name=NAMES, pid=PIDS, replica=st.one_of(st.none(), st.integers(-1, 9)))
    def join(self, name, pid, replica):
        answer = self.desk.join(name, pid, replica)
        if isinstance(answer, HolderRecord):
            claim = self.desk.ledger.claims[name]
            assert answer.replica in {a.replica for a in claim.assignments}
            assert (answer.claim, answer.pid) == (name, pid)

    @rule(pid=PIDS, seen=st.booleans())
    def end(self, pid, seen):
        self.desk.end(pid, seen=seen)

    @rule(number=st.integers(0, GPUS - 1), draining=st.booleans())
    def drain(self, number, draining):
        assert self.desk.drain(number, draining=draining) is None
        record = self.desk.ledger.gpus.get(ADDRESSES[number])
        assert (record is not None and record.draining) == draining

    @rule(asked=wishes, name=st.sampled_from("ghij"), wait=st.sampled_from([0.0, 1.0]))
    def submit_with_drain(self, asked, name, wait):
        self.desk.submit(*asked, name=name, wait=wait, drain=True)

    @rule(repartition=st.sampled_from(Repartition))
    def reconfigure(self, repartition):
        self.desk.policy = replace(NPS_POLICY, repartition=repartition)
        self.desk.tell(fx.Reconfigured(self.desk.policy, {}, self.layout[1], self.layout[1], {}))

    def teardown(self):
        for holder in list(self.desk.ledger.holders.values()):
            self.desk.end(holder.pid, holder.start_time)
        super().teardown()
        made, snapshot = self.desk, self.desk.snapshot
        seen = Observed(tuple(status.gpu for status in snapshot.gpus), busy_rule=snapshot.busy_rule)
        occupancy = Occupancy(
            tuple(assignment for claim in snapshot.claims for assignment in claim.assignments),
            draining=frozenset(status.gpu.pci_address for status in snapshot.gpus if status.draining),
            repartition=made.policy.repartition,
        )
        for claim in snapshot.claims:
            assert claim.state is not ClaimState.SWITCHING
            if claim.state is ClaimState.PENDING:
                result = place(claim.name, claim.spec, seen, occupancy, claim.missing)
                assert isinstance(result, Refusal), f"{claim} would fit: {result}"
                assert (claim.reason, claim.message) == (result.reason, f"{result.message}; {result.hint}")


class TestClaimLife(ClaimLife.TestCase):
    """The same lives in every run; the campaign lives others each time."""

    settings = settings(max_examples=120, stateful_step_count=50)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
class TestManyClaimLives(ClaimLife.TestCase):
    settings = settings(max_examples=5000, stateful_step_count=60, derandomize=False)
