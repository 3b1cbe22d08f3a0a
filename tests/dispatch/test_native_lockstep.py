"""The native core answers as the reference does, call by call; after each call its structures are whole.

Long campaign: `pytest -m campaign tests/dispatch/test_native_lockstep.py`.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from aimd.dispatch.core import NativeCore
from aimd.dispatch.reference import Reference
from tests.dispatch.machine import machine
from tests.dispatch.player import LIVES

CALLS = (
    "configure",
    "remove_partition",
    "drain",
    "undrain",
    "acquire",
    "release",
    "renew",
    "cancel",
    "adopt",
    "disconnect",
    "exited",
    "advance",
    "restore",
)


def checked(name):
    def call(self, *args, **kwargs):
        events = getattr(NativeCore, name)(self, *args, **kwargs)
        self._check()
        return events

    return call


CheckedCore = type("CheckedCore", (NativeCore,), {name: checked(name) for name in CALLS})


class HighTags(CheckedCore):
    """Tags begin shortly below the bound at which they are lowered."""

    def configure(self, now, partition, config):
        known = {place.partition for place in self.snapshot().partitions}
        events = super().configure(now, partition, config)
        if not known:
            self._raise_tags(2**61 - 2**35)
        return events


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


@pytest.mark.timeout(600)  # half a minute; at a bad hour of a shared machine four times that
def test_random_lives():
    run(200, 200, Reference, CheckedCore)


@pytest.mark.parametrize("life", LIVES)
def test_seeded_lives(life):
    for seed in range(25):
        life([Reference, CheckedCore, HighTags], seed, 200)


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_random_lives_for_long():
    run(5000, 400, Reference, CheckedCore)


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.parametrize("life", LIVES)
def test_many_seeded_lives(life):
    for seed in range(1000, 4000):
        life([Reference, CheckedCore, HighTags], seed, 400)
