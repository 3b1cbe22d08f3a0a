"""T1 to T7 over random lives of a core; the reference that is advanced before each call and the one that is not agree.

The 200 lives of 200 steps of the normal run are those of test_native_lockstep.
The long campaign: `pytest -m campaign tests/dispatch`.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from aimd.dispatch.reference import Reference
from tests.dispatch.machine import machine
from tests.dispatch.player import LIVES


def run(examples, steps, *factories):
    profile = settings(
        max_examples=examples,
        derandomize=examples < 1000,  # campaigns draw others each time
        stateful_step_count=steps,
        suppress_health_check=list(HealthCheck),
        database=None,
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(machine(*factories), settings=profile)


def test_reference_keeps_its_promises():
    run(40, 200, Reference, Reference)


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_reference_keeps_its_promises_for_long():
    run(5000, 400, Reference, Reference)


@pytest.mark.parametrize("life", LIVES)
def test_reference_keeps_its_promises_in_seeded_lives(life):
    for seed in range(25):
        life([Reference, Reference], seed, 200)


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.parametrize("life", LIVES)
def test_reference_keeps_its_promises_in_many_seeded_lives(life):
    for seed in range(1000, 6000):
        life([Reference, Reference], seed, 400)
