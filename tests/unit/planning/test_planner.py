"""Plans: every refusal with its reason and hint, hives, layouts, blockers, and the same plan for the same input."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from aimd.domain.gpu import BusyRule, GpuState
from aimd.domain.modes import MemoryMode, PartitionMode
from aimd.domain.plan import Desired, Plan, PlanRefusedError, Reason, StepKind
from aimd.planning.planner import plan
from tests.unit.planning.paper import ADDRESSES, gpu, holder, mode, observed


def planned(wishes: dict[int, str], *gpus, allow: bool = False, **more) -> Plan:
    desired = {ADDRESSES[number]: mode(text) for number, text in wishes.items()}
    return plan(Desired(desired, allow), observed(*gpus, **more))


def steps_of(made: Plan) -> list[str]:
    names = {address: f"gpu{number}" for number, address in enumerate(ADDRESSES)}
    return [
        f"{','.join(names[g] for g in step.gpus)} {step.before}>{step.after}{' later' if step.after_reload else ''}"
        for step in made.steps
    ]


# -- steps ----------------------------------------------------------------------------------------------------------


def test_one_step_for_each_gpu_that_differs_in_the_order_of_the_node():
    made = planned({2: "QPX", 0: "CPX", 1: "SPX"}, gpu(0), gpu(1), gpu(2), gpu(3))
    assert steps_of(made) == ["gpu0 SPX/NPS1>CPX/NPS1", "gpu2 SPX/NPS1>QPX/NPS1"]
    assert made.refusals == ()


def test_nothing_to_do_is_an_empty_plan():
    assert planned({0: "CPX/NPS1", 1: "NPS1"}, gpu(0, "CPX/NPS1"), gpu(1)) == Plan()
    assert planned({}, gpu(0)) == Plan()


def test_a_mode_that_the_gpu_is_in_is_never_refused():
    """A virtual function lists no modes; the wish for the one it is in has been met."""
    assert planned({0: "SPX"}, gpu(0, compute_modes=None)) == Plan()


def test_what_counts_is_the_partitions_and_not_the_mode_file():
    refused_by_firmware = gpu(0, "SPX/NPS1", file="CPX")
    assert steps_of(planned({0: "CPX"}, refused_by_firmware)) == ["gpu0 SPX/NPS1>CPX/NPS1"]


def test_a_memory_mode_is_asked_for_once_for_the_whole_hive_and_compute_follows_after_the_load():
    made = planned({1: "QPX/NPS4"}, gpu(0), gpu(1), gpu(2, "CPX/NPS1"), allow=True)
    assert steps_of(made) == ["gpu0,gpu1,gpu2 ?/NPS1>?/NPS4", "gpu1 CPX/NPS4>QPX/NPS4 later"]
    assert made.steps[0].kind is StepKind.MEMORY


def test_the_compute_mode_that_the_load_brings_needs_no_step():
    made = planned({0: "CPX/NPS4", 1: "CPX"}, gpu(0), gpu(1), allow=True)
    assert steps_of(made) == ["gpu0,gpu1 ?/NPS1>?/NPS4"]


def test_a_compute_mode_is_done_again_if_the_load_changes_it():
    made = planned({0: "QPX/NPS4", 1: "QPX"}, gpu(0, "QPX/NPS1"), gpu(1, "QPX/NPS1"), allow=True)
    assert steps_of(made)[1:] == ["gpu0 CPX/NPS4>QPX/NPS4 later", "gpu1 CPX/NPS4>QPX/NPS4 later"]


def test_gpus_of_other_hives_keep_their_memory_mode():
    made = planned({0: "CPX/NPS4", 2: "DPX"}, gpu(0), gpu(1), gpu(2, hive=0xB), gpu(3, hive=0xB), allow=True)
    assert steps_of(made) == ["gpu0,gpu1 ?/NPS1>?/NPS4", "gpu2 SPX/NPS1>DPX/NPS1"]


@pytest.mark.parametrize("hive", [None, 0])
def test_a_gpu_without_a_hive_is_alone(hive):
    made = planned({0: "CPX/NPS4"}, gpu(0, hive=hive), gpu(1, hive=hive), allow=True)
    assert steps_of(made) == ["gpu0 ?/NPS1>?/NPS4"]


def test_a_half_done_hive_is_asked_through_a_member_that_differs():
    made = planned({0: "NPS4", 1: "NPS4"}, gpu(0, "CPX/NPS4"), gpu(1, "SPX/NPS1"), allow=True)
    assert steps_of(made) == ["gpu1,gpu0 ?/NPS1>?/NPS4"]


def test_people_are_told_what_a_memory_mode_brings_with_it():
    made = planned({0: "CPX/NPS4"}, gpu(0), gpu(1, "DPX/NPS1"), allow=True, holders=(holder(4711, 1),))
    assert made.warnings == (
        (
            "NPS4 takes effect for all 2 GPUs of the hive when the amdgpu driver is reloaded; until then nothing changes and "
            "the request cannot be cancelled"
        ),
        "the driver cannot be reloaded while processes use GPUs: 4711",
        "GPU 0000:27:00.0 goes from DPX/NPS1 to CPX/NPS4 with its hive",
    )


def test_the_same_input_gives_the_same_plan_in_whatever_order_it_is_told():
    gpus = [gpu(number, hive=0xA if number < 2 else 0xB) for number in range(4)]
    wishes = {0: "CPX/NPS4", 1: "QPX", 2: "TPX", 3: "DPX", 5: "CPX"}
    texts = set()
    for order in itertools.permutations(wishes.items()):
        made = planned(dict(order), *gpus, allow=True, holders=(holder(2, 3), holder(1, 3)))
        texts.add(repr(made).replace(f"{ADDRESSES[5]}", "unknown"))
    assert len(texts) == 1


# -- refusals -------------------------------------------------------------------------------------------------------

OLD = {"memory_modes": None, "writable": False}  # Linux 6.12: no list of memory modes, the file is 0444
A = ADDRESSES[0]
REFUSALS = [
    ("unknown gpu", {7: "CPX"}, [gpu(0)], {}, Reason.UNKNOWN_GPU, f"GPU {ADDRESSES[7]} is not on this node", A),
    (
        "lost gpu",
        {0: "CPX"},
        [gpu(0, partitions=0)],
        {},
        Reason.GPU_LOST,
        f"GPU {A} has no compute nodes",
        "reload the amdgpu driver",
    ),
    (
        "hidden gpu",
        {0: "CPX"},
        [replace(gpu(0, partitions=0), absence=GpuState.HIDDEN)],
        {},
        Reason.GPU_HIDDEN,
        f"GPU {A} has no compute nodes that aimd may see",
        "char 226:* rw",
    ),
    (
        "gpu that is gone",
        {0: "CPX"},
        [replace(gpu(0, partitions=0), absence=GpuState.GONE)],
        {},
        Reason.GPU_GONE,
        f"GPU {A} is not there any more",
        "rescan the bus",
    ),
    (
        "mode cannot be read",
        {0: "CPX"},
        [gpu(0, file=None, device_id=0xFFFF)],
        {},
        Reason.MODE_UNKNOWN,
        "cannot be read, so a change could not be rolled back",
        "aimctl describe gpu",
    ),
    (
        "mode not offered",
        {0: "TPX"},
        [gpu(0)],
        {},
        Reason.MODE_NOT_AVAILABLE,
        f"GPU {A} does not offer TPX with memory mode NPS1",
        "it offers SPX, DPX, QPX, CPX there",
    ),
    (
        "no mode offered (virtual function)",
        {0: "CPX"},
        [gpu(0, compute_modes=None)],
        {},
        Reason.MODE_NOT_AVAILABLE,
        "does not offer CPX",
        "it offers nothing there",
    ),
    (
        "no mode offered (odd number of XCCs)",
        {0: "CPX"},
        [gpu(0, compute_modes="")],
        {},
        Reason.MODE_NOT_AVAILABLE,
        "does not offer CPX",
        "it offers nothing there",
    ),
    (
        "listed by an old driver although the memory mode forbids it",
        {0: "SPX"},
        [gpu(0, "CPX/NPS4", **OLD)],
        {},
        Reason.MODE_NOT_AVAILABLE,
        "does not offer SPX with memory mode NPS4",
        "it offers QPX, CPX there",
    ),
    (
        "compute mode that does not fit the memory mode wished for it",
        {0: "SPX/NPS4"},
        [gpu(0)],
        {"allow": True},
        Reason.MODE_NOT_AVAILABLE,
        "does not offer SPX with memory mode NPS4",
        "it offers QPX, CPX there",
    ),
    (
        "memory mode not offered",
        {0: "NPS8"},
        [gpu(0)],
        {"allow": True},
        Reason.MODE_NOT_AVAILABLE,
        f"GPU {A} does not offer memory mode NPS8",
        "it offers NPS1, NPS2, NPS4 and is in NPS1",
    ),
    (
        "no memory modes listed (old driver)",
        {0: "NPS4"},
        [gpu(0, **OLD)],
        {"allow": True},
        Reason.MODE_NOT_AVAILABLE,
        "does not offer memory mode NPS4",
        "it offers no choice and is in NPS1",
    ),
    (
        "memory mode file is read-only",
        {0: "NPS4"},
        [gpu(0, writable=False)],
        {"allow": True},
        Reason.MEMORY_MODE_READ_ONLY,
        "current_memory_partition is read-only",
        "use a driver that offers it",
    ),
    (
        "memory modes are off",
        {0: "CPX/NPS4"},
        [gpu(0)],
        {},
        Reason.MEMORY_MODE_DISABLED,
        f"GPU {A} is in NPS1, NPS4 was wished, and changing memory modes is not allowed",
        "allow_memory_mode_change = true",
    ),
    (
        "another request is pending",
        {0: "NPS2"},
        [gpu(0)],
        {"allow": True, "pending_memory": {A: MemoryMode.NPS4}},
        Reason.MEMORY_MODE_PENDING,
        "cannot be asked for NPS2: NPS4 is already requested and cannot be cancelled",
        "reload the amdgpu driver (or reboot) first",
    ),
    (
        "back to the present mode while a request is pending",
        {0: "NPS1"},
        [gpu(0)],
        {"allow": True, "pending_memory": {A: MemoryMode.NPS4}},
        Reason.MEMORY_MODE_PENDING,
        "cannot be cancelled",
        "reload the amdgpu driver",
    ),
]


@pytest.mark.parametrize(
    ("wishes", "gpus", "more", "reason", "message", "hint"),
    [row[1:] for row in REFUSALS],
    ids=[row[0] for row in REFUSALS],
)
def test_refusals_say_what_is_so_and_what_to_do(wishes, gpus, more, reason, message, hint):
    made = planned(wishes, *gpus, **more)
    (refusal,) = made.refusals
    assert made.steps == ()
    assert refusal.gpu == ADDRESSES[next(iter(wishes))]
    assert refusal.reason is reason
    assert message in refusal.message
    assert hint in refusal.hint
    error = PlanRefusedError(made)
    assert (error.code, str(error), error.hint) == (reason.value, refusal.message, refusal.hint)


PLANNERS = {row[4] for row in REFUSALS} | {Reason.MEMORY_MODE_CONFLICT}


def test_every_reason_that_a_plan_can_have_is_among_these():
    import ast
    import inspect

    from aimd.planning import planner

    named = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(planner)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason"
    }
    assert named == {reason.name for reason in PLANNERS}


def test_one_memory_mode_per_hive():
    made = planned({0: "CPX/NPS4", 1: "DPX/NPS2", 2: "QPX"}, gpu(0), gpu(1), gpu(2), allow=True)
    assert made.steps == ()
    assert [(r.gpu, r.reason) for r in made.refusals] == [
        (ADDRESSES[0], Reason.MEMORY_MODE_CONFLICT),
        (ADDRESSES[1], Reason.MEMORY_MODE_CONFLICT),
    ]
    assert made.refusals[0].message == (
        "GPU 0000:05:00.0 cannot be NPS4: the GPUs of a hive share one memory mode, the wishes are "
        "0000:05:00.0 NPS4, 0000:27:00.0 NPS2"
    )
    assert "one memory mode for all GPUs of the hive" in made.refusals[0].hint


def test_two_hives_may_have_two_memory_modes():
    made = planned({0: "CPX/NPS4", 1: "DPX/NPS2"}, gpu(0, hive=0xA), gpu(1, hive=0xB), allow=True)
    assert steps_of(made) == ["gpu0 ?/NPS1>?/NPS4", "gpu1 ?/NPS1>?/NPS2"]


def test_a_refusal_keeps_the_steps_of_its_hive_back_but_not_those_of_another():
    made = planned({0: "TPX", 1: "CPX", 2: "CPX"}, gpu(0), gpu(1), gpu(2, hive=0xB))
    assert [r.gpu for r in made.refusals] == [ADDRESSES[0]]
    assert steps_of(made) == ["gpu2 SPX/NPS1>CPX/NPS1"]


def test_compute_changes_while_a_memory_mode_is_pending_are_warned_of():
    made = planned({0: "CPX"}, gpu(0), gpu(1), pending_memory={ADDRESSES[0]: MemoryMode.NPS4})
    assert steps_of(made) == ["gpu0 SPX/NPS1>CPX/NPS1"]
    assert made.warnings == (
        "GPU 0000:05:00.0: NPS4 is requested; the next driver load applies it and chooses the compute mode anew",
    )


# -- what is offered ------------------------------------------------------------------------------------------------


def test_an_unknown_model_is_believed_what_its_driver_lists():
    unknown = gpu(0, device_id=0xFFFF, compute_modes="SPX QPX")
    assert steps_of(planned({0: "QPX"}, unknown)) == ["gpu0 SPX/NPS1>QPX/NPS1"]
    (refusal,) = planned({0: "CPX"}, unknown).refusals
    assert refusal.hint == "it offers SPX, QPX there"


def test_an_unknown_model_that_lists_nothing_is_left_alone():
    (refusal,) = planned({0: "CPX"}, gpu(0, device_id=0xFFFF, compute_modes=None)).refusals
    assert refusal.reason is Reason.MODE_NOT_AVAILABLE


def test_a_list_that_is_shorter_than_the_silicon_counts():
    (refusal,) = planned({0: "QPX"}, gpu(0, compute_modes="SPX CPX")).refusals
    assert refusal.hint == "it offers SPX, CPX there"


def test_after_a_memory_change_the_silicon_counts_since_the_list_is_of_the_old_memory_mode():
    made = planned({0: "QPX/NPS4"}, gpu(0, compute_modes="SPX DPX CPX"), allow=True)
    assert steps_of(made)[1:] == ["gpu0 CPX/NPS4>QPX/NPS4 later"]


@pytest.mark.parametrize(
    ("model", "offers"),
    [
        ("MI300A", "SPX TPX CPX"),
        ("MI300X", "SPX DPX QPX CPX"),
        ("MI308X", "SPX DPX CPX"),
        ("MI350X", "SPX DPX QPX CPX"),
    ],
)
def test_what_a_model_offers_in_nps1(model, offers):
    whole = gpu(0, model=model, compute_modes="SPX DPX TPX QPX CPX")  # a driver that lists everything
    for wanted in ("SPX", "DPX", "TPX", "QPX", "CPX"):
        made = planned({0: wanted}, whole)
        assert bool(made.refusals) == (wanted not in offers.split()), wanted


# -- blockers -------------------------------------------------------------------------------------------------------

HOLDERS = (holder(11, 0), holder(12, 1), holder(13, 0, 1), holder(14))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (BusyRule.PER_GPU, [(11, False), (13, False)]),
        (BusyRule.UNKNOWN, [(11, False), (13, False)]),
        (BusyRule.NODE_WIDE, [(11, False), (12, True), (13, False), (14, True)]),
    ],
)
def test_blockers_by_the_rule_of_the_driver(rule, expected):
    made = planned({0: "CPX"}, gpu(0), gpu(1), holders=HOLDERS, rule=rule)
    assert [(b.holder.pid, b.node_wide) for b in made.blockers] == expected
    assert {b.gpu for b in made.blockers} == {ADDRESSES[0]}


def test_nobody_blocks_what_is_not_switched_or_comes_after_a_load():
    assert planned({1: "SPX"}, gpu(0), gpu(1), holders=HOLDERS).blockers == ()
    made = planned({0: "QPX/NPS4"}, gpu(0), gpu(1), holders=HOLDERS, allow=True)
    assert made.steps
    assert made.blockers == ()


# -- random wishes --------------------------------------------------------------------------------------------------


def test_every_wish_is_planned_or_refused_or_met():
    dice = random.Random(20)
    modes = ["SPX", "DPX", "TPX", "QPX", "CPX", "NPS1", "NPS4", "CPX/NPS4", "QPX/NPS2", "SPX/NPS1"]
    for _ in range(300):
        gpus = [gpu(n, dice.choice(["SPX/NPS1", "CPX/NPS1", "DPX/NPS1"])) for n in range(4)]
        wishes = {n: dice.choice(modes) for n in dice.sample(range(5), dice.randint(1, 4))}
        made = planned(wishes, *gpus, allow=dice.random() < 0.5)
        after: dict[str, PartitionMode] = {g.pci_address: g.mode for g in gpus}
        for step in made.steps:
            for address in step.gpus:
                memory = step.after.memory or after[address].memory
                after[address] = PartitionMode(step.after.compute or after[address].compute, memory)
        refused = {r.gpu for r in made.refusals}
        for number, text in wishes.items():
            address, wish = ADDRESSES[number], mode(text)
            if address in refused or made.refusals:
                continue
            assert wish.memory in (None, after[address].memory)
            loaded = made.steps and made.steps[0].kind is StepKind.MEMORY
            if wish.compute is not None and not (loaded and wish.compute.value in ("CPX", "SPX")):
                assert wish.compute is after[address].compute
