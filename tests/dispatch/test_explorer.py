"""T1 to T4 in every state of small instances, and T4 for histories of any length."""

import pytest

from aimd.dispatch.reference import Reference
from tests.dispatch.explorer import config_of, credit_states, explore, instances
from tests.dispatch.faults import CreditDueTogether, CreditOneLate, DropsGreenTier, IgnoresLimits, OverfillsPartition


def test_no_history_passes_a_class_over_more_often_than_promised():
    states = credit_states(Reference().credit)
    assert max(medium for medium, _ in states) == 8
    assert max(low for _, low in states) == 15


@pytest.mark.parametrize("fault", [CreditOneLate, CreditDueTogether])
def test_a_credit_that_can_be_late_is_found(fault):
    with pytest.raises(AssertionError, match="T4"):
        credit_states(fault().credit)


def test_every_state_of_two_models():
    assert sum(explore(Reference, config, depth=3) for config in instances(2)) > 5000


def test_every_state_of_three_models():
    assert sum(explore(Reference, config, depth=2) for config in instances(3, capacities=(2,))) > 1000


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("models", "depth"), [(2, 6), (3, 4)])
def test_every_state_within_more_moves(models, depth):
    for config in instances(models):
        explore(Reference, config, depth, classes=(0, 1, 2))


@pytest.mark.parametrize("fault", [DropsGreenTier, IgnoresLimits, OverfillsPartition])
def test_a_fault_is_found(fault):
    config = config_of(2, ((0, 1, 1), (1, 2, 1)))
    with pytest.raises(AssertionError, match=r"T1|T3"):
        explore(fault, config, depth=4)
