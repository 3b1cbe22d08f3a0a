"""Memory modes (NPS) end to end: requested for the hive, pending, completed by a driver load that others make."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from pathlib import Path

import pytest

from aimd.adapters.amdgpu.driver import AmdgpuDriver
from aimd.adapters.processes import command_of
from aimd.domain.gpu import GpuState
from aimd.domain.modes import MemoryMode, PartitionMode
from aimd.domain.plan import Reason, StepKind
from aimd.domain.switch import SwitchState as S
from aimd.planning.policy import Policy
from aimd.sim.node import SimulatedNode
from aimd.sim.state import FaultKind
from tests.fakes.node import ADDRESSES, RunningNode, fast_state, running_node
from tests.integration.stories import (
    becomes,
    begin,
    fault,
    hardware,
    join,
    leave,
    memory_requests,
    planned,
    reboot,
    refused,
    reload,
    story,
    told,
)

NPS4 = MemoryMode.NPS4
ALLOWED = Policy(wait_seconds=2.0, settle_seconds=2.0, wish_retry_seconds=0.1, allow_memory_mode_change=True)
SPX = "SPX SPX/NPS1 1"


def deaf(sim: SimulatedNode) -> dict[str, object]:
    """Options of a daemon that works on the node and does not hear its driver events: it listens to another one."""
    driver = AmdgpuDriver(sim, command_of)
    return {"sim": fast_state(count=1), "driver": driver, "boot_id": sim.boot_id, "policy": ALLOWED}


def pending(node: RunningNode) -> list[MemoryMode | None]:
    return [status.pending_memory for status in node.snapshot.gpus]


async def committed(node: RunningNode, name: str) -> None:
    await node.until(lambda s: (c := s.change(name)) is not None and c.current is None)
    change = node.snapshot.change(name)
    assert change is not None
    assert change.state is S.COMMITTED, change


async def quiet(node: RunningNode, seconds: float = 0.3) -> None:
    """Let some polls and retries pass."""
    await asyncio.sleep(seconds)


@story
async def test_memory_modes_are_off_unless_allowed():
    async with running_node() as node:
        error = await refused(node, (0, "CPX/NPS4"))
        assert error.code == Reason.MEMORY_MODE_DISABLED
        assert "allow_memory_mode_change = true" in (error.hint or "")
        assert memory_requests(node.sim) == [None, None]


@story
async def test_a_plan_says_that_it_is_for_the_whole_hive_and_needs_a_load():
    async with running_node(fast_state(count=3), policy=ALLOWED) as node:
        pid = join(node.sim, 2)
        await node.until(lambda s: bool(s.holders))
        made = await planned(node, (1, "QPX/NPS4"))
        assert [step.kind for step in made.steps] == [StepKind.MEMORY, StepKind.COMPUTE]
        assert len(made.steps[0].gpus) == 3
        assert made.steps[1].after_reload
        text = "\n".join(made.warnings)
        assert "for all 3 GPUs of the hive when the amdgpu driver is reloaded" in text
        assert "cannot be cancelled" in text
        assert f"the driver cannot be reloaded while processes use GPUs: {pid}" in text
        assert "GPU 0000:05:00.0 goes from SPX/NPS1 to CPX/NPS4 with its hive" in text
        assert made.blockers == (), "nobody blocks a request"


@story
async def test_a_request_is_pending_and_shown_until_a_load_completes_it(tmp_path):
    async with running_node(policy=ALLOWED, directory=tmp_path) as node:
        change = await node.switch((0, "QPX/NPS4"), name="n")
        assert change.state is S.AWAITING_RELOAD
        words = (
            "NPS4 is requested, the driver applies it when it is loaded again: stop all users of the GPUs and reload"
        )
        assert (change.switches[0].message or "").startswith(words)
        assert memory_requests(node.sim) == ["NPS4", "NPS4"]
        assert pending(node) == [NPS4, NPS4]
        assert hardware(node.sim) == [SPX, SPX], "nothing has changed yet"
        await quiet(node)
        assert hardware(node.sim) == [SPX, SPX], "aimd does not load the driver itself"
        assert pending(node) == [NPS4, NPS4]
        assert reload(node.sim) == 0
        await committed(node, "n")
        assert hardware(node.sim) == ["QPX QPX/NPS4 4", "CPX CPX/NPS4 8"]
        assert pending(node) == [None, None]
        kinds = [event.kind for event in await node.loop.events()]
        assert "driver_reloaded" in kinds
        assert kinds.index("switch_awaiting_reload") < kinds.index("driver_reloaded") < kinds.index("switch_committed")


@story
async def test_a_pending_request_survives_a_restart_and_is_completed_afterwards(tmp_path):
    sim = SimulatedNode(fast_state())
    async with running_node(sim, policy=ALLOWED, directory=tmp_path) as node:
        await node.switch((0, "QPX/NPS4"), name="n")
    async with running_node(sim, policy=ALLOWED, directory=tmp_path) as node:
        assert pending(node) == [NPS4, NPS4]
        await quiet(node)
        assert pending(node) == [NPS4, NPS4]
        reload(sim)
        await committed(node, "n")
    assert hardware(sim) == ["QPX QPX/NPS4 4", "CPX CPX/NPS4 8"]


@story
async def test_a_load_while_the_daemon_was_down_completes_the_change_at_its_start(tmp_path):
    sim = SimulatedNode(fast_state())
    async with running_node(sim, policy=ALLOWED, directory=tmp_path) as node:
        await node.switch((0, "QPX/NPS4"), name="n")
    reload(sim)
    async with running_node(sim, policy=ALLOWED, directory=tmp_path) as node:
        await committed(node, "n")
    assert hardware(sim) == ["QPX QPX/NPS4 4", "CPX CPX/NPS4 8"]


def gradual(count: int = 4) -> SimulatedNode:
    """Its driver takes so long for each GPU that polls, and the scans of a change, see the load half done."""
    sim = SimulatedNode(fast_state(count=count))
    sim.act(lambda driver, _now: setattr(driver.state, "load_seconds", 0.4))
    return sim


@pytest.mark.parametrize("heard", [True, False], ids=["events heard", "poll alone"])
@pytest.mark.parametrize("refused", [False, True], ids=["accepted", "refused by the firmware"])
@story
async def test_a_load_that_brings_the_gpus_one_by_one_is_waited_for(heard, refused):
    sim = gradual()
    options = {"sim": sim, "policy": ALLOWED} if heard else deaf(sim)
    async with running_node(**options) as node:
        await node.switch((3, "DPX"), name="d")
        await node.switch((0, "QPX/NPS4"), name="n")
        if refused:
            fault(sim, FaultKind.MEMORY_REFUSAL)
        load = asyncio.create_task(asyncio.to_thread(sim.reload))
        await node.until(lambda s: [len(g.gpu.partitions) > 0 for g in s.gpus] == [False] * 4)
        assert (await told(node, lambda switch: not switch.final, name="n")).state is S.AWAITING_RELOAD
        missing = f"no partitions of GPU {ADDRESSES[2]}, GPU {ADDRESSES[3]} yet"
        assert (await told(node, lambda s: missing in (s.message or ""), name="n")).state is S.RESCANNING
        assert pending(node) == [NPS4] * 4
        assert await load == 0
        await node.until(lambda s: s.change("n").current is None)
        change = node.snapshot.change("n")
        if refused:
            assert [s.reason for s in change.switches] == [Reason.FIRMWARE_REFUSED, Reason.EARLIER_STEP_FAILED]
            await becomes(sim, SPX, SPX, SPX, "DPX DPX/NPS1 2")
        else:
            assert change.state is S.COMMITTED, change
            await becomes(sim, "QPX QPX/NPS4 4", *["CPX CPX/NPS4 8"] * 3)


@pytest.mark.parametrize("heard", [True, False], ids=["events heard", "poll alone"])
@story
async def test_a_load_that_hangs_half_way_names_who_is_missing_and_its_end_is_seen(heard):
    sim = gradual(count=2)
    options = {"sim": sim} if heard else deaf(sim)
    async with running_node(**{**options, "policy": replace(ALLOWED, reload_seconds=0.8)}) as node:
        await node.switch((0, "CPX/NPS4"), name="n")
        fault(sim, FaultKind.LOAD_HANG, gpu=None)
        assert await asyncio.to_thread(sim.reload) == errno.ETIMEDOUT
        await node.until(lambda s: s.change("n").current is None)
        switch = node.snapshot.change("n").switches[0]
        assert (switch.state, switch.reason) == (S.NEEDS_OPERATOR, Reason.DRIVER_FAILED)
        assert f"no partitions of GPU {ADDRESSES[1]} yet" in (switch.message or "")
        sim.act(lambda driver, now: driver.clear_faults(now))
        await node.until(lambda s: [len(g.gpu.partitions) for g in s.gpus] == [8, 8])
        assert pending(node) == [None, None]


@pytest.mark.parametrize("heard", [True, False], ids=["events heard", "poll alone"])
@story
async def test_wishes_are_done_again_after_a_plain_load_that_takes_its_time(heard):
    sim = gradual(count=3)
    async with running_node(**({"sim": sim} if heard else deaf(sim))) as node:
        await node.switch((0, "CPX"), (1, "DPX"), (2, "QPX"))
        assert await asyncio.to_thread(sim.reload) == 0
        await becomes(sim, "CPX CPX/NPS1 8", "DPX DPX/NPS1 2", "QPX QPX/NPS1 4")


@story
async def test_a_load_whose_event_is_missed_is_found_by_the_poll():
    sim = SimulatedNode(fast_state())
    async with running_node(**deaf(sim)) as node:
        await node.switch((0, "QPX/NPS4"), name="n")
        await quiet(node, 0.15)  # what the daemon looks at after a change has been looked at
        reload(sim)
        await committed(node, "n")
        assert "driver_reloaded" not in [event.kind for event in await node.loop.events()]
    assert hardware(sim) == ["QPX QPX/NPS4 4", "CPX CPX/NPS4 8"]


@pytest.mark.parametrize("heard", [True, False], ids=["event heard", "event missed"])
@story
async def test_a_memory_mode_that_the_firmware_refuses_fails_with_the_reason(heard):
    sim = SimulatedNode(fast_state())
    async with running_node(**({"sim": sim, "policy": ALLOWED} if heard else deaf(sim))) as node:
        if not heard:
            await node.switch((1, "QPX"), name="q")  # a load that changes nothing at all is known by its event alone
        await node.switch((0, "DPX/NPS2"), name="n")
        fault(sim, FaultKind.MEMORY_REFUSAL)
        reload(sim)
        await node.until(lambda s: (c := s.change("n")) is not None and c.current is None)
        change = node.snapshot.change("n")
        assert change is not None
        assert [s.state for s in change.switches] == [S.FAILED]
        assert change.switches[0].reason is Reason.FIRMWARE_REFUSED
        assert "the driver was loaded again, but the memory mode is still NPS1" in (change.switches[0].message or "")
        assert pending(node) == [None, None]
        assert (await node.switch((0, "DPX"), name="d")).state is S.COMMITTED


@story
async def test_a_load_resets_other_gpus_and_their_wishes_are_done_again():
    async with running_node(fast_state(count=3), policy=ALLOWED) as node:
        await node.switch((1, "QPX"), name="q")
        await node.switch((0, "CPX/NPS4"), name="n")
        reload(node.sim)
        await committed(node, "n")
        await becomes(node.sim, "CPX CPX/NPS4 8", "QPX QPX/NPS4 4", "CPX CPX/NPS4 8")


@story
async def test_a_plain_driver_load_resets_compute_modes_and_wishes_are_done_again():
    async with running_node(policy=ALLOWED) as node:
        await node.switch((0, "CPX"), (1, "DPX"))
        reload(node.sim)
        assert hardware(node.sim) == [SPX, SPX]
        await becomes(node.sim, "CPX CPX/NPS1 8", "DPX DPX/NPS1 2")


@story
async def test_a_second_request_is_refused_while_one_is_pending():
    async with running_node(policy=ALLOWED) as node:
        await node.switch((0, "CPX/NPS4"), name="n")
        for wish in ("DPX/NPS2", "SPX/NPS1", "NPS4"):
            error = await refused(node, (1, wish), name=f"again-{wish}")
            assert error.code == Reason.MEMORY_MODE_PENDING
            assert "reload the amdgpu driver (or reboot)" in (error.hint or "")
        assert memory_requests(node.sim) == ["NPS4", "NPS4"]


@story
async def test_compute_modes_may_change_while_a_memory_mode_is_pending():
    async with running_node(policy=ALLOWED) as node:
        await node.switch((0, "CPX/NPS4"), name="n")
        change = await node.switch((1, "DPX"), name="d")
        assert change.state is S.COMMITTED
        assert any("NPS4 is requested" in words for words in (await planned(node, (1, "CPX"))).warnings)
        assert pending(node) == [NPS4, NPS4]


@story
async def test_a_load_is_impossible_while_a_client_holds_a_gpu_and_the_change_waits_for_it():
    async with running_node(policy=ALLOWED) as node:
        pid = join(node.sim, 0)
        await begin(node, (0, "CPX/NPS4"), name="n")
        assert (await node.ended("n")).state is S.AWAITING_RELOAD, "a request needs nobody to leave"
        assert reload(node.sim) != 0
        await quiet(node, 0.1)
        assert pending(node) == [NPS4, NPS4]
        leave(node.sim, pid)
        await asyncio.sleep(0.1)
        assert reload(node.sim) == 0
        await committed(node, "n")


@story
async def test_a_reboot_ends_a_pending_request(tmp_path):
    """The simulated machine comes up in NPS1: the request was lost with the power."""
    sim = SimulatedNode(fast_state())
    async with running_node(sim, policy=ALLOWED, directory=tmp_path) as node:
        await node.switch((0, "CPX/NPS4"), name="n")
    reboot(sim)
    async with running_node(sim, policy=ALLOWED, directory=tmp_path) as node:
        await node.until(lambda s: (c := s.change("n")) is not None and c.current is None)
        change = node.snapshot.change("n")
        assert change is not None
        assert change.switches[0].state is S.FAILED
        assert pending(node) == [None, None]


@story
async def test_a_file_that_may_not_be_written_fails_the_request():
    async with running_node(policy=ALLOWED) as node:
        fault(node.sim, FaultKind.ACCESS_DENIED, gpu=None)
        change = await node.switch((0, "CPX/NPS4"))
        assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.NOT_PERMITTED)
        assert pending(node) == [None, None]
        assert memory_requests(node.sim) == [None, None]


@story
async def test_a_reset_meanwhile_is_not_taken_for_a_load():
    async with running_node(policy=ALLOWED) as node:
        await node.switch((0, "CPX/NPS4"), name="n")
        epochs = [status.mode_epoch for status in node.snapshot.gpus]
        fault(node.sim, FaultKind.RESET, gpu=1, seconds=0.3)
        change = await node.switch((0, "DPX"), name="d")  # makes the daemon scan during the reset
        assert change.state is S.COMMITTED
        await quiet(node, 0.4)
        assert pending(node) == [NPS4, NPS4]
        assert node.snapshot.gpus[1].mode_epoch == epochs[1]


@story
async def test_memory_modes_of_a_layout_are_requested_once(tmp_path: Path):
    layout = {"default": PartitionMode.parse("QPX/NPS4")}
    sim = SimulatedNode(fast_state())
    async with running_node(sim, policy=ALLOWED, directory=tmp_path, layout=layout, digest="d1") as node:
        await node.until(lambda s: all(status.pending_memory is NPS4 for status in s.gpus))
        await quiet(node)
        assert len(node.snapshot.changes) == 1
        reload(sim)
        await node.until(lambda s: [len(status.gpu.partitions) for status in s.gpus] == [4, 4])
        await node.until(lambda s: all(status.gpu.state is GpuState.READY and not status.drift for status in s.gpus))
        assert pending(node) == [None, None]
