"""Real processes on claims: what keeps a partition occupied, and until when."""

from __future__ import annotations

import asyncio
import os
import subprocess

from aimd.adapters.processes import marker_of, start_time_of
from aimd.domain.claim import ClaimSpec, PartitionRef
from aimd.domain.memory import parse_gb
from aimd.domain.modes import PartitionMode
from aimd.domain.plan import Reason
from aimd.domain.switch import SwitchState
from tests.fakes.node import ADDRESSES, fast_state, running_node

SPX = [(ADDRESSES[0], PartitionMode.parse("SPX"))]
FORK = 'read marker; AIM_HOLDER="$marker" sleep 50 >/dev/null & echo $!; exit 0'


def test_a_drain_waits_for_a_child_that_outlives_its_holder() -> None:
    async def story() -> None:
        async with running_node(fast_state(count=1)) as node:
            await node.switch((0, "CPX"))
            await node.loop.claim("k", ClaimSpec(parse_gb(24), partition=PartitionRef(0)), uid=0)
            process = subprocess.Popen(["sh", "-c", FORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            holder = await node.loop.hold("k", None, process.pid, command="python serve.py")
            process.stdin.write(f"{marker_of(process.pid, start_time_of(process.pid))}\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
            try:
                process.wait(10)
                await node.until(lambda snapshot: [h.survivors for h in snapshot.claim_holders] != [()])
                await node.loop.submit("c", SPX, wait_seconds=1.5, uid=0, drain=True)
                change = await node.ended("c")
                assert (change.state, change.switches[0].reason) == (SwitchState.FAILED, Reason.GPU_BUSY)
                told = change.switches[0].message
                assert f"pid {child} (sleep 50)" in told, "what lives is what can be ended"
                assert str(process.pid) not in told
                planned = await node.loop.plan(SPX, drain=True)
                assert [blocker.holder.pid for blocker in planned.blockers] == [child]
                assert [member.pid for member in await node.loop.members(holder)] == [child]
                await node.loop.release("k")
                released = [each for each in await node.loop.events() if each.kind == "claim_released"]
                assert f"reserved until it ends: pid {child} (sleep 50) on k/0" in released[0].message
            finally:
                os.kill(child, 9)
            await node.until(lambda snapshot: not snapshot.claim_holders)
            await node.loop.submit("d", SPX, wait_seconds=5, uid=0, drain=True)
            assert (await node.ended("d")).state is SwitchState.COMMITTED

    asyncio.run(story())
