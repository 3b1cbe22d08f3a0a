"""T1 to T4 in every state of small instances, of reference and native core, and T4 for histories of any length."""

import pytest

from aimd.dispatch.core import NativeCore
from aimd.dispatch.reference import Reference
from tests.dispatch.explorer import Recorded, config_of, credit_states, explore, instances, replayed
from tests.dispatch.faults import CreditDueTogether, CreditOneLate, DropsGreenTier, IgnoresLimits, OverfillsPartition


def test_no_history_passes_a_class_over_more_often_than_promised():
    states = credit_states(Reference().credit)
    assert max(medium for medium, _ in states) == 8
    assert max(low for _, low in states) == 15


@pytest.mark.parametrize("fault", [CreditOneLate, CreditDueTogether])
def test_a_credit_that_can_be_late_is_found(fault):
    with pytest.raises(AssertionError, match="T4"):
        credit_states(fault().credit)


def live_natively(core):
    replayed(NativeCore, core)._check()


def test_every_state_of_two_models():
    assert sum(explore(Recorded, config, depth=3, look=live_natively) for config in instances(2)) > 5000


def test_every_state_of_three_models():
    few = instances(3, capacities=(2,))
    assert sum(explore(Recorded, config, depth=2, look=live_natively) for config in few) > 1000


def test_a_core_that_answers_otherwise_is_found():
    config = config_of(2, ((0, 1, 1), (1, 2, 1)))
    with pytest.raises(AssertionError, match="instead of"):
        explore(Recorded, config, depth=4, look=lambda core: replayed(DropsGreenTier, core))


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("models", "depth"), [(2, 5), (3, 3)])
def test_the_native_core_in_every_state_within_more_moves(models, depth):
    for config in instances(models):
        explore(Recorded, config, depth, classes=(0, 1, 2), look=live_natively)


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
