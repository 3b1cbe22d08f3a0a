"""Memory that processes of no claim use is not given to a claim: from KFD's counters to a refusal."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from aimd.domain.claim import ClaimSpec, ClaimState, PartitionRef
from aimd.domain.memory import parse_gb
from aimd.errors import RefusedError
from aimd.sim.driver import Driver
from aimd.sim.node import SimulatedNode
from tests.fakes.node import RunningNode, fast_state, running_node

STRANGER = 4_194_305  # beyond the kernel's largest pid: nobody of this machine
PLACE = PartitionRef(3)


def use(sim: SimulatedNode, index: int, size: int, pid: int = STRANGER) -> None:
    """A process, by default a stranger, uses so many bytes on this partition."""

    def act(driver: Driver, now: float) -> None:
        driver.join(pid, 1, now)
        (client,) = driver.state.clients
        client.vram[driver.state.nodes[index].gpu_id] = size

    sim.act(act)


def test_a_holders_child_is_no_stranger() -> None:
    """Its memory is reserved by the claim of the process that started it."""

    async def story() -> None:
        async with running_node(fast_state(count=1)) as node:
            await node.switch((0, "CPX"))
            await node.loop.claim("parent", ClaimSpec(parse_gb(13), partition=PLACE), uid=0)
            leader = subprocess.Popen(["sleep", "60"])
            holder = await node.loop.hold("parent", None, leader.pid)
            environment = {"AIM_HOLDER": f"{holder.pid}:{holder.start_time}", "PATH": os.environ["PATH"]}
            child = subprocess.Popen(["sleep", "60"], env=environment)
            try:
                use(node.sim, PLACE.index, 13 << 30, child.pid)
                await node.until(lambda snapshot: any(h.pid == child.pid for h in snapshot.holders))
                await asyncio.sleep(0.1)
                claim = await node.loop.claim("beside", ClaimSpec(parse_gb(11), partition=PLACE), uid=0)
                assert claim.state is ClaimState.PLACED
            finally:
                for process in (child, leader):
                    process.kill()
                    process.wait()

    asyncio.run(story())


async def seen(node: RunningNode) -> None:
    await node.until(lambda snapshot: any(holder.pid == STRANGER for holder in snapshot.holders))
    await asyncio.sleep(0.1)  # a poll that has read the counter, too


def test_strange_memory_is_not_free() -> None:
    async def story() -> None:
        async with running_node(fast_state(count=1)) as node:
            await node.switch((0, "CPX"))
            use(node.sim, PLACE.index, 13 << 30)
            await seen(node)
            with pytest.raises(RefusedError, match="12 GB") as refused:
                await node.loop.claim("half", ClaimSpec(parse_gb(12), partition=PLACE), uid=0)
            assert refused.value.code == "no_room"
            claim = await node.loop.claim("less", ClaimSpec(parse_gb(10.5), partition=PLACE), uid=0)
            other = await node.loop.claim("elsewhere", ClaimSpec(parse_gb(24), partition=PartitionRef(4)), uid=0)
            assert (claim.state, other.state) == (ClaimState.PLACED, ClaimState.PLACED)

    asyncio.run(story())
