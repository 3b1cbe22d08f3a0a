"""No shorter way: an exhaustive search over small nodes finds no plan with fewer switches.

The rules of the hardware stand here once more, from the hardware notes and not from the code.
"""

from __future__ import annotations

import itertools

import pytest

from aimd.domain.plan import Desired, StepKind
from aimd.planning.planner import plan
from tests.unit.planning.paper import ADDRESSES, gpu, mode, observed

FITS = {"NPS1": ("SPX", "DPX", "QPX", "CPX"), "NPS2": ("DPX",), "NPS4": ("QPX", "CPX")}  # MI300X
AFTER_LOAD = {"NPS1": "SPX", "NPS2": "DPX", "NPS4": "CPX"}
State = tuple[str, tuple[str, ...]]  # memory mode of the hive, compute mode of each GPU


def successors(state: State, memory_wish: str | None):
    """Each state that one switch leads to; nobody changes a memory mode that is not wished."""
    memory, compute = state
    for number, wanted in itertools.product(range(len(compute)), FITS[memory]):
        if wanted != compute[number]:
            yield memory, (*compute[:number], wanted, *compute[number + 1 :])
    if memory_wish is not None and memory_wish != memory:
        yield memory_wish, (AFTER_LOAD[memory_wish],) * len(compute)


def fewest(start: State, compute_wish: tuple[str | None, ...], memory_wish: str | None) -> int | None:
    """Switches on a shortest way, None if there is no way."""

    def met(state: State) -> bool:
        fits = all(wish in (None, now) for wish, now in zip(compute_wish, state[1], strict=True))
        return fits and memory_wish in (None, state[0])

    reached, border, switches = {start}, {start}, 0
    while border:
        if any(met(state) for state in border):
            return switches
        border = {after for state in border for after in successors(state, memory_wish)} - reached
        reached |= border
        switches += 1
    return None


def cases(count: int):
    computes = [None, "SPX", "DPX", "QPX", "CPX"]
    for memory, wished_memory in itertools.product(FITS, [None, *FITS]):
        for start in itertools.product(FITS[memory], repeat=count):
            for wish in itertools.product(computes, repeat=count):
                yield (memory, start), wish, wished_memory


def steps(start: State, compute_wish, memory_wish):
    memory, compute = start
    offered = " ".join(FITS[memory])
    gpus = [gpu(number, f"{now}/{memory}", compute_modes=offered) for number, now in enumerate(compute)]
    wishes = {}
    for number, wanted in enumerate(compute_wish):
        text = "/".join(part for part in (wanted, memory_wish) if part)
        if text:
            wishes[ADDRESSES[number]] = mode(text)
    made = plan(Desired(wishes, True), observed(*gpus))
    return None if made.refusals else made.steps


@pytest.mark.parametrize("count", [1, 2])
def test_every_case_of_a_small_node(count):
    for start, compute_wish, memory_wish in cases(count):
        found, best = steps(start, compute_wish, memory_wish), fewest(start, compute_wish, memory_wish)
        told = f"{start} to {compute_wish} {memory_wish}: {found}"
        assert (found is None) == (best is None), told
        if found is None:
            continue
        assert len(found) == best, told
        switched = [step.gpu for step in found if step.kind is StepKind.COMPUTE]
        assert len(switched) == len(set(switched)), told
        assert sum(step.kind is StepKind.MEMORY for step in found) == (memory_wish not in (None, start[0])), told


def test_some_cases_of_a_larger_node():
    for start, compute_wish, memory_wish in itertools.islice(cases(3), 0, None, 37):
        found, best = steps(start, compute_wish, memory_wish), fewest(start, compute_wish, memory_wish)
        assert (None if found is None else len(found)) == best, f"{start} to {compute_wish} {memory_wish}: {found}"
