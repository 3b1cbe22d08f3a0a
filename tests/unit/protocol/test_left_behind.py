"""What is kept for processes without their claim, as the API tells it."""

from __future__ import annotations

from aimd.domain.process import Process
from aimd.protocol.convert import gpu_messages
from aimd.protocol.messages import LeftBehindMessage
from tests.fakes.claims import spec
from tests.unit.planning.desk import Desk, desk
from tests.unit.planning.paper import ADDRESSES


def kept(made: Desk) -> list[list[LeftBehindMessage]]:
    return [gpu.left_behind for gpu in gpu_messages(made.snapshot)]


def test_nothing_is_kept_for_a_process_at_its_claim() -> None:
    made = desk("CPX/NPS1", "CPX/NPS1")
    made.claim("m", spec(12, at=(ADDRESSES[1], 3), guarantee=4))
    made.join("m", 7)
    assert kept(made) == [[], []]


def test_a_released_claim_whose_processes_go_on() -> None:
    made = desk("CPX/NPS1", "CPX/NPS1")
    made.claim("m", spec(12, at=(ADDRESSES[1], 3), guarantee=4))
    made.join("m", 7)
    made.join("m", 8)
    made.end(8, left=(Process(9, 5, "worker"),))
    made.release("m")
    nothing, (left,) = kept(made)
    assert nothing == []
    assert (left.name, left.claim, left.replica) == ("m/0", "m", 0)
    assert (left.partition, left.partition_name) == (f"{ADDRESSES[1]}/3", "gpu1/3")
    assert (left.memory_gb, left.guarantee, left.released_at) == (12, 4, 1_000_000 + made.now)
    assert [(each.pid, each.command) for each in left.processes] == [(7, "python serve.py"), (9, "worker")]
    made.end(7)
    made.end(8)
    assert kept(made) == [[], []]


def test_what_is_kept_is_in_the_order_of_the_partitions() -> None:
    made = desk("CPX/NPS1")
    for name, index, pid in (("a", 5, 1), ("b", 2, 2)):
        made.claim(name, spec(12, at=(ADDRESSES[0], index)))
        made.join(name, pid)
        made.release(name)
    assert [left.partition_name for left in kept(made)[0]] == ["gpu0/2", "gpu0/5"]


def test_a_claim_that_is_elsewhere_now_is_not_released() -> None:
    """Its GPU was away for a while, and is in the same mode epoch again."""
    made = desk("CPX/NPS1", "CPX/NPS1")
    made.claim("m", spec(12, "CPX"))
    made.join("m", 7)
    paper = made.node.gpus[ADDRESSES[0]]
    paper.on_the_bus = False
    made.node.generation += 1
    made.poll()
    paper.on_the_bus = True
    made.node.generation += 1
    made.poll()
    (left,) = kept(made)[0]
    assert (left.released_at, left.partition_name) == (None, "gpu0/0")
