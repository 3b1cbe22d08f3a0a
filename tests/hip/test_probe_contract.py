"""What every ports.MemoryProbe promises, asked of the real one and of the fake."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from aimd.domain.probe import ProbeState
from tests.fakes.probe import FakeProbe
from tests.hip.simulated import ADDRESSES, node_in, probe_of

GPU = ADDRESSES[0]


@pytest.fixture(params=["helper", "fake"])
def make(request, tmp_path: Path):
    """A function that makes the probe inside the event loop; its node has one GPU in DPX."""
    with contextlib.ExitStack() as stack:
        if request.param == "fake":
            yield lambda: FakeProbe({GPU: [(5, 10), (7, 10)]})
            return
        library = request.getfixturevalue("stubs").build()
        node, socket = stack.enter_context(node_in(tmp_path, mode="DPX/NPS1", count=1))
        yield lambda: probe_of(node, socket, library)


def test_memory_is_told_by_partition(make) -> None:
    async def story() -> None:
        report = await make().probe(GPU)
        assert (report.gpu, report.state, report.message) == (GPU, ProbeState.READ, None)
        assert [each.index for each in report.partitions] == [0, 1]
        assert all(0 < each.free_bytes <= each.total_bytes for each in report.partitions)

    asyncio.run(story())


def test_an_unknown_gpu_has_moved(make) -> None:
    async def story() -> None:
        report = await make().probe("0000:fe:00.0")
        assert (report.state, report.partitions) == (ProbeState.MOVED, ())

    asyncio.run(story())


def test_each_key_holds_once(make) -> None:
    async def story() -> None:
        probe = make()

        async def state() -> ProbeState:
            return (await probe.probe(GPU)).state

        assert [await probe.hold("a"), await probe.hold("a"), await probe.hold("b")] == [True] * 3
        assert await state() is ProbeState.HELD
        probe.resume("a")
        assert await state() is ProbeState.HELD
        probe.resume("b")
        probe.resume("nobody")
        assert await state() is ProbeState.READ
        assert probe.pids == frozenset()
        await probe.close()
        probe.resume("a")
        assert await state() is ProbeState.HELD

    asyncio.run(story())
