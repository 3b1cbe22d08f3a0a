"""A claim over its limit while the daemon is away: the denial is there before the first request, as long as the use is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aimd.domain.accounting import OverrunPolicy
from aimd.domain.node import NodeSnapshot
from aimd.planning.policy import Policy
from aimd.planning.serving import served_partitions
from tests.fakes.claims import spec
from tests.fakes.node import running_node
from tests.hip.simulated import ADDRESSES, client, node_in

GIB = 1 << 30
OFTEN = Policy(on_memory_overrun=OverrunPolicy.DENY_NEW_LEASES, overrun_seconds=0.2)
SELDOM = Policy(on_memory_overrun=OverrunPolicy.DENY_NEW_LEASES, overrun_seconds=3600.0)


def denied(snapshot: NodeSnapshot) -> list[str]:
    return [model.name for served in served_partitions(snapshot) for model in served.models if model.denied]


def test_a_denial_is_there_again_with_the_daemon_and_ends_with_the_use(stubs, tmp_path: Path) -> None:
    with node_in(tmp_path, mode="CPX/NPS1", count=1) as (sim, socket):

        async def story() -> None:
            async with running_node(sim, directory=tmp_path, policy=OFTEN) as node:
                await node.loop.claim("m", spec(12, "CPX", at=(ADDRESSES[0], 0)), uid=0)
            with client(stubs.build(), socket, f"0:{13 * GIB}") as process:
                async with running_node(sim, directory=tmp_path, policy=OFTEN) as node:
                    await node.loop.hold("m", None, process.pid)
                    found = (await node.until(lambda snapshot: bool(denied(snapshot)))).findings
                async with running_node(sim, directory=tmp_path, policy=SELDOM) as node:
                    assert denied(node.snapshot) == ["m"], "with the first look, not an hour later"
                    assert node.snapshot.findings == found
                process.kill()
                await asyncio.to_thread(process.wait)
            async with running_node(sim, directory=tmp_path, policy=OFTEN) as node:
                await node.until(lambda snapshot: not denied(snapshot))
            async with running_node(sim, directory=tmp_path, policy=SELDOM) as node:
                assert node.snapshot.findings == ()
                kinds = [event.kind for event in await node.loop.events()]
                assert [kind for kind in kinds if kind.startswith("memory_")] == [
                    "memory_over_limit",
                    "memory_within_limit",
                ]

        asyncio.run(story())
