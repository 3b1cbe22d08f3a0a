"""Clients of HIP and mode switches: those of others block them, aimd's own helper never does.

The normal run interleaves 40 probes with 12 switches. All of it, on both rules of EBUSY:

    python -m pytest tests/hip/test_switches.py -m campaign
"""

from __future__ import annotations

import asyncio
import errno
import time
from pathlib import Path

import pytest

from aimd.adapters.amdgpu.driver import AmdgpuDriver
from aimd.adapters.metrics.node_families import families
from aimd.adapters.metrics.view import View
from aimd.adapters.processes import command_of
from aimd.daemon.probing import Prober
from aimd.doctor.library import probe_finding
from aimd.domain.modes import PartitionMode
from aimd.domain.plan import Reason
from aimd.domain.probe import ProbeState
from aimd.domain.switch import SwitchState
from aimd.planning.policy import Policy
from aimd.protocol.convert_memory import probe_message
from aimd.sim.node import SimulatedNode
from tests.fakes.node import running_node
from tests.fakes.probe import FakeProbe
from tests.hip.simulated import ADDRESSES, client, node_in, probe_of

MODE_FILE = f"bus/pci/devices/{ADDRESSES[0]}/current_compute_partition"
CPX = [(ADDRESSES[0], PartitionMode.parse("CPX"))]


class Counting:
    """ports.Sysfs of a simulated node that counts the mode writes, and those that were refused as busy."""

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self.writes = self.busy = 0

    def read(self, path: str) -> bytes:
        return self._node.read(path)

    def listdir(self, path: str) -> list[str]:
        return self._node.listdir(path)

    def readlink(self, path: str) -> str:
        return self._node.readlink(path)

    def writable(self, path: str) -> bool:
        return self._node.writable(path)

    def write(self, path: str, data: bytes) -> None:
        self.writes += 1
        try:
            self._node.write(path, data)
        except OSError as error:
            self.busy += error.errno == errno.EBUSY
            raise


def driver_of(sysfs: Counting):
    return AmdgpuDriver(sysfs, command_of)


def test_a_client_blocks_a_switch_until_it_has_ended(stubs, tmp_path: Path) -> None:
    with (
        node_in(tmp_path, count=1, reap_seconds=0.3) as (sim, socket),
        client(stubs.build(), socket, "0:1000000") as process,
    ):
        with pytest.raises(OSError, match="busy") as error:
            sim.write(MODE_FILE, b"CPX")
        assert error.value.errno == errno.EBUSY

        async def story() -> None:
            async with running_node(sim) as node:
                [blocker] = (await node.loop.plan(CPX)).blockers
                assert (blocker.gpu, blocker.holder.pid) == (ADDRESSES[0], process.pid)
                assert blocker.holder.vram == ((ADDRESSES[0], 0, 1003520),)
                change = await node.switch((0, "CPX"), wait=0.3)
                assert (change.state, change.switches[0].reason) == (SwitchState.FAILED, Reason.GPU_BUSY)
                assert f"is in use by pid {process.pid} (" in change.switches[0].message
                await node.loop.submit("late", CPX, wait_seconds=20, uid=0)
                await node.until(lambda snapshot: snapshot.change("late").switches[0].state is SwitchState.WAITING)
                process.kill()
                await asyncio.to_thread(process.wait)
                ended = time.monotonic()
                assert (await node.ended("late")).state is SwitchState.COMMITTED
                # The reaping delay, the pause between two looks at the holders, and the switch itself.
                assert 0.2 < time.monotonic() - ended < 0.3 + 1.5

        asyncio.run(story())


def interleave(tmp_path: Path, library: Path, *, probes: int, switches: int, profile: str) -> tuple[int, int, int]:
    """Probe all GPUs in a loop, as the daemon does, and switch meanwhile: (refused as busy, writes, probes that read)."""
    with node_in(tmp_path, count=2, profile=profile, reap_seconds=0.03) as (sim, socket):
        counting = Counting(sim)

        async def story() -> int:
            probe = probe_of(sim, socket, library)
            read = asked = 0

            async with running_node(sim, driver=driver_of(counting), probe=probe) as node:

                async def switch() -> None:
                    for number in range(switches):
                        await asyncio.sleep(0.01 * (number % 7))
                        change = await node.switch((number % 2, "CPX" if number // 2 % 2 == 0 else "SPX"), wait=10)
                        assert change.state is SwitchState.COMMITTED, change
                        assert change.switches[0].attempts == 0

                switching = asyncio.ensure_future(switch())
                while asked < probes or not switching.done():
                    report = await probe.probe(ADDRESSES[asked % 2])
                    assert report.state in (ProbeState.READ, ProbeState.HELD, ProbeState.MOVED), report
                    assert report.released
                    read += report.state is ProbeState.READ
                    asked += report.state is not ProbeState.HELD
                    await asyncio.sleep(0.002)
                await switching
                await probe.close()
            assert sim.clients() == []
            return read

        read = asyncio.run(story())
    return counting.busy, counting.writes, read


def test_probes_never_make_a_switch_fail(stubs, tmp_path: Path) -> None:
    busy, writes, read = interleave(
        tmp_path, stubs.build("INIT_MILLISECONDS=20"), probes=40, switches=12, profile="7.2"
    )
    assert (busy, writes) == (0, 12)
    assert read >= 20


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("profile", ["7.2", "6.12"])
def test_two_hundred_probes_and_fifty_switches(stubs, tmp_path: Path, profile: str) -> None:
    busy, writes, read = interleave(
        tmp_path, stubs.build("INIT_MILLISECONDS=20"), probes=200, switches=50, profile=profile
    )
    assert (busy, writes) == (0, 50)
    assert read >= 100


def test_a_helper_that_hangs_is_gone_before_the_write_and_is_told_to_nobody(stubs, tmp_path: Path) -> None:
    with node_in(tmp_path, count=1, reap_seconds=0.1) as (sim, socket):
        counting = Counting(sim)

        async def story() -> None:
            probe = probe_of(sim, socket, stubs.build("STUB_FAULT=FAULT_HANG"), 60)
            async with running_node(sim, driver=driver_of(counting), probe=probe) as node:
                asking = asyncio.ensure_future(probe.probe(ADDRESSES[0]))
                deadline = time.monotonic() + 10
                while not sim.clients():
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.005)
                await asyncio.sleep(0.1)  # several polls
                assert node.snapshot.holders == ()
                assert (await node.switch((0, "CPX"))).state is SwitchState.COMMITTED
                assert (await asking).state is ProbeState.HELD
                report = asyncio.ensure_future(probe.probe(ADDRESSES[0]))
                await asyncio.sleep(0.2)
                assert not report.done(), "when the switch has ended HIP is asked again"
                await probe.close()
                assert (await report).state is ProbeState.HELD

        asyncio.run(story())
    assert (counting.busy, counting.writes) == (0, 1)


def test_a_library_that_hangs_is_told_and_does_no_harm(stubs, tmp_path: Path) -> None:
    """As doctor and metrics have it; the deadline of a real daemon is half a minute."""
    with node_in(tmp_path, count=2) as (sim, socket):

        async def story() -> None:
            probe = probe_of(sim, socket, stubs.build("STUB_FAULT=FAULT_HANG"), 0.3)
            async with running_node(sim, probe=probe) as node:
                prober = Prober(probe, lambda: node.snapshot, node.loop.changed, 300, node.loop.post)
                async with prober.running():
                    await node.until(lambda snapshot: len(snapshot.memory.gpus) == 2)
                    [shown, other] = [probe_message(found) for found in node.snapshot.memory.gpus.values()]
                    assert (shown.state, shown.message) == (other.state, other.message)
                    page = list(families(View("1", node.snapshot)))
                    assert (await node.switch((0, "CPX"))).state is SwitchState.COMMITTED
            finding = probe_finding("gpu0", shown.state, shown.message)
            assert finding[:3] == ("warn", "gpu0", "memory by HIP: timed-out: HIP has not answered within 0.3 s")
            [states] = [
                dict(family.samples) for family in page if family.descriptor.name == "aim_gpu_memory_probe_state"
            ]
            assert {key for key, value in states.items() if value} == {(gpu, "timed-out") for gpu in ADDRESSES[:2]}

        asyncio.run(story())
    assert sim.clients() == []


def test_the_daemon_asks_every_gpu_and_again_after_a_switch(stubs, tmp_path: Path) -> None:
    with node_in(tmp_path, count=2) as (sim, socket):

        async def story() -> None:
            probe = probe_of(sim, socket, stubs.build())
            async with running_node(sim, probe=probe) as node:
                prober = Prober(probe, lambda: node.snapshot, node.loop.changed, 300)
                async with prober.running():

                    async def shown(*partitions: int) -> None:
                        deadline = time.monotonic() + 10
                        while [len(each.partitions) for each in prober.reports.values()] != [*partitions]:
                            assert time.monotonic() < deadline, prober.reports
                            await asyncio.sleep(0.01)

                    await shown(1, 1)
                    await node.switch((1, "CPX"))
                    await shown(1, 8)
                assert (await probe.probe(ADDRESSES[0])).state is ProbeState.HELD

        asyncio.run(story())


def test_nobody_is_asked_while_a_driver_load_is_awaited(stubs, tmp_path: Path) -> None:
    """Unloading the driver needs idle GPUs, and nobody can tell aimd that it is about to happen."""
    with node_in(tmp_path, count=1) as (sim, _):

        async def story() -> None:
            policy = Policy(wait_seconds=2.0, settle_seconds=2.0, allow_memory_mode_change=True)
            probe = FakeProbe({ADDRESSES[0]: [(1, 2)]})
            async with running_node(sim, policy=policy, probe=probe) as node:
                change = await node.switch((0, "CPX/NPS4"))
                assert change.state is SwitchState.AWAITING_RELOAD
                prober = Prober(probe, lambda: node.snapshot, node.loop.changed, 0.05)
                async with prober.running():
                    await asyncio.sleep(0.3)
                    assert probe.asked == []
                    sim.reload()
                    await node.until(lambda snapshot: not any(each.current is not None for each in snapshot.changes))
                    await node.loop.changed(node.snapshot.generation, 0.2)
                    deadline = time.monotonic() + 10
                    while not probe.asked:
                        assert time.monotonic() < deadline
                        await asyncio.sleep(0.01)
                assert probe.closed

        asyncio.run(story())
