"""The node's turns in its cluster: what is asked, told once, told again, and not lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from aimd.errors import DeniedError, UnreachableError
from aimd.planning import effects as fx
from tests.fakes.claims import spec
from tests.fakes.cluster_turns import KEY, ON, POD, Turning, pod
from tests.unit.planning.desk import desk
from tests.unit.planning.paper import ADDRESSES, PaperNode


def test_what_was_told_is_not_told_again() -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.cluster.the_pods = (POD,)
    turning.cluster.objects.services[KEY] = {"metadata": {"resourceVersion": "1"}}
    turning.turn()
    turning.turn()
    assert turning.made.ledger.claims["default/llama"].assignments
    written = len(turning.cluster.written)
    turning.turn()
    assert len(turning.cluster.written) == written
    assert turning.cluster.told.count((POD.ref, "PartitionAssigned")) == 1


def test_a_restart_tells_no_pod_again_what_it_was_told() -> None:
    """But what is otherwise since."""
    first = Turning(desk("CPX/NPS1"))
    big = replace(pod(2), annotations=ON | {"aimd.dev/memory-limit-gb": "900"})
    first.cluster.the_pods = (POD, big)
    first.turn()
    assert [reason for _, reason in first.cluster.told] == ["PartitionAssigned", "MemoryTooLarge"]
    again = Turning(first.made)
    again.cluster.the_pods = (POD, big)
    again.turn()
    assert again.cluster.told == []
    again.cluster.the_pods = (POD, big, pod(3))
    again.turn()
    assert again.cluster.told == [(pod(3).ref, "PartitionAssigned")]


def test_a_mistake_is_told_once_while_other_pods_come_and_go() -> None:
    turning = Turning(desk("CPX/NPS1"))
    wrong = replace(POD, annotations=ON | {"aimd.dev/compute-mode": "XXX"})
    for pods in ((wrong,), (wrong, pod(2)), (wrong,), (wrong, pod(2, version="2"), pod(3))):
        turning.cluster.the_pods = pods
        turning.turn()
    assert turning.cluster.told.count((wrong.ref, "InvalidGpuSharing")) == 1


def test_a_write_that_is_not_accepted_is_tried_again() -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.cluster.the_pods, turning.cluster.full = (POD,), {"service default/llama"}
    turning.turn()
    assert "service default/llama" not in turning.cluster.written
    turning.cluster.full.clear()
    turning.turn()
    assert "service default/llama" in turning.cluster.written


def test_a_service_whose_pods_went_before_the_start_is_told_also_when_the_first_write_is_not_accepted() -> None:
    first = Turning(desk("CPX/NPS1"))
    first.cluster.the_pods = (POD,)
    first.turn()
    again = Turning(first.made)
    again.cluster.full = {"service default/llama"}
    again.turn()
    again.cluster.full.clear()
    again.turn()
    assert again.cluster.written.count("service default/llama") == 1
    again.turn()
    assert again.cluster.written.count("service default/llama") == 1


def test_the_record_goes_with_its_node() -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.cluster.objects.the_node = None
    turning.turn()
    assert turning.cluster.objects.created == []
    turning.cluster.objects.the_node = {"metadata": {"uid": "n2"}}
    turning.made.claim("m", spec(4))
    turning.turn()
    assert turning.cluster.objects.created[0]["ownerReferences"][0]["uid"] == "n2"


def test_the_record_is_made_when_its_node_is_there_at_last() -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.cluster.objects.the_node = None
    turning.turn()
    written = len(turning.cluster.written)
    turning.turns(20)
    assert len(turning.cluster.written) == written
    turning.cluster.objects.the_node = {"metadata": {"uid": "n2"}}
    turning.turns(11)
    assert len(turning.cluster.objects.created) == 1


def test_a_record_that_was_deleted_is_made_again_at_once() -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.turn()
    turning.turn()
    turning.cluster.objects.record = None
    turning.turn()
    assert len(turning.cluster.objects.created) == 2


def test_a_mistake_in_the_spec_is_told_until_it_is_mended() -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.turn()
    turning.cluster.spec = {"layout": {"rubbish": "SPX"}}
    turning.turn()
    assert turning.ready()["reason"] == "SpecRefused"
    turning.cluster.spec = {}
    turning.turn()
    assert turning.ready()["reason"] == "Ready"


def test_what_cannot_be_carried_out_stays_told_beside_a_mistake_that_comes_and_goes() -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.turn()
    turning.cluster.spec = {"layout": {"gpu9": "SPX"}}
    turning.turn()
    for said, words in (({"layout": {"rubbish": "SPX"}}, "rubbish"), ({"layout": {"gpu9": "SPX"}}, "gpu9")):
        turning.cluster.spec = said
        turning.turn()
        assert words in turning.ready()["message"]


def test_what_cannot_be_carried_out_is_told_as_long_as_it_is_so() -> None:
    """A GPU that the layout names comes later; one that it names goes."""
    node = PaperNode("CPX/NPS1", "CPX/NPS1")
    node.gpus[ADDRESSES[1]].on_the_bus = False
    turning = Turning(desk(node=node))
    turning.cluster.spec = {"layout": {"gpu1": "CPX"}}
    turning.turn()
    assert "gpu1 names no GPU" in turning.ready()["message"]
    node.gpus[ADDRESSES[1]].on_the_bus = True
    turning.made.tell(fx.DriverChanged("gpu_added", ADDRESSES[1]))
    turning.made.run()
    turning.turn()
    assert turning.ready()["reason"] == "Ready"


def test_another_manager_counts_beside_a_spec_with_a_mistake() -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.cluster.spec = {"layout": ["rubbish"]}
    turning.cluster.objects.slices = [{"spec": {"driver": "gpu.amd.com", "nodeName": "node-a"}}]
    turning.turn()
    assert turning.ready()["reason"] == "ConflictingManager"
    assert turning.made.reconciler._policy.rivals
    assert "layout is a list" in (turning.service._refused or "")


def test_pods_of_a_service_that_cannot_be_read_keep_their_place() -> None:
    first = Turning(desk("CPX/NPS1"))
    first.cluster.the_pods = (POD,)
    first.turn()
    again = Turning(first.made)
    again.cluster.the_pods = (POD,)

    again.cluster.objects.failing["service"] = UnreachableError("the API server does not answer")
    again.cluster.full = {"service default/llama"}
    again.turn()
    assert again.made.ledger.claims["default/llama"].assignments


def test_nothing_is_begun_before_other_managers_were_looked_for() -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.cluster.the_pods = (POD,)
    turning.cluster.objects.failing["resource_slices"] = UnreachableError("the API server does not answer")
    turning.turn()
    assert "default/llama" not in turning.made.ledger.claims
    assert turning.cluster.written == []
    turning.cluster.objects.failing.clear()
    turning.cluster.retry()
    turning.turn()
    assert turning.made.ledger.claims["default/llama"].assignments


def test_who_may_not_look_for_other_managers_goes_on() -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.cluster.the_pods = (POD,)
    turning.cluster.objects.failing["resource_slices"] = DeniedError("not yours")
    turning.turn()
    assert turning.made.ledger.claims["default/llama"].assignments


def test_other_managers_are_looked_for_every_minute() -> None:
    turning = Turning(desk("CPX/NPS1"))
    for _ in range(121):
        turning.turn(1)
    assert turning.cluster.objects.asked.count("resource_slices") == 3


def test_a_node_that_only_looks_at_itself_writes_nothing() -> None:
    """Every poll publishes the node anew."""
    turning = Turning(desk("CPX/NPS1"))
    turning.turn()
    written = len(turning.cluster.written)
    for _ in range(100):
        turning.made.tell(fx.PollDue())
        turning.made.run()
        turning.turn(5)
    assert len(turning.cluster.written) == written


async def until(reached: Callable[[], bool]) -> None:
    while not reached():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


def test_a_turn_that_fails_is_not_the_last_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.turn()

    class Odd:
        """No pod that anybody thought of."""

    turning.cluster.the_pods = (Odd(),)

    async def run() -> None:
        async with turning.service.running():
            await until(lambda: turning.service.failures == 1)
            turning.cluster.the_pods = (POD,)
            await until(lambda: bool(turning.posted))

    asyncio.run(asyncio.wait_for(run(), 10))
    (record,) = caplog.records
    assert "a turn in the cluster has failed, the next is in 1 s" in record.message
    assert record.exc_info is not None
    assert turning.service.failures == 1


def test_it_ends_in_the_pause_after_a_turn_that_has_failed() -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.turn()
    turning.cluster.the_pods = (object(),)

    async def run() -> float:
        async with turning.service.running():
            await until(lambda: turning.service.failures == 1)
            ended = time.monotonic()
        return time.monotonic() - ended

    assert asyncio.run(asyncio.wait_for(run(), 10)) < 0.5


def test_what_is_read_wakes_the_next_turn_also_when_nobody_is_there_any_more() -> None:
    turning = Turning(desk("CPX/NPS1"))

    async def run() -> None:
        async with turning.service.running():
            await asyncio.sleep(0)

    asyncio.run(run())
    turning.service._wake()
