"""ResourceClaims on a running daemon and a simulated node: from Prepare to a file, from a waiting pod to its condition."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aimd.daemon.devices.binding import Binding
from aimd.daemon.devices.files import Files
from aimd.daemon.devices.kubelet import Kubelet
from aimd.daemon.devices.offering import Offering
from aimd.daemon.devices.reserving import Reservations
from aimd.domain.dra import ClaimRef, PreparedDevice
from aimd.domain.modes import ComputeMode, PartitionMode
from aimd.domain.pod import Pod, PodRef
from aimd.errors import AimdError, CdiError, ConflictError, InvalidInputError, NotFoundError, UnreachableError
from aimd.planning.dra.cdi import NodeFiles
from aimd.planning.dra.surroundings import Surroundings
from aimd.planning.policy import Policy
from aimd.sim.node import SimulatedNode
from tests.fakes.claims import spec
from tests.fakes.device_cluster import POOL, FakeClaims, FakeFiles, FakeKubeletDriver, FakePool
from tests.fakes.node import ADDRESSES, RunningNode, fast_state, running_node
from tests.integration.stories import join, leave

CPX = {"default": PartitionMode.parse("CPX/NPS1")}
QUICK = Policy(wait_seconds=0.3, settle_seconds=1.0, wish_retry_seconds=0.2)


def ref(name: str) -> ClaimRef:
    return ClaimRef("default", name, f"claim-{name}")


def pod(name: str, *claims: str, version: str = "1") -> Pod:
    """A pod of service llama with these claims."""
    labels = {"serving.kserve.io/inferenceservice": "llama"}
    found = PodRef("default", name, f"uid-{name}")
    return Pod(found, labels, resource_claims=claims or (name,), version=version)


@dataclass
class World:
    """The daemon's part for devices, on a running node."""

    node: RunningNode
    claims: FakeClaims
    pool: FakePool
    files: FakeFiles
    driver: FakeKubeletDriver
    pods: dict[str, Pod]
    kubelet: Kubelet
    changed: asyncio.Event

    async def prepare(self, name: str, seconds: float = 5.0) -> list[PreparedDevice]:
        return list(await asyncio.to_thread(self.kubelet.prepare, ref(name), time.monotonic() + seconds))

    async def unprepare(self, name: str) -> None:
        await asyncio.to_thread(self.kubelet.unprepare, ref(name), time.monotonic() + 5)

    def waits(self, name: str, device: str, **more: Any) -> None:
        """A pod that is nominated to the node, its claim allocated."""
        self.claims.allocate(name, device, waits=True, **more)
        self.pods[name] = pod(name, version=str(time.monotonic()))
        self.changed.set()

    def placed(self) -> dict[str, tuple[str, int, int]]:
        """GPU, index and MiB of each claim that the ledger has a place for."""
        found = {}
        for claim in self.node.snapshot.claims:
            places = {one.replica: one for one in claim.assignments}
            for one in claim.pods:
                if one.device is not None and one.replica in places:
                    place = places[one.replica]
                    found[one.device.claim] = (place.gpu, place.index, place.memory_units)
        return found


async def until(condition: Callable[[], object], words: str = "it never happens", seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, words
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def world(
    directory: Path | None = None, sim: SimulatedNode | None = None, files: FakeFiles | None = None
) -> AsyncIterator[World]:
    """With a node of an earlier life it goes on from there, else both GPUs are in CPX."""
    claims, pool, files, driver = FakeClaims(), FakePool(), files or FakeFiles(), FakeKubeletDriver()
    async with running_node(sim or fast_state(), layout=CPX, digest="1", directory=directory, policy=QUICK) as node:
        if sim is None:
            await node.until(lambda s: all(g.gpu.compute_mode is ComputeMode.CPX and g.change is None for g in s.gpus))
        pods: dict[str, Pod] = {}
        by_uid = lambda found: next((each for each in pods.values() if each.ref.uid == found.uid), None)  # noqa: E731
        shown, changed = node.loop._node, asyncio.Event()
        reservations = Reservations(node.loop, shown, POOL, by_uid)
        written = Files(files, shown, POOL, NodeFiles())
        offering = Offering(pool, driver, shown, POOL, Surroundings)
        kubelet = Kubelet(asyncio.get_running_loop(), reservations, claims, written)
        binding = Binding(reservations, claims, offering, pods.values, changed, patience_seconds=0.3)
        async with written.running(), offering.running(), binding.running():
            yield World(node, claims, pool, files, driver, pods, kubelet, changed)


def test_what_the_kubelet_gets() -> None:
    async def run() -> None:
        async with world() as w:
            w.claims.allocate("llama-1", "gpu1-cpx-5")
            w.pods["llama-1"] = pod("llama-1")
            (device,) = await w.prepare("llama-1")
            names = ("gpu.aimd.dev/claim=claim-llama-1-gpu",)
            assert (device.pool, device.device, device.cdi_ids) == (POOL, "gpu1-cpx-5", names)
            assert w.placed() == {"llama-1": (ADDRESSES[1], 5, 8192)}
            (container,) = w.files.files["claim-llama-1"]
            minor = w.node.snapshot.gpus[1].gpu.partitions[5].render_minor
            assert [node.path for node in container.nodes] == ["/dev/kfd", f"/dev/dri/renderD{minor}"]
            assert container.environment["AIM_CLAIM"] == "default/llama"
            assert await w.prepare("llama-1") == [device]
            await w.unprepare("llama-1")
            assert (w.placed(), w.files.files, w.node.snapshot.claims) == ({}, {}, ())
            await w.unprepare("llama-1")

    asyncio.run(run())


def test_a_gpu_in_another_mode_is_switched_inside_the_call() -> None:
    async def run() -> None:
        async with world() as w:
            w.claims.allocate("llama-1", "gpu0-spx-0", memory="100Gi")
            w.pods["llama-1"] = pod("llama-1")
            await w.prepare("llama-1")
            assert w.node.snapshot.gpus[0].gpu.compute_mode is ComputeMode.SPX

    asyncio.run(run())


def test_a_neighbour_that_is_not_gone_yet_is_waited_for() -> None:
    async def run() -> None:
        async with world() as w:
            join(w.node.sim, 0, pid=4711)
            await w.node.until(lambda s: bool(s.holders))
            w.claims.allocate("llama-1", "gpu0-spx-0", memory="100Gi")
            w.pods["llama-1"] = pod("llama-1")
            with pytest.raises(ConflictError, match=r"claim default/llama-1 has no partition yet: .*4711"):
                await w.prepare("llama-1", 2.5)
            leave(w.node.sim, 4711)
            await w.prepare("llama-1")
            assert w.placed() == {"llama-1": (ADDRESSES[0], 0, 102400)}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("about", "error", "words"),
    [
        ("gone", NotFoundError, "claim default/llama-1 does not exist"),
        ("elsewhere", NotFoundError, "has no device of node node-a"),
        ("mistake", InvalidInputError, "capacity memory is 25Gi"),
        ("pod", NotFoundError, "pod default/llama-1 of claim default/llama-1 is not known"),
        ("nobody", ConflictError, "is reserved for no pod"),
        ("cluster", UnreachableError, "no answer"),
        ("disk", CdiError, "no space left"),
    ],
)
def test_what_cannot_be_prepared_is_said_in_a_sentence(about: str, error: type[AimdError], words: str) -> None:
    async def run() -> None:
        async with world() as w:
            memory = "25Gi" if about == "mistake" else "8Gi"
            pool = "node-b" if about == "elsewhere" else POOL
            item = w.claims.allocate("llama-1", "gpu1-cpx-5", memory=memory, pool=pool)
            if about != "pod":
                w.pods["llama-1"] = pod("llama-1")
            if about == "gone":
                w.claims.items.clear()
            if about == "nobody":
                w.claims.put({**item, "status": {**item["status"], "reservedFor": []}})
            if about == "cluster":
                w.claims.failing = UnreachableError("no answer")
            if about == "disk":
                w.files.failing = CdiError("no space left")
            with pytest.raises(error, match=words):
                await w.prepare("llama-1", 1.3)
            assert w.files.files == {}
            assert ("llama-1" in w.placed()) == (about == "disk"), "what is reserved is given back by the kubelet"

    asyncio.run(run())


def test_a_restart_writes_the_files_from_the_ledger_and_removes_those_of_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        files = FakeFiles()
        async with world(tmp_path, files=files) as w:
            for name, device in (("llama-1", "gpu1-cpx-5"), ("llama-2", "gpu1-cpx-6")):
                w.claims.allocate(name, device)
                w.pods[name] = pod(name)
                await w.prepare(name)
            kept = dict(files.files)
        files.files = {"claim-of-nobody": kept["claim-llama-1"], "claim-llama-2": ()}
        async with world(tmp_path, sim=w.node.sim, files=files) as again:
            await until(lambda: files.files == kept, f"{files.files}")
            assert set(again.placed()) == {"llama-1", "llama-2"}
            again.claims.failing = UnreachableError("no answer")
            await again.unprepare("llama-1")
            assert set(files.files) == {"claim-llama-2"}

    asyncio.run(run())


# -- before a pod is bound -------------------------------------------------------------------------------------------


def test_a_pod_that_waits_for_a_mode_is_told_when_it_is_there() -> None:
    async def run() -> None:
        async with world() as w:
            w.waits("llama-1", "gpu0-spx-0", memory="100Gi")
            await until(lambda: w.claims.conditions("llama-1").get("ready", ("",))[0] == "True")
            assert w.placed() == {"llama-1": (ADDRESSES[0], 0, 102400)}
            assert "failed" not in w.claims.conditions("llama-1")
            await w.prepare("llama-1")
            assert len(w.node.snapshot.claims[0].pods) == 1

    asyncio.run(run())


def test_what_cannot_be_switched_is_told_after_the_taint_and_given_back() -> None:
    async def run() -> None:
        async with world() as w:
            join(w.node.sim, 0, pid=4711)
            await w.node.until(lambda s: bool(s.holders))
            tainted: list[bool] = []

            def look(item: dict[str, Any]) -> None:
                keys = [taint["key"] for taint in w.pool.devices()["gpu0-spx-0"].get("taints", [])]
                failed = [
                    c for entry in item["status"]["devices"] for c in entry["conditions"] if "failed" in c["type"]
                ]
                if any(each["status"] == "True" for each in failed):
                    tainted.append("gpu.aimd.dev/fixed-mode" in keys)

            w.claims.on_applied = look
            w.waits("llama-1", "gpu0-spx-0", memory="100Gi")
            await until(lambda: w.claims.conditions("llama-1").get("failed", ("",))[0] == "True")
            assert "4711" in w.claims.conditions("llama-1")["failed"][1]
            assert tainted == [True]
            await until(lambda: w.node.snapshot.claims == ())
            await asyncio.sleep(0.3)
            assert w.node.snapshot.claims == (), "an allocation that has failed is taken up again"
            leave(w.node.sim, 4711)
            await w.node.until(lambda s: not s.holders)
            w.claims.deallocate("llama-1")
            w.waits("llama-1", "gpu0-spx-0", memory="100Gi")
            await until(lambda: w.claims.conditions("llama-1").get("ready", ("",))[0] == "True")

    asyncio.run(run())


def test_who_is_about_to_leave_is_waited_for() -> None:
    async def run() -> None:
        async with world() as w:
            join(w.node.sim, 0, pid=4711)
            await w.node.until(lambda s: bool(s.holders))
            w.waits("llama-1", "gpu0-spx-0", memory="100Gi")
            await until(lambda: w.node.snapshot.claims)
            leave(w.node.sim, 4711)
            await until(lambda: w.claims.conditions("llama-1").get("ready", ("",))[0] == "True")
            assert "failed" not in w.claims.conditions("llama-1")

    asyncio.run(run())


def test_a_claim_that_is_allocated_after_its_pod_is_nominated_is_found() -> None:
    async def run() -> None:
        async with world() as w:
            w.claims.put({"metadata": {"namespace": "default", "name": "llama-1", "uid": "claim-llama-1"}})
            w.pods["llama-1"] = pod("llama-1")
            w.changed.set()
            await until(lambda: w.claims.asked)
            w.claims.allocate("llama-1", "gpu0-spx-0", memory="100Gi", waits=True)
            began = time.monotonic()
            await until(w.placed)
            assert time.monotonic() - began < 2

    asyncio.run(run())


def test_a_pod_that_is_deleted_while_it_waits_gives_back_what_was_reserved() -> None:
    async def run() -> None:
        async with world() as w:
            join(w.node.sim, 0, pid=4711)
            await w.node.until(lambda s: bool(s.holders))
            w.waits("llama-1", "gpu1-qpx-1", memory="40Gi")
            await until(lambda: w.placed() or w.claims.conditions("llama-1"))
            del w.pods["llama-1"]
            w.claims.deallocate("llama-1")
            w.changed.set()
            await until(lambda: w.node.snapshot.claims == (), seconds=12)

    asyncio.run(run())


def test_a_mistake_in_a_claim_fails_its_binding() -> None:
    async def run() -> None:
        async with world() as w:
            w.waits("llama-1", "gpu0-spx-0", memory="500Gi")
            await until(lambda: w.claims.conditions("llama-1").get("failed", ("",))[0] == "True")
            assert "capacity memory is 500Gi" in w.claims.conditions("llama-1")["failed"][1]
            assert w.node.snapshot.claims == ()

    asyncio.run(run())


def test_an_api_server_that_is_away_delays_it_and_no_more() -> None:
    async def run() -> None:
        async with world() as w:
            w.claims.failing = UnreachableError("no answer")
            w.waits("llama-1", "gpu0-spx-0", memory="100Gi")
            await until(lambda: w.claims.asked)
            w.claims.failing = None
            await until(lambda: w.claims.conditions("llama-1").get("ready", ("",))[0] == "True")

    asyncio.run(run())


def test_another_allocation_of_the_same_claim_takes_the_place_of_the_first() -> None:
    async def run() -> None:
        async with world() as w:
            w.waits("llama-1", "gpu0-qpx-1", memory="40Gi")
            await until(lambda: w.claims.conditions("llama-1").get("ready", ("",))[0] == "True")
            w.waits("llama-1", "gpu1-qpx-2", memory="40Gi")
            await until(lambda: w.placed() == {"llama-1": (ADDRESSES[1], 2, 40960)}, f"{w.placed()}")
            await until(lambda: w.claims.conditions("llama-1").get("ready", ("",))[0] == "True")

    asyncio.run(run())


def test_a_binding_goes_on_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with world(tmp_path) as w:
            w.waits("llama-1", "gpu0-spx-0", memory="100Gi")
            await until(lambda: w.node.snapshot.claims)
        async with world(tmp_path, sim=w.node.sim) as again:
            again.claims.put({**w.claims.items["default", "llama-1"]})
            again.pods["llama-1"] = pod("llama-1")
            again.changed.set()
            await until(lambda: again.claims.conditions("llama-1").get("ready", ("",))[0] == "True")
            assert again.placed() == {"llama-1": (ADDRESSES[0], 0, 102400)}

    asyncio.run(run())


# -- what is offered -------------------------------------------------------------------------------------------------


def test_the_pool_follows_the_node() -> None:
    async def run() -> None:
        async with world() as w:
            await until(lambda: "gpu0-cpx-0" in w.pool.devices())
            assert len(w.pool.devices()) == 2 * 15
            assert "bindingConditions" not in w.pool.devices()["gpu0-cpx-0"]
            assert w.pool.devices()["gpu0-spx-0"]["bindsToNode"] is True
            first = w.pool.generations[-1]
            await w.node.switch((0, "SPX/NPS1"))
            await until(lambda: "bindingConditions" not in w.pool.devices()["gpu0-spx-0"])
            assert w.pool.generations[-1] > first
            await until(lambda: w.driver.health["gpu0-spx-0"].healthy is True)
            assert w.driver.health["gpu0-cpx-0"].healthy is None
            w.pool.slices = w.pool.slices[:1]
            w.pool.changed()
            assert len(w.pool.devices()) == 2 * 15

    asyncio.run(run())


def test_what_others_reserve_is_not_offered() -> None:
    async def run() -> None:
        async with world() as w:
            await w.node.loop.claim("local", spec(20, "CPX"), uid=0)
            place = w.node.snapshot.claims[0].assignments[0]
            name = f"gpu{ADDRESSES.index(place.gpu)}-cpx-{place.index}"
            await until(lambda: w.pool.devices()[name]["capacity"]["memory"]["value"] == "4Gi")

    asyncio.run(run())
