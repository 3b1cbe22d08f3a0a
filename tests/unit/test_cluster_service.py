"""The node's turns in its cluster: what is asked, told once, told again, and not lost."""

from __future__ import annotations

import asyncio
from typing import Any

from aimd.daemon.cluster import ClusterService
from aimd.daemon.effective import Effective
from aimd.daemon.published import Published
from aimd.domain.pod import Pod, PodRef
from aimd.errors import UnreachableError
from aimd.planning import effects as fx
from tests.fakes.claims import spec
from tests.fakes.cluster import FakeCluster
from tests.unit.planning.desk import Desk, desk
from tests.unit.test_effective import FILE

ON = {"aimd.dev/gpu-sharing": "enabled", "aimd.dev/memory-limit-gb": "8"}
SERVICE = {"serving.kserve.io/inferenceservice": "llama"}
KEY = ("default", "llama")
POD = Pod(PodRef("default", "llama-1", "u1"), SERVICE, ON)


class Turning:
    """A desk's node in a cluster of its own; a turn is taken when it is asked for."""

    def __init__(self, made: Desk, cluster: FakeCluster | None = None) -> None:
        self.made = made
        self.cluster = cluster or FakeCluster()
        self.posted: list[fx.Event] = []
        self.problems: list[str] = []
        shown = Published(made.snapshot, lambda snapshot: snapshot.generation)
        self.service = ClusterService(
            self.cluster,  # type: ignore[arg-type]
            shown,
            self.posted.append,
            Effective(FILE),
            lambda _event: self.problems,
            {},
            600.0,
        )

    def turn(self) -> None:
        asyncio.run(self.service._turn(self.made.snapshot))
        while self.posted:
            self.made.tell(self.posted.pop(0))
            self.made.run()

    def ready(self) -> dict[str, Any]:
        assert self.cluster.objects.record is not None
        conditions = self.cluster.objects.record["status"]["conditions"]
        return next(each for each in conditions if each["type"] == "PartitioningReady")


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
    turning.cluster.spec, turning.problems = {"layout": {"gpu9": "SPX"}}, ["layout.gpu9 names no GPU of this node"]
    turning.turn()
    for said, words in (({"layout": {"rubbish": "SPX"}}, "rubbish"), ({"layout": {"gpu9": "SPX"}}, "gpu9")):
        turning.cluster.spec = said
        turning.turn()
        assert words in turning.ready()["message"]


def test_pods_of_a_service_that_cannot_be_read_keep_their_place() -> None:
    first = Turning(desk("CPX/NPS1"))
    first.cluster.the_pods = (POD,)
    first.turn()
    again = Turning(first.made)
    again.cluster.the_pods = (POD,)

    def unreachable(*_key: str) -> None:
        raise UnreachableError("the API server does not answer")

    again.cluster.objects.service = unreachable  # type: ignore[method-assign,assignment]
    again.cluster.full = {"service default/llama"}
    again.turn()
    assert again.made.ledger.claims["default/llama"].assignments
