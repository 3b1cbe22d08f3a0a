"""A whole daemon in a network namespace of its own: what the kernel says there completes a pending memory change.

It polls once an hour: without the event nothing would be looked at. Writes one JSON object: the state of the change
before and after the event, and the kinds of driver events in the ledger. Exit status 77: no namespace can be had.
"""

from __future__ import annotations

import asyncio
import json

from aimd.adapters.uevents import UeventListener
from aimd.planning.policy import Policy
from aimd.sim.node import SimulatedNode
from tests.fakes.node import fast_state, running_node
from tests.integration.event_namespace import enter_namespace, send_as_kernel, sender_socket
from tests.integration.stories import hardware, reload

MODULE_ADDED = "add@/module/amdgpu\0ACTION=add\0DEVPATH=/module/amdgpu\0SUBSYSTEM=module\0"
ALLOWED = Policy(wait_seconds=2.0, settle_seconds=2.0, allow_memory_mode_change=True)


async def main() -> None:
    sim = SimulatedNode(fast_state())
    listener = UeventListener()
    async with running_node(sim, policy=ALLOWED, poll_seconds=3600, source=listener) as node:
        await node.switch((0, "QPX/NPS4"), name="n")
        await asyncio.sleep(1.0)  # the scan after the request is over, also on a slow machine
        assert reload(sim) == 0
        await asyncio.sleep(0.3)
        states = [node.snapshot.change("n").state]
        with sender_socket() as sender:
            send_as_kernel(sender, MODULE_ADDED)
        await node.until(lambda s: s.change("n").current is None)
        states.append(node.snapshot.change("n").state)
        kinds = [event.kind for event in await node.loop.events() if event.kind.startswith(("driver_", "gpu_"))]
    await listener.close()
    print(json.dumps({"states": states, "events": kinds, "hardware": hardware(sim)}))


if __name__ == "__main__":
    enter_namespace()
    asyncio.run(main())
