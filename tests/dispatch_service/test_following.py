"""The daemon's dispatch service follows the node: what cannot be configured holds up nothing else, and is said."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aimd.daemon.dispatch_served import ServiceSettings
from aimd.daemon.dispatch_service import DispatchService
from aimd.dispatch.numbers import NumberBook
from aimd.dispatch.server import DispatchServer
from aimd.dispatch.values import Limits
from aimd.domain.claim import Assignment, Claim, ClaimSpec, ClaimState, Slo
from aimd.domain.gpu import Gpu, Partition
from aimd.domain.node import GpuStatus, NodeSnapshot

GPU = "0000:05:00.0"


class Following:
    """A service on a real server that nobody is connected to, and the node that it is shown."""

    def __init__(self, folder: Path) -> None:
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(folder / "s"))
        self.listening.listen()
        self.listening.setblocking(False)
        self.names = folder / "names"
        self.server = DispatchServer(Limits(partitions=16, leases=256), self.listening, folder / "leases", "boot")
        self.node = NodeSnapshot(ready=True)
        self.settings = ServiceSettings(slots=8)
        book = NumberBook(self.names)
        self.service = DispatchService(self.server, book, self.settings, lambda: self.node, lambda *_: None)

    def show(self, *claims: Claim, epoch: int = 1, partitions: int = 2) -> None:
        gpu = Gpu(GPU, 0x74A1, tuple(Partition(index, None, None, 1 << 34) for index in range(partitions)))
        generation = self.node.generation + 1
        self.node = NodeSnapshot(generation, (GpuStatus(0, gpu, mode_epoch=epoch),), claims=claims, ready=True)
        self.service.apply()

    def models(self) -> dict[str, list[tuple[int, int]]]:
        """Capacity and guarantee of what the core serves, by partition and model."""
        found: dict[str, list[tuple[int, int]]] = {}
        for (place, model), (key, name) in self.service.served().items():
            (partition,) = [one for one in self.server.snapshot().partitions if one.partition == place]
            assert model in {one.model for one in partition.models if not one.removed}
            found.setdefault(str(key), []).append((partition.capacity, len(name)))
        return found


@pytest.fixture
def following(tmp_path: Path) -> Iterator[Following]:
    made = Following(tmp_path)
    yield made
    made.listening.close()


def claim(name: str, index: int, epoch: int = 1, replicas: int = 1, **spec: object) -> Claim:
    asked = ClaimSpec(1024, replicas=replicas, **spec)
    places = tuple(
        Assignment(name, number, GPU, index, 1024, asked.guarantee, epoch) for number in range(asked.replicas)
    )
    return Claim(name, 0, asked, 0.0, ClaimState.PLACED, places)


def test_a_partition_that_cannot_be_configured_holds_up_no_other(following: Following) -> None:
    following.show(claim("a", 0, guarantee=9), claim("bb", 1))
    assert list(following.models()) == [f"{GPU}/1"]
    (problem,) = following.service.problems
    assert problem.startswith(f"the dispatch service keeps partition {GPU}/0 as it was: guarantees come to 9 slots")
    following.show(claim("a", 0, guarantee=8), claim("bb", 1))
    assert sorted(following.models()) == [f"{GPU}/0", f"{GPU}/1"]
    assert following.service.problems == ()


def test_fewer_slots_than_are_guaranteed_leave_the_partition_as_it_was(following: Following) -> None:
    following.show(claim("a", 0, guarantee=6), claim("bb", 1))
    following.service.reconfigure(replace(following.settings, slots=4))
    assert following.models() == {f"{GPU}/0": [(8, 1)], f"{GPU}/1": [(4, 2)]}
    assert len(following.service.problems) == 1
    following.service.reconfigure(replace(following.settings, slots=6))
    assert following.models() == {f"{GPU}/0": [(6, 1)], f"{GPU}/1": [(6, 2)]}
    assert following.service.problems == ()


def test_what_a_claim_may_say_is_what_the_core_takes(following: Following) -> None:
    following.show(claim("a", 0, replicas=20, limit=4096), claim("bb", 1, slo=Slo(latency_seconds=1e300)))
    assert following.service.problems == ()
    assert sorted(following.models()) == [f"{GPU}/0", f"{GPU}/1"]


def test_bounds_of_the_core_are_told(following: Following) -> None:
    following.show(claim("a", 0), partitions=8)
    following.service.reconfigure(replace(following.settings, slots=100))
    assert len(following.service.problems) == 6, "two of eight find room in 256 leases"
    assert "brings the leases to" in following.service.problems[0]
    assert following.models()[f"{GPU}/0"] == [(100, 1)]


def test_names_of_partitions_that_are_gone_are_forgotten_at_the_next_start(following: Following) -> None:
    for epoch in range(1, 5):
        following.show(claim("a", 0, epoch), epoch=epoch)
    assert len(json.loads(following.names.read_text())) == 9

    async def begin() -> None:
        following.service.begin()
        following.service.close()

    asyncio.run(begin())
    assert sorted(json.loads(following.names.read_text())) == [f"{GPU}/0@4", f"{GPU}/1@4", "model a"]


def test_a_server_that_was_stopped_is_stopped_once_more(following: Following) -> None:
    following.server.start()
    following.server.stop()
    following.server.stop()
