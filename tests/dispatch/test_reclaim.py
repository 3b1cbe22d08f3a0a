"""T3 against borrowers that never give back: whoever is below its guarantee has it after `lease_max` at the latest."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimd.dispatch.core import NativeCore
from aimd.dispatch.face import Kind, Limits, ModelConfig, PartitionConfig
from aimd.dispatch.reference import Reference

LEASE_MAX = 100


@settings(max_examples=60)
@given(
    capacity=st.integers(1, 6),
    share=st.integers(1, 6),
    steps=st.lists(st.integers(1, 30), min_size=4, max_size=20),
    flood=st.integers(0, 12),
    klass=st.integers(0, 2),
    class_of_others=st.integers(0, 2),
)
@pytest.mark.parametrize("factory", [Reference, NativeCore])
def test_borrowers_that_renew_and_flood_lose_what_they_borrowed(
    factory, capacity, share, steps, flood, klass, class_of_others
):
    guarantee = min(share, capacity)
    core = factory(Limits(requests=8192))
    models = (ModelConfig(0, guarantee=guarantee), ModelConfig(1, weight=1000), ModelConfig(2))
    core.configure(0, 0, PartitionConfig(models, capacity, lease_max_ns=LEASE_MAX))
    borrower, owner = core.open(1), core.open(2)
    requests = iter(range(10_000))

    def borrow(now):
        for _ in range(flood + capacity):
            core.acquire(now, borrower, next(requests), 0, 1 + next(requests) % 2, class_of_others, 10**6)

    now = 0
    for step in steps:  # they borrow, and renew while nobody minds
        borrow(now)
        now += step
        for record in core.leases():
            core.renew(now, borrower, record.lease)
    begun = now
    for _ in range(guarantee):
        core.acquire(now, owner, next(requests), 0, 0, klass, 10**6)
    while now < begun + LEASE_MAX:
        borrow(now)
        now = min(now + 7, begun + LEASE_MAX)
        for record in core.leases():
            if record.process == 1:
                [*_, answer] = core.renew(now, borrower, record.lease)
                starved = core.snapshot().partitions[0].models[0].waiting != (0, 0, 0)
                assert (answer[0] == Kind.REFUSED) == (starved or record.lease not in running(core))
    assert sum(core.snapshot().partitions[0].models[0].running) == guarantee


def running(core):
    return [record.lease for record in core.leases()]
