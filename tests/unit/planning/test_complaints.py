"""What of the configuration cannot be carried out: told at a start, as long as it stands, and when it is over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aimd.domain.claim import Claim
from aimd.planning import effects as fx
from tests.fakes.claims import spec
from tests.unit.planning.desk import POLICY, Desk, desk
from tests.unit.planning.paper import ADDRESSES, PaperNode, mode

STRANGE = "layout.gpu9 names no GPU of this node, it has gpu0 to gpu1"


def told(made: Desk) -> list[tuple[str, str]]:
    kinds = ("configuration_problem", "configuration_mended")
    return [(event.kind, event.message) for event in made.ledger.events if event.kind in kinds]


def started(layout: dict[str, str], *modes: str) -> Desk:
    made = Desk(PaperNode(*(modes or ("SPX/NPS1", "SPX/NPS1"))))
    made.start(layout, "d1")
    made.run()
    return made


def reload(made: Desk, layout: dict[str, str], policy=POLICY, digest: str = "d2") -> None:
    made.tell(fx.Reconfigured(policy, {key: mode(text) for key, text in layout.items()}, digest, "d1", {}))
    made.run()


def test_a_layout_of_another_node_is_told_once_after_the_first_scan() -> None:
    made = started({"gpu9": "CPX"})
    assert made.snapshot.warnings == (STRANGE,)
    assert told(made) == [("configuration_problem", STRANGE)]
    made.poll()
    made.poll()
    assert len(told(made)) == 1
    made.start({"gpu9": "CPX"}, "d1")
    assert made.snapshot.warnings == ()
    made.run()
    assert made.snapshot.warnings == (STRANGE,), "every start tells it"
    assert len(told(made)) == 2


def test_what_was_mended_by_a_reload_is_told_too() -> None:
    made = started({"gpu9": "CPX"})
    reload(made, {"gpu1": "CPX"})
    assert made.snapshot.warnings == ()
    assert told(made)[1:] == [("configuration_mended", f"no more: {STRANGE}")]


def test_a_reload_brings_new_ones() -> None:
    made = started({})
    assert told(made) == []
    reload(made, {"gpu9": "CPX"})
    assert made.snapshot.warnings == (STRANGE,)


def test_warnings_of_the_node_and_of_the_configuration_stand_together() -> None:
    made = started({"gpu9": "CPX"})
    made.node.scan_failures = 1
    made.tell(fx.DriverChanged("events_lost", None))
    made.run(lambda: not made.node.scan_failures)
    assert made.snapshot.warnings == ("the topology kept moving", STRANGE)
    asked = len(made.effects)
    made.poll()
    made.poll()
    assert made.snapshot.warnings == (STRANGE,)
    assert sum(isinstance(effect, fx.Scan) for effect in made.effects[asked:]) == 1, "it is no reason to scan again"


def test_a_wish_that_is_refused_stands_until_the_node_allows_it() -> None:
    made = started({"default": "SPX/NPS4"})
    assert [words.partition(", and")[0] for words in made.snapshot.warnings] == [
        f"layout: GPU {address} is in NPS1, NPS4 was wished" for address in ADDRESSES[:2]
    ]
    for paper in made.node.gpus.values():
        paper.memory = paper.memory.NPS4
        paper.file = paper.compute = paper.compute.SPX
    made.node.generation += 9
    made.poll()
    assert made.snapshot.warnings == ()
    assert [kind for kind, _ in told(made)][2:] == ["configuration_mended"] * 2


def test_what_waits_for_a_driver_load_is_no_problem() -> None:
    made = Desk(PaperNode("SPX/NPS1", "SPX/NPS1"), replace(POLICY, allow_memory_mode_change=True))
    made.start({"default": "QPX/NPS4"}, "d1")
    made.run()
    assert made.snapshot.gpus[0].pending_memory is not None
    made.poll()
    assert made.snapshot.warnings == ()


def test_slots_below_guarantees_are_told_until_these_are_released() -> None:
    made = desk("CPX/NPS1")
    assert isinstance(made.claim("m", spec(1, guarantee=10, at=(ADDRESSES[0], 0))), Claim)
    assert isinstance(made.claim("n", spec(1, guarantee=6, at=(ADDRESSES[0], 0))), Claim)
    made.policy = replace(POLICY, slots_per_partition=12)
    made.start()
    made.policy = POLICY  # what is checked: guarantees stay within what they were given of
    made.run()
    words = f"partition {ADDRESSES[0]}/0 has 16 guaranteed slots, placement.slots_per_partition is 12"
    assert [each.startswith(words) for each in made.snapshot.warnings] == [True]
    made.release("n")
    made.poll()
    assert made.snapshot.warnings == ()


@pytest.mark.parametrize("same", [False, True])
def test_a_gpu_that_is_named_twice_gets_neither_mode(same: bool) -> None:
    made = started({"default": "DPX", "gpu1": "CPX", ADDRESSES[1]: "CPX" if same else "QPX"})
    words = (
        f"layout names one GPU twice, as gpu1 = CPX and as {ADDRESSES[1]} = QPX: neither is carried out, give it one"
    )
    assert made.snapshot.warnings == (() if same else (words,))
    assert made.node.modes() == ["DPX/NPS1", "CPX/NPS1" if same else "SPX/NPS1"]


def test_a_reload_before_the_first_scan_counts() -> None:
    made = Desk(PaperNode("SPX/NPS1"))
    made.start({"gpu0": "DPX"}, "d1")
    reload(made, {"gpu0": "CPX"})
    made.run()
    assert made.node.modes() == ["CPX/NPS1"]
    assert made.ledger.layout_digest == "d2"
