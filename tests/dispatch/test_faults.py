"""Every deliberate fault is caught by the checks: `pytest tests/dispatch/test_faults.py -v` names each of them."""

import pytest

from aimd.dispatch.reference import Reference
from tests.dispatch.faults import FAULTS, Eager
from tests.dispatch.player import LIVES

SEEDS = 100


@pytest.mark.parametrize(("fault", "life"), FAULTS.items(), ids=lambda value: value.__name__)
def test_fault_is_caught(fault, life):
    for seed in range(SEEDS):
        try:
            life([fault], seed, 200)
        except AssertionError as finding:
            print(f"{fault.__name__}: {life.__name__}, seed {seed}: {finding}")
            return
    pytest.fail(f"{fault.__name__} lived through {SEEDS} lives")


@pytest.mark.parametrize("life", LIVES)
def test_tags_caught_up_when_competing_begins_or_at_the_choice_are_the_same(life):
    for seed in range(10):
        life([Reference, Eager], seed, 200)
