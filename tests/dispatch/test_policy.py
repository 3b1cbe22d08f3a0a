"""Slots from shares: largest remainder, limits, and refusals that name the smallest share that works."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimd.dispatch.core import NativeCore
from aimd.dispatch.face import Limits, ModelConfig, PartitionConfig
from aimd.dispatch.policy import ModelShares, check_partition, partition_config, seats, smallest_share
from aimd.dispatch.reference import Reference
from aimd.errors import InvalidInputError


def slots(capacity, *guarantees, limits=()):
    """(guarantee, limit) of models with these guarantees."""
    limits = [*limits, *[None] * (len(guarantees) - len(limits))]
    models = [
        ModelShares(f"m{index}", ModelConfig(index), guarantee, limit)
        for index, (guarantee, limit) in enumerate(zip(guarantees, limits, strict=True))
    ]
    config = partition_config(models, PartitionConfig(capacity=capacity))
    return [(model.guarantee, model.limit) for model in config.models]


@pytest.mark.parametrize(
    ("capacity", "guarantees", "expected"),
    [
        (16, ["25%", "50%"], [4, 8]),
        (3, ["50%", "50%"], [2, 1]),  # equal remainders: the earlier one
        (10, ["33.3%", "33.3%", "33.3%"], [3, 3, 3]),  # floor(9.99) seats
        (16, ["90%"], [14]),
        (16, [4, "25%"], [4, 4]),
        (7, ["40%", "20%", "40%"], [3, 1, 3]),  # 2.8, 1.4, 2.8
        (4, ["0%", 0], [0, 0]),
    ],
)
def test_guarantees_by_largest_remainder(capacity, guarantees, expected):
    assert [guarantee for guarantee, _ in slots(capacity, *guarantees)] == expected


def test_limit_is_rounded_up_and_never_below_the_guarantee():
    assert slots(16, "50%", 0, 0, limits=["25%", "30%", None]) == [(8, 8), (0, 5), (0, None)]


@pytest.mark.parametrize(
    ("capacity", "guarantees", "message", "hint"),
    [
        (4, ["10%"], "m0: 10% of 4 slots comes to none", "25%"),
        (16, ["5%"], "m0: 5% of 16 slots comes to none", "6.25%"),
        (3, ["20%", "20%"], "m1: 20% of 3 slots comes to none", "46.67%"),
        (2, ["99%", "1%"], "m1: 1% of 2 slots comes to none", "lower one of them"),
        (16, ["60%", "50%"], "guarantees come to 110%", None),
        (4, [3, "50%"], "guarantees come to 5 slots, the partition has 4", None),
        (4, [5], "guarantees come to 5 slots, the partition has 4", None),
        (16, ["lots"], "'lots' is no share", None),
        (16, ["101%"], "'101%' is no share", None),
        (16, ["-1%"], "'-1%' is no share", None),
    ],
)
def test_refusals(capacity, guarantees, message, hint):
    with pytest.raises(InvalidInputError) as refusal:
        slots(capacity, *guarantees)
    assert message in refusal.value.message
    if hint is not None:
        assert hint in refusal.value.hint


def test_limit_of_nothing_is_refused():
    with pytest.raises(InvalidInputError, match="limit is 0"):
        slots(16, 0, limits=["0%"])


SHARES = st.lists(st.integers(0, 100).map(lambda number: Fraction(number, 100)), min_size=1, max_size=5).filter(
    lambda shares: sum(shares) <= 1
)


@given(SHARES, st.integers(1, 64))
def test_seats_add_up_and_stay_within_one_of_the_quota(shares, capacity):
    found = seats(shares, capacity)
    assert sum(found) == int(capacity * sum(shares))
    assert all(abs(seat - capacity * share) < 1 for seat, share in zip(found, shares, strict=True))


@settings(max_examples=30)
@given(SHARES, st.integers(1, 24))
def test_smallest_share_works_and_the_next_smaller_one_does_not(shares, capacity):
    def works(share):
        tried = [share, *shares[1:]]
        found = seats(tried, capacity)
        return found[0] > 0 and all(seat for part, seat in zip(tried, found, strict=True) if part)

    smallest = smallest_share(shares, 0, capacity)
    if smallest is None:
        assert not works(1 - sum(shares[1:]))
    else:
        assert works(smallest)
        assert not works(smallest - Fraction(1, 10_000))


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(-1),
        ModelConfig(0, guarantee=-1),
        ModelConfig(0, guarantee=2, limit=1),
        ModelConfig(0, limit=0),
        ModelConfig(0, weight=0),
        ModelConfig(0, weight=1001),
        ModelConfig(0, queue_cap=-1),
        ModelConfig(0, default_class=3),
        ModelConfig(0, budget_ns=(1, 1)),
        ModelConfig(0, budget_ns=(1, 0, 1)),
        ModelConfig(0, latency_target_ns=-1),
    ],
)
def test_values_out_of_range_are_refused(model):
    with pytest.raises(ValueError, match="partition 0, model"):
        check_partition(0, PartitionConfig((model,)))


@pytest.mark.parametrize("core", [NativeCore, Reference])
@pytest.mark.parametrize("field", ["guarantee", "limit", "weight", "queue_cap", "default_class", "latency_target_ns"])
def test_a_float_for_a_model_is_refused(core, field):
    model = replace(ModelConfig(0), **{field: 1.0})
    with pytest.raises(
        ValueError, match=f"partition 0, model 0: {field} is of type float: an integer from . to .* is expected"
    ):
        core(Limits()).configure(0, 0, PartitionConfig((model,)))


@pytest.mark.parametrize("core", [NativeCore, Reference])
@pytest.mark.parametrize("field", ["capacity", "queue_cap", "lease_max_ns", "orphan_grace_ns"])
def test_a_float_for_a_partition_is_refused(core, field):
    config = replace(PartitionConfig(), **{field: 2.0})
    with pytest.raises(ValueError, match=f"partition 0: {field} is of type float: an integer from . to .* is expected"):
        core(Limits()).configure(0, 0, config)
