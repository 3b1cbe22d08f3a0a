"""What the part in the cluster tells of itself: nothing that is not known, and what it cannot carry out."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from aimd.domain.cluster import KubeStatistics
from aimd.errors import UnreachableError
from tests.fakes.cluster import FakeCluster
from tests.fakes.cluster_turns import ON, POD, Turning
from tests.unit.planning.desk import desk


class CountingCluster(FakeCluster):
    def statistics(self) -> KubeStatistics:
        return KubeStatistics(server="https://10.0.0.1:6443")


def turning() -> Turning:
    return Turning(desk("CPX/NPS1"), CountingCluster())


def test_before_the_first_turn() -> None:
    standing = turning().service.standing()
    assert (standing.node, standing.statistics.server) == ("node-a", "https://10.0.0.1:6443")
    assert (standing.rivals, standing.refused, standing.pods_refused, standing.failures) == (None, None, {}, 0)


def test_other_managers_are_unknown_until_the_node_was_read() -> None:
    one = turning()
    one.cluster.objects.failing["node"] = UnreachableError("away")
    one.turn()
    assert one.service.standing().rivals is None
    one.cluster.objects.failing.clear()
    one.cluster.retry()
    one.turn()
    assert one.service.standing().rivals == ()


def test_another_manager() -> None:
    one = turning()
    one.cluster.objects.the_node = {"metadata": {"uid": "n1"}, "status": {"capacity": {"amd.com/gpu": "8"}}}
    one.turn()
    assert one.service.standing().rivals == ("a device plugin offers amd.com/gpu on the node",)


def test_what_is_asked_for_in_vain() -> None:
    one = turning()
    one.cluster.spec = {"layout": {"gpu0": "XYZ"}}
    one.cluster.the_pods = (replace(POD, annotations=ON | {"aimd.dev/memory-limit-gb": "-1"}),)
    one.turn()
    one.turn()
    standing = one.service.standing()
    assert standing.refused is not None
    assert "XYZ" in standing.refused
    assert list(standing.pods_refused) == ["default/llama-1"]
    assert "-1" in standing.pods_refused["default/llama-1"]
    one.cluster.spec, one.cluster.the_pods = {}, (POD,)
    one.turn()
    assert (one.service.standing().refused, one.service.standing().pods_refused) == (None, {})


def test_it_turns_also_while_the_cluster_is_away() -> None:
    """Idle is what does not turn any more, not what has nothing to compare."""
    one = turning()
    one.cluster.synced = False

    async def idle() -> list[float]:
        found = [one.service.standing().idle_seconds]
        async with one.service.running():
            await asyncio.sleep(1.5)
            found.append(one.service.standing().idle_seconds)
        await asyncio.sleep(0.3)
        return [*found, one.service.standing().idle_seconds]

    before, turned, after = asyncio.run(idle())
    assert before < 1
    assert turned < 1.4
    assert after > 0.3
