"""A plan that is carried out on the simulated node leaves nothing to do; what is refused, the driver refuses, too."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.plan import Desired, Reason, StepKind
from aimd.errors import DriverError
from aimd.planning.planner import plan
from aimd.planning.verify import verify
from aimd.planning.view import satisfied
from aimd.sim.hardware import MODELS, PROFILES
from tests.property.simulated import Bench

MODEL_NAMES = sorted(MODELS)
compute_modes = st.one_of(st.none(), st.sampled_from(ComputeMode))
mode_wishes = st.builds(
    PartitionMode, compute_modes, st.one_of(st.none(), st.none(), st.sampled_from(list(MemoryMode)[:4]))
)


@st.composite
def benches(draw, least=1):
    model = draw(st.sampled_from(MODEL_NAMES))
    memory = draw(st.sampled_from(MODELS[model].memory_modes))
    now = [draw(compute_modes) for _ in range(draw(st.integers(least, 4)))]
    return Bench(model, draw(st.sampled_from(sorted(PROFILES))), memory, now, one_hive=draw(st.booleans()))


@settings(max_examples=150)
@given(data=st.data(), bench=benches(), allow=st.booleans())
def test_a_plan_carried_out_leaves_nothing_to_do(data, bench, allow):
    wishes = data.draw(st.dictionaries(st.sampled_from(bench.addresses), mode_wishes, min_size=1))
    planned = plan(Desired(wishes, allow), bench.scan())
    while planned.refusals:  # as the daemon does with a layout: the rest without them
        refused = {refusal.gpu for refusal in planned.refusals}
        wishes = {address: wish for address, wish in wishes.items() if address not in refused}
        planned = plan(Desired(wishes, allow), bench.scan())
    before = bench.scan()
    bench.carry_out(planned)
    after = bench.scan()
    again = plan(Desired(wishes, allow), after)
    assert replace(again, steps=()) == replace(planned, steps=(), warnings=(), blockers=())
    # A driver load for one hive chooses the modes of the others' GPUs anew, too. No plan has that (the daemon opens all
    # wishes after a load); nothing else may be left to do.
    asked = {gpu for step in planned.steps if step.kind is StepKind.MEMORY for gpu in step.gpus}
    left = {step.gpu for step in again.steps}
    assert not left or (asked and not left & asked)
    for address in wishes.keys() - left:
        assert satisfied(after.gpu(address), wishes[address])
    for step in planned.steps:
        if step.kind is StepKind.COMPUTE or planned.steps[-1] is step:
            assert verify(step, after) == "verified"
    if not any(step.kind is StepKind.MEMORY for step in planned.steps):
        touched = {step.gpu for step in planned.steps}
        for gpu in before.gpus:
            assert gpu.pci_address in touched or after.gpu(gpu.pci_address).mode == gpu.mode


@settings(max_examples=60)
@given(data=st.data(), bench=benches(2), allow=st.booleans())
def test_a_plan_does_not_depend_on_the_order_of_the_wishes(data, bench, allow):
    wishes = data.draw(st.dictionaries(st.sampled_from(bench.addresses), mode_wishes, min_size=2))
    order = data.draw(st.permutations(list(wishes.items())))
    seen = bench.scan()
    assert plan(Desired(dict(order), allow), seen) == plan(Desired(wishes, allow), seen)


PLACES = [
    (model, profile, memory)
    for model in MODEL_NAMES
    for profile in sorted(PROFILES)
    for memory in MODELS[model].memory_modes
]


@pytest.mark.parametrize(("model", "profile", "memory"), PLACES, ids=["-".join(place) for place in PLACES])
def test_what_a_plan_refuses_the_driver_refuses_and_nothing_else(model, profile, memory):
    for wanted in ComputeMode:
        bench = Bench(model, profile, memory, [None])
        (address,) = bench.addresses
        planned = plan(Desired({address: PartitionMode(wanted)}), bench.scan())
        if not planned.refusals:
            bench.carry_out(planned)
            assert bench.scan().gpu(address).compute_mode is wanted
            continue
        (refusal,) = planned.refusals
        assert refusal.reason is Reason.MODE_NOT_AVAILABLE
        with pytest.raises(DriverError) as failure:
            bench.driver.set_compute_mode(address, wanted)
        assert failure.value.errno == errno.EINVAL


@pytest.mark.parametrize(("model", "profile", "memory"), PLACES, ids=["-".join(place) for place in PLACES])
def test_memory_modes_are_planned_where_the_driver_takes_them(model, profile, memory):
    for wanted in MemoryMode:
        bench = Bench(model, profile, memory, [None, None])
        planned = plan(Desired({bench.addresses[1]: PartitionMode(None, wanted)}, True), bench.scan())
        offered = wanted in MODELS[model].memory_modes and (
            wanted is memory or (profile == "7.2" and len(MODELS[model].memory_modes) > 1)
        )
        assert bool(planned.refusals) == (not offered), wanted
        assert len(planned.steps) == (offered and wanted is not memory)
