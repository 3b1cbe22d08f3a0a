"""Each row of the errno table (hardware notes 1.3), raised by the simulated driver and met by a whole daemon."""

from __future__ import annotations

import asyncio
import errno
import time
from dataclasses import replace

import pytest

from aimd.adapters.amdgpu.driver import AmdgpuDriver
from aimd.adapters.processes import command_of
from aimd.domain.gpu import BusyRule, GpuState, Observed
from aimd.domain.modes import MemoryMode, PartitionMode
from aimd.domain.plan import Reason
from aimd.domain.switch import SwitchState as S
from aimd.sim.node import SimulatedNode
from aimd.sim.state import FaultKind, SimState
from aimd.sim.thread import ControlThread
from tests.fakes.node import ADDRESSES, fast_state, running_node
from tests.integration.sim.sim_processes import kfd_client
from tests.integration.stories import begin, fault, hardware, join, leave, planned, refused, reload, story, told

SPX, CPX = "SPX SPX/NPS1 1", "CPX CPX/NPS1 8"


def mode_file(number: int = 0) -> str:
    return f"bus/pci/devices/{ADDRESSES[number]}/current_compute_partition"


def errno_of_write(sim: SimulatedNode, mode: str, number: int = 0) -> int:
    """What a program that writes the mode file gets from the driver."""
    try:
        sim.write(mode_file(number), mode.encode())
    except OSError as error:
        return error.errno or -1
    return 0


def altered(state: SimState, **fields: object) -> SimState:
    """The node with these fields of every GPU set before its driver is loaded."""
    for gpu in state.gpus:
        for name, value in fields.items():
            setattr(gpu, name, value)
    return state


class ForeignDevice:
    """ports.Sysfs of a node whose GPUs have a PCI device id that aimd does not know."""

    def __init__(self, sim: SimulatedNode) -> None:
        self._sim = sim

    def read(self, path: str) -> bytes:
        return b"0x7fff\n" if path.endswith("/device") else self._sim.read(path)

    def __getattr__(self, name: str) -> object:
        return getattr(self._sim, name)


class SilentAboutItsRule(AmdgpuDriver):
    """A driver between the generations: its files do not show whose processes count."""

    def scan(self) -> Observed:
        return replace(super().scan(), busy_rule=BusyRule.UNKNOWN)


# -- EBUSY ----------------------------------------------------------------------------------------------------------


@story
async def test_busy_by_a_client_is_waited_for_until_it_leaves(tmp_path):
    sim = SimulatedNode(fast_state())
    with ControlThread(sim, tmp_path / "sim.sock"):
        async with running_node(sim) as node:
            with kfd_client(tmp_path / "sim.sock", "gpu0") as child:
                assert errno_of_write(sim, "CPX") == errno.EBUSY
                await begin(node, (0, "CPX"), wait=20.0)
                switch = await told(node, lambda s: s.state is S.WAITING and s.message is not None)
                assert switch.reason is Reason.GPU_BUSY
                assert f"in use by pid {child.pid} (" in (switch.message or "")
                assert " hold --socket " in (switch.message or ""), "the command of the process"
                assert hardware(sim) == [SPX, SPX]
            change = await node.ended("c1")
            assert change.state is S.COMMITTED
            assert hardware(sim) == [CPX, SPX]


@story
async def test_busy_until_the_deadline_names_process_and_command_and_changes_nothing(tmp_path):
    sim = SimulatedNode(fast_state())
    with ControlThread(sim, tmp_path / "sim.sock"), kfd_client(tmp_path / "sim.sock", "gpu0") as child:
        async with running_node(sim) as node:
            change = await node.switch((0, "CPX"), (1, "CPX"), wait=0.3)
            assert change.state is S.FAILED
            assert change.switches[0].reason is Reason.GPU_BUSY
            assert f"pid {child.pid} (" in (change.switches[0].message or "")
            assert " hold --socket " in (change.switches[0].message or "")
            assert change.switches[1].reason is Reason.EARLIER_STEP_FAILED
            assert hardware(sim) == [SPX, SPX]
            (blocker,) = (await planned(node, (0, "CPX"))).blockers
            assert (blocker.holder.pid, blocker.node_wide) == (child.pid, False)
            assert (await node.switch((1, "CPX"))).state is S.COMMITTED, "the rule is per GPU with this driver"


@story
async def test_busy_by_a_client_that_has_exited_is_waited_for_until_the_driver_has_released_it():
    state = fast_state()
    state.reap_seconds = 0.3
    async with running_node(state) as node:
        pid = join(node.sim, 0)
        await begin(node, (0, "CPX"))
        leave(node.sim, pid)
        switch = await told(node, lambda s: s.message is not None)
        assert switch.message == f"GPU {ADDRESSES[0]} is in use by pid {pid} (exited, not released yet)"
        assert (await node.ended("c1")).state is S.COMMITTED


@story
async def test_busy_at_the_write_is_tried_again():
    async with running_node() as node:
        fault(node.sim, FaultKind.BUSY, remaining=3)
        change = await node.switch((0, "CPX"))
        assert change.state is S.COMMITTED
        assert change.switches[0].attempts == 3
        assert hardware(node.sim) == [CPX, SPX]


@story
async def test_busy_at_every_write_ends_at_the_deadline():
    async with running_node() as node:
        fault(node.sim, FaultKind.BUSY, remaining=None)
        change = await node.switch((0, "CPX"), wait=0.3)
        assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.GPU_BUSY)
        assert "in use; no process that is seen here holds it: one that has ended" in (change.switches[0].message or "")
        assert change.switches[0].attempts > 2
        assert hardware(node.sim) == [SPX, SPX]


@pytest.mark.parametrize("client_of", [(1,), (0, 1)], ids=["another GPU", "both"])
@story
async def test_an_old_driver_is_busy_by_anybody_on_the_node(client_of):
    async with running_node(fast_state(profile="6.12")) as node:
        pid = join(node.sim, *client_of)
        assert errno_of_write(node.sim, "CPX") == errno.EBUSY
        assert node.snapshot.busy_rule is BusyRule.NODE_WIDE
        await node.until(lambda snapshot: bool(snapshot.holders))
        (blocker,) = (await planned(node, (0, "CPX"))).blockers
        assert (blocker.holder.pid, blocker.node_wide) == (pid, 0 not in client_of)
        change = await node.switch((0, "CPX"), wait=0.3)
        assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.GPU_BUSY)
        assert f"pid {pid}" in (change.switches[0].message or "")
        told_why = "this driver switches no GPU while any process of the node uses one"
        assert (told_why in (change.switches[0].message or "")) == (0 not in client_of)
        leave(node.sim, pid)
        assert (await node.switch((0, "CPX"))).state is S.COMMITTED


@story
async def test_a_rule_that_no_file_shows_is_learned_from_the_first_busy():
    sim = SimulatedNode(fast_state(profile="6.12"))
    async with running_node(sim, driver=SilentAboutItsRule(sim, command_of)) as node:
        pid = join(sim, 1)
        await node.until(lambda snapshot: bool(snapshot.holders))
        assert node.snapshot.busy_rule is BusyRule.UNKNOWN
        assert (await planned(node, (0, "CPX"))).blockers == ()
        change = await node.switch((0, "CPX"), wait=0.3)
        assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.GPU_BUSY)
        assert f"rule is node-wide, by pid {pid} (" in (change.switches[0].message or "")
        assert "on other GPUs" in (change.switches[0].message or "")
        await node.until(lambda snapshot: snapshot.busy_rule is BusyRule.NODE_WIDE)
        (blocker,) = (await planned(node, (0, "CPX"))).blockers
        assert (blocker.holder.pid, blocker.node_wide) == (pid, True)


@story
async def test_busy_while_kfd_is_locked_by_the_reset_of_another_gpu():
    async with running_node(fast_state(profile="6.12")) as node:
        fault(node.sim, FaultKind.RESET, gpu=1, seconds=0.4)
        assert errno_of_write(node.sim, "CPX") == errno.EBUSY
        change = await node.switch((0, "CPX"))
        assert change.state is S.COMMITTED
        assert change.switches[0].attempts > 0


# -- EPERM ----------------------------------------------------------------------------------------------------------


@story
async def test_a_reset_is_waited_for():
    async with running_node() as node:
        fault(node.sim, FaultKind.RESET, seconds=0.4)
        assert errno_of_write(node.sim, "CPX") == errno.EPERM
        await begin(node, (0, "CPX"))
        switch = await told(node, lambda s: s.reason is Reason.GPU_IN_RESET)
        assert switch.state is S.SWITCHING
        words = "writing current_compute_partition failed with EPERM: the GPU is in reset"
        assert (switch.message or "").startswith(f"GPU {ADDRESSES[0]}: {words}; ")
        assert (await node.ended("c1")).state is S.COMMITTED
        assert hardware(node.sim) == [CPX, SPX]


@story
async def test_a_reset_that_lasts_longer_than_the_budget_fails_the_change():
    async with running_node() as node:
        fault(node.sim, FaultKind.RESET, seconds=30)
        change = await node.switch((0, "CPX"), wait=0.3)
        assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.GPU_IN_RESET)
        assert hardware(node.sim) == [SPX, SPX]


# -- EINVAL ---------------------------------------------------------------------------------------------------------

INVALID = [
    ("silicon that cannot be divided so", fast_state("mi300a"), "DPX", "it offers SPX, TPX, CPX there"),
    ("three partitions of eight XCCs", fast_state("mi300x"), "TPX", "it offers SPX, DPX, QPX, CPX there"),
    ("four partitions of four XCCs", fast_state("mi308x"), "QPX", "it offers SPX, DPX, CPX there"),
    ("an odd number of XCCs", altered(fast_state(), xcc_count=7), "CPX", "it offers nothing there"),
    ("a memory mode that forbids it", altered(fast_state(), memory=MemoryMode.NPS4), "SPX", "it offers QPX, CPX there"),
    (
        "a memory mode that forbids it, old driver",
        altered(fast_state(profile="6.12"), memory=MemoryMode.NPS4),
        "SPX",
        "it offers QPX, CPX there",
    ),
]


@pytest.mark.parametrize(("state", "mode", "hint"), [row[1:] for row in INVALID], ids=[row[0] for row in INVALID])
@story
async def test_what_the_driver_would_refuse_is_refused_before_with_what_it_offers(state, mode, hint):
    async with running_node(SimulatedNode(state)) as node:
        before = hardware(node.sim)
        assert errno_of_write(node.sim, mode) == errno.EINVAL
        error = await refused(node, (0, mode))
        assert (error.code, error.hint) == (Reason.MODE_NOT_AVAILABLE, hint)
        assert hardware(node.sim) == before
        assert node.snapshot.changes == ()


@story
async def test_an_invalid_mode_that_could_not_be_known_fails_the_change():
    """An unknown product with an old driver, which lists modes without regard to the memory mode."""
    sim = SimulatedNode(altered(fast_state(profile="6.12"), memory=MemoryMode.NPS4))
    async with running_node(sim, driver=AmdgpuDriver(ForeignDevice(sim), command_of)) as node:
        before = hardware(sim)
        change = await node.switch((0, "SPX"), (1, "QPX"))
        assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.MODE_NOT_AVAILABLE)
        words = "writing current_compute_partition failed with EINVAL: the driver does not accept this mode"
        assert (change.switches[0].message or "").startswith(f"GPU {ADDRESSES[0]}: {words}; expected one that the GPU")
        assert change.switches[0].attempts == 0
        assert change.switches[1].reason is Reason.EARLIER_STEP_FAILED
        assert hardware(sim) == before


@story
async def test_a_memory_mode_that_is_not_listed_is_refused_before():
    async with running_node() as node:
        path = f"bus/pci/devices/{ADDRESSES[0]}/current_memory_partition"
        with pytest.raises(OSError, match="Invalid argument"):
            node.sim.write(path, b"NPS8")
        assert (await refused(node, (0, "NPS8"))).code == Reason.MODE_NOT_AVAILABLE


# -- EACCES and EROFS at open ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            FaultKind.ACCESS_DENIED,
            "current_compute_partition failed with EACCES: the file may not be written; run aimd",
        ),
        (FaultKind.READ_ONLY, "EROFS: sysfs is mounted read-only here; run aimd where /sys is writable"),
    ],
)
@story
async def test_a_file_that_may_not_be_written_fails_the_change_at_once(kind, words):
    async with running_node() as node:
        fault(node.sim, kind, remaining=None)
        change = await node.switch((0, "CPX"))
        assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.NOT_PERMITTED)
        assert words in (change.switches[0].message or "")
        assert change.switches[0].attempts == 0
        assert hardware(node.sim) == [SPX, SPX]


# -- virtual functions ----------------------------------------------------------------------------------------------


@story
async def test_a_virtual_function_of_an_old_driver_accepts_everything_and_does_nothing():
    async with running_node(altered(fast_state(profile="6.12"), vf=True)) as node:
        assert errno_of_write(node.sim, "CPX") == 0
        change = await node.switch((0, "CPX"))
        assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.NO_EFFECT)
        assert "succeeded without effect, it shows 1 partitions in SPX/NPS1" in (change.switches[0].message or "")
        assert hardware(node.sim) == [SPX, SPX]


@story
async def test_a_virtual_function_of_a_new_driver_offers_nothing():
    async with running_node(altered(fast_state(), vf=True)) as node:
        assert errno_of_write(node.sim, "CPX") == errno.EACCES
        assert (await refused(node, (0, "CPX"))).code == Reason.MODE_NOT_AVAILABLE
        assert (await node.switch((0, "SPX"))).state is S.COMMITTED, "the mode it is in needs no write"


# -- firmware -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["6.8", "6.12", "7.2"])
@story
async def test_a_silent_refusal_of_the_firmware_is_rolled_back(profile):
    async with running_node(fast_state(profile=profile)) as node:
        assert (await node.switch((0, "DPX"))).state is S.COMMITTED
        fault(node.sim, FaultKind.FIRMWARE_REFUSAL)
        change = await node.switch((0, "CPX"))
        assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.FIRMWARE_REFUSED)
        assert change.switches[0].message == (
            f"GPU {ADDRESSES[0]}: the driver reported success, but it shows 2 partitions in DPX/NPS1 instead of "
            "CPX/NPS1; rolled back to DPX/NPS1"
        )
        assert hardware(node.sim) == ["DPX DPX/NPS1 2", SPX], "mode file and nodes are both old"
        snapshot = await node.until(lambda s: s.gpus[0].gpu.reported_compute == "DPX")
        assert snapshot.gpus[0].drift == ()


@story
async def test_a_roll_back_that_fails_needs_an_operator():
    async with running_node() as node:
        fault(node.sim, FaultKind.FIRMWARE_REFUSAL)
        fault(node.sim, FaultKind.SLOW_WRITE, seconds=0.2)
        await begin(node, (0, "CPX"))
        await told(node, lambda s: s.state is S.SWITCHING)
        await asyncio.sleep(0.1)  # the write is under way
        fault(node.sim, FaultKind.KFD_FAILURE)
        change = await node.ended("c1")
        assert change.state is S.NEEDS_OPERATOR
        assert change.switches[0].reason is Reason.ROLLBACK_FAILED
        assert "could not be brought back to SPX/NPS1" in (change.switches[0].message or "")
        assert "the driver reported success" in (change.switches[0].message or "")


# -- EIO and ENODEV -------------------------------------------------------------------------------------------------


@story
async def test_a_gpu_that_the_driver_cannot_bring_up_again_needs_an_operator_and_a_driver_load():
    async with running_node() as node:
        fault(node.sim, FaultKind.KFD_FAILURE)
        change = await node.switch((0, "CPX"), (1, "CPX"))
        assert [s.state for s in change.switches] == [S.NEEDS_OPERATOR, S.FAILED]
        assert change.switches[0].reason is Reason.DRIVER_FAILED
        assert "reload the amdgpu driver" in (change.switches[0].message or "")
        snapshot = await node.until(lambda s: s.gpus[0].gpu.state is GpuState.LOST)
        assert snapshot.gpus[0].gpu.partitions == ()
        assert snapshot.gpus[0].drift[0] == "the driver has the GPU, but KFD shows no partition of it"
        assert (await refused(node, (0, "CPX"))).code == Reason.GPU_LOST
        assert (await node.switch((1, "DPX"))).state is S.COMMITTED, "the other GPU goes on"
        assert reload(node.sim) == 0
        await node.until(lambda s: s.gpus[0].gpu.state is GpuState.READY and len(s.gpus[1].gpu.partitions) == 2)
        await node.until(lambda s: all(status.change is None for status in s.gpus))
        assert (await node.switch((0, "CPX"), name="again")).state is S.COMMITTED


@story
async def test_a_device_that_is_gone_at_the_write_needs_an_operator():
    async with running_node() as node:
        pid = join(node.sim, 0)
        fault(node.sim, FaultKind.BUSY, remaining=None)
        await begin(node, (0, "CPX"))
        await told(node, lambda s: s.state is S.WAITING and s.message is not None)
        fault(node.sim, FaultKind.DEVICE_LOST)
        leave(node.sim, pid)
        change = await node.ended("c1")
        assert (change.state, change.switches[0].reason) == (S.NEEDS_OPERATOR, Reason.GPU_LOST)
        words = "writing current_compute_partition failed with ENODEV: the GPU is gone from the bus"
        assert (change.switches[0].message or "").startswith(f"GPU {ADDRESSES[0]}: {words}; ")
        assert node.snapshot.gpus[0].gpu.state is GpuState.GONE
        assert hardware(node.sim)[1] == SPX


@story
async def test_a_device_that_goes_during_the_write_needs_an_operator():
    """The write returns as if all were well; that the GPU is gone shows afterwards."""
    async with running_node() as node:
        fault(node.sim, FaultKind.SLOW_WRITE, seconds=0.3)
        await begin(node, (0, "CPX"))
        await told(node, lambda s: s.state is S.SWITCHING)
        await asyncio.sleep(0.1)
        fault(node.sim, FaultKind.DEVICE_LOST)
        change = await node.ended("c1")
        assert change.state is S.NEEDS_OPERATOR
        assert change.switches[0].reason is Reason.DRIVER_FAILED
        assert (change.switches[0].message or "").startswith(
            f"GPU {ADDRESSES[0]}: after the write KFD shows no partition of it; stop all users of the GPUs and reload"
        )
        snapshot = await node.until(lambda s: s.gpus[0].gpu.state is GpuState.GONE)
        assert len(snapshot.gpus) == 2, "it is still shown, as gone"


# -- what takes time ------------------------------------------------------------------------------------------------


@story
async def test_readers_see_the_old_partitions_at_once_while_a_write_is_slow():
    async with running_node() as node:
        fault(node.sim, FaultKind.SLOW_WRITE, seconds=0.6)
        await begin(node, (0, "CPX"))
        await told(node, lambda s: s.state is S.SWITCHING)
        await asyncio.sleep(0.05)
        longest, looks, until = 0.0, 0, time.monotonic() + 0.4
        while time.monotonic() < until:
            began = time.monotonic()
            snapshot = await node.loop.changed(0, 1.0)
            await planned(node, (1, "CPX"))
            longest = max(longest, time.monotonic() - began)
            looks += 1
            assert [len(status.gpu.partitions) for status in snapshot.gpus] == [1, 1]
            assert [status.change for status in snapshot.gpus] == ["c1", None]
            change = snapshot.change("c1")
            assert change is not None
            assert change.state is S.SWITCHING
            await asyncio.sleep(0.01)
        assert looks > 5
        assert longest < 0.3, "a reader was blocked by the write"
        change = await node.ended("c1")
        assert change.state is S.COMMITTED
        assert change.switches[0].write_seconds >= 0.6
        assert [len(status.gpu.partitions) for status in node.snapshot.gpus] == [8, 1]


@story
async def test_a_tree_that_is_built_again_and_again_is_read_when_it_is_whole():
    async with running_node() as node:
        fault(node.sim, FaultKind.REBUILD_WINDOW, gpu=None, remaining=None, seconds=0.02)
        change = await node.switch((0, "CPX"))
        assert change.state is S.COMMITTED
        assert [len(status.gpu.partitions) for status in node.snapshot.gpus] == [8, 1]


@story
async def test_a_mode_that_is_current_is_no_switch():
    async with running_node() as node:
        assert errno_of_write(node.sim, "SPX") == 0
        change = await node.switch((0, "SPX"))
        assert (change.state, change.switches) == (S.COMMITTED, ())
        assert node.snapshot.gpus[0].wish == PartitionMode.parse("SPX")


@story
async def test_a_node_out_of_drm_minors_switches_with_the_last_partition_missing():
    state = fast_state(count=2)
    state.drm_minors = 15
    async with running_node(state) as node:
        change = await node.switch((1, "CPX"))
        assert change.state is S.COMMITTED
        snapshot = await node.until(lambda s: len(s.gpus[1].gpu.partitions) == 7)
        assert snapshot.gpus[1].drift == ("1 of 8 partitions are missing",)
