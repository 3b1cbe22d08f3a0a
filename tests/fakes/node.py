"""A whole daemon without sockets: control loop, executor, adapter and ledger on a simulated node in this process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aimd.adapters.amdgpu.driver import AmdgpuDriver
from aimd.adapters.callers import holder_of, pod_of
from aimd.adapters.ledger import SqliteLedger
from aimd.adapters.processes import LinuxProcesses, command_of, start_time_of
from aimd.daemon.execute import Executor
from aimd.daemon.loop import ControlLoop
from aimd.daemon.simulation import Simulation
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.switch import ModeChange
from aimd.planning import effects as fx
from aimd.planning.policy import Policy
from aimd.planning.reconcile import Reconciler
from aimd.ports import DriverEvents, GpuDriver, Ledger, MemoryProbe
from aimd.sim.node import SimulatedNode
from aimd.sim.state import SimState, new_state
from tests.fakes.dispatch import IdleDispatch

FAST = {"switch_seconds": 0.005, "rebuild_seconds": 0.0001, "reap_seconds": 0.01}
ADDRESSES = [f"0000:{bus}:00.0" for bus in ("05", "27", "47", "65", "85", "a7", "c7", "e5")]


def fast_state(model: str = "mi300x", count: int = 2, profile: str = "7.2") -> SimState:
    """A simulated node whose delays do not slow tests down."""
    return new_state(model, count, profile, **FAST)


@dataclass
class RunningNode:
    """The running daemon: `sim` is its hardware, `loop` what the API would ask."""

    sim: SimulatedNode
    loop: ControlLoop
    ledger: Ledger
    task: asyncio.Task[None] = field(repr=False)

    @property
    def snapshot(self) -> NodeSnapshot:
        return self.loop.snapshot

    async def switch(self, *wishes: tuple[int, str], name: str = "", wait: float = 2.0) -> ModeChange:
        """Submit modes by GPU number and wait until the change is final or parked for a driver load."""
        name = name or f"t{time.monotonic_ns()}"
        parsed = [(ADDRESSES[gpu], PartitionMode.parse(mode)) for gpu, mode in wishes]
        await self.loop.submit(name, parsed, wait_seconds=wait, uid=0)
        return await self.ended(name)

    async def ended(self, name: str, timeout: float = 10.0) -> ModeChange:
        def done(snapshot: NodeSnapshot) -> bool:
            change = snapshot.change(name)
            return change is not None and (change.current is None or change.state.value == "awaiting_reload")

        await self.until(done, timeout)
        change = self.snapshot.change(name)
        assert change is not None
        return change

    async def until(self, condition: Callable[[NodeSnapshot], bool], timeout: float = 10.0) -> NodeSnapshot:
        """The first snapshot that meets the condition; AssertionError when the time is over."""
        deadline = time.monotonic() + timeout
        while not condition(self.snapshot):
            assert time.monotonic() < deadline, f"not reached within {timeout} s: {self.snapshot}"
            await self.loop.changed(self.snapshot.generation, 0.2)
        return self.snapshot


@contextlib.asynccontextmanager
async def running_node(
    sim: SimulatedNode | SimState | None = None,
    *,
    directory: Path | None = None,
    policy: Policy | None = None,
    layout: dict[str, PartitionMode] | None = None,
    digest: str = "",
    driver: GpuDriver | None = None,
    ledger: Ledger | None = None,
    poll_seconds: float = 0.02,
    boot_id: str | None = None,
    first_generation: int = 0,
    source: DriverEvents | None = None,
    probe: MemoryProbe | None = None,
) -> AsyncIterator[RunningNode]:
    """Start it, wait for the first inventory, stop it at the end. Without a directory the ledger is in memory.

    `source` tells it of driver events in place of the simulated node.
    """
    node = sim if isinstance(sim, SimulatedNode) else SimulatedNode(sim if sim is not None else fast_state())
    path = directory / "ledger.db" if directory is not None else Path(":memory:")
    ledger = ledger or SqliteLedger(path, time.time())
    adapter = driver or AmdgpuDriver(node, command_of, owner_of=holder_of, start_time_of=start_time_of, pod_of=pod_of)
    executor = Executor(adapter, LinuxProcesses(), IdleDispatch(), probe)
    policy = policy or Policy(wait_seconds=2.0, settle_seconds=2.0)
    reconciler = Reconciler(policy, boot_id or node.boot_id, first_generation)
    loop = ControlLoop(reconciler, executor, ledger, poll_seconds)
    events = source or Simulation(node)
    started = fx.Started(await executor.on_ledger(ledger.load), layout or {}, digest)
    task = asyncio.create_task(loop.run(started, [events]))
    try:
        await asyncio.wait_for(loop.ready.wait(), 10)
        yield RunningNode(node, loop, ledger, task)
        assert loop.failures == 0, "an event could not be handled; the log has the traceback"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await executor.on_ledger(ledger.close)
        executor.close()
