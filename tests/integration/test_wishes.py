"""Layouts and set-mode as wishes: applied at start, patient with busy GPUs, kept over restarts and reboots."""

from __future__ import annotations

import asyncio

import pytest

from aimd.domain.modes import PartitionMode
from aimd.domain.plan import Reason
from aimd.domain.switch import SwitchState as S
from aimd.planning.policy import Policy
from aimd.sim.node import SimulatedNode
from aimd.sim.state import FaultKind
from tests.fakes.node import ADDRESSES, RunningNode, fast_state, running_node
from tests.integration.stories import becomes, begin, fault, hardware, join, leave, reboot, story, told

POLICY = Policy(wait_seconds=2.0, settle_seconds=2.0, wish_retry_seconds=0.1)
SPX, DPX, QPX, CPX = "SPX SPX/NPS1 1", "DPX DPX/NPS1 2", "QPX QPX/NPS1 4", "CPX CPX/NPS1 8"


def layout(**modes: str) -> dict[str, PartitionMode]:
    return {gpu: PartitionMode.parse(text) for gpu, text in modes.items()}


async def reached(node: RunningNode, *partitions: int) -> None:
    """Until the GPUs have so many partitions and nothing is under way."""
    await node.until(lambda s: tuple(len(g.gpu.partitions) for g in s.gpus) == partitions)
    await node.until(lambda s: all(g.change is None for g in s.gpus))


@story
async def test_the_configured_layout_is_applied_at_start():
    wanted = layout(default="CPX", gpu1="QPX") | {ADDRESSES[2]: PartitionMode.parse("DPX")}
    async with running_node(fast_state(count=4), policy=POLICY, layout=wanted, digest="d1") as node:
        await reached(node, 8, 4, 2, 8)
        assert hardware(node.sim) == [CPX, QPX, DPX, CPX]
        (change,) = node.snapshot.changes
        assert (change.origin, change.state, change.requester_uid) == ("wish", S.COMMITTED, None)
        assert all(not status.drift for status in node.snapshot.gpus)


@pytest.mark.parametrize("profile", ["7.2", "6.12"])
@story
async def test_busy_gpus_are_passed_over_and_done_when_they_are_idle(profile):
    sim = SimulatedNode(fast_state(profile=profile))
    pid = join(sim, 0)
    async with running_node(sim, policy=POLICY, layout=layout(default="CPX"), digest="d1") as node:
        if profile == "7.2":
            await reached(node, 1, 8)
        await asyncio.sleep(0.3)
        assert hardware(sim) == ([SPX, CPX] if profile == "7.2" else [SPX, SPX])
        assert node.snapshot.gpus[0].drift == ("wished CPX/NPS1, is SPX/NPS1",)
        leave(sim, pid)
        await reached(node, 8, 8)
        assert all(not status.drift for status in node.snapshot.gpus)


@story
async def test_a_client_that_comes_between_is_waited_for():
    sim = SimulatedNode(fast_state(count=1))
    async with running_node(sim, policy=POLICY) as node:
        await node.switch((0, "DPX"))

        def load_and_join(driver, now):
            return driver.reload(now) or driver.join(4_199_999, 1, now)

        assert sim.act(load_and_join) == 0
        await asyncio.sleep(0.2)
        assert hardware(sim) == [SPX]
        leave(sim, 4_199_999)
        await becomes(sim, DPX)


@story
async def test_set_mode_becomes_the_wish_and_survives_restart_and_reboot(tmp_path):
    sim = SimulatedNode(fast_state())
    async with running_node(sim, policy=POLICY, directory=tmp_path) as node:
        assert (await node.switch((0, "CPX"))).state is S.COMMITTED
        assert node.snapshot.gpus[0].wish == PartitionMode.parse("CPX")
    async with running_node(sim, policy=POLICY, directory=tmp_path) as node:
        assert node.snapshot.gpus[0].wish == PartitionMode.parse("CPX")
        assert hardware(sim) == [CPX, SPX]
    reboot(sim)
    assert hardware(sim) == [SPX, SPX]
    async with running_node(sim, policy=POLICY, directory=tmp_path) as node:
        await reached(node, 8, 1)
        assert hardware(sim) == [CPX, SPX]


@story
async def test_a_change_that_the_reboot_interrupted_is_told_and_not_repeated(tmp_path):
    sim = SimulatedNode(fast_state())
    pid = join(sim, 1)
    async with running_node(sim, policy=POLICY, directory=tmp_path) as node:
        await begin(node, (0, "CPX"), (1, "CPX"), name="c1")
        await told(node, lambda s: s.state is S.WAITING and s.message is not None, index=1)
    leave(sim, pid)
    reboot(sim)
    async with running_node(sim, policy=POLICY, directory=tmp_path) as node:
        change = node.snapshot.change("c1")
        assert change is not None
        assert [s.state for s in change.switches] == [S.COMMITTED, S.FAILED]
        assert change.switches[1].reason is Reason.INTERRUPTED_BY_REBOOT
        await reached(node, 8, 1)  # what was done is a wish, what was not done is none
        await asyncio.sleep(0.2)
        assert hardware(sim) == [CPX, SPX]


@story
async def test_set_mode_wins_over_an_unchanged_layout_and_a_changed_one_over_set_mode(tmp_path):
    sim = SimulatedNode(fast_state(count=1))
    first, second = layout(default="CPX"), layout(default="QPX")
    async with running_node(sim, policy=POLICY, directory=tmp_path, layout=first, digest="d1") as node:
        await reached(node, 8)
        await node.switch((0, "DPX"))
    reboot(sim)
    async with running_node(sim, policy=POLICY, directory=tmp_path, layout=first, digest="d1") as node:
        await reached(node, 2)
    async with running_node(sim, policy=POLICY, directory=tmp_path, layout=second, digest="d2") as node:
        await reached(node, 4)
    async with running_node(sim, policy=POLICY, directory=tmp_path, layout={}, digest="") as node:
        await asyncio.sleep(0.1)
        assert hardware(sim) == [QPX], "no layout is no wish for another mode"


@story
async def test_a_layout_that_cannot_be_is_told_and_does_not_keep_the_rest():
    wanted = layout(gpu0="TPX", gpu1="CPX")
    async with running_node(policy=POLICY, layout=wanted, digest="d1") as node:
        await reached(node, 1, 8)
        await asyncio.sleep(0.3)
        told_of = [event for event in await node.loop.events() if event.kind == "wish_refused"]
        assert [event.subject for event in told_of] == [ADDRESSES[0]]
        assert "does not offer TPX" in told_of[0].message
        assert node.snapshot.gpus[0].drift == ("wished TPX/NPS1, is SPX/NPS1",)


@story
async def test_a_wish_that_the_firmware_refuses_is_tried_again_later():
    sim = SimulatedNode(fast_state(count=1))
    fault(sim, FaultKind.FIRMWARE_REFUSAL, remaining=2)
    async with running_node(sim, policy=POLICY, layout=layout(default="CPX"), digest="d1") as node:
        await reached(node, 8)
        states = [change.state for change in node.snapshot.changes]
        assert states[-1] is S.COMMITTED
        assert states[0] is S.FAILED


@story
async def test_what_somebody_else_does_is_shown_as_drift_and_not_fought():
    async with running_node(fast_state(count=1), policy=POLICY) as node:
        await node.switch((0, "CPX"))
        await asyncio.to_thread(node.sim.write, f"bus/pci/devices/{ADDRESSES[0]}/current_compute_partition", b"DPX")
        await node.until(lambda s: s.gpus[0].drift == ("wished CPX/NPS1, is DPX/NPS1",))
        await asyncio.sleep(0.3)
        assert hardware(node.sim) == [DPX]


@story
async def test_a_mode_file_that_lies_is_drift():
    """Another program has written a mode, and the firmware has refused it without a word."""
    async with running_node(fast_state(count=1), policy=POLICY) as node:
        fault(node.sim, FaultKind.FIRMWARE_REFUSAL)
        await asyncio.to_thread(node.sim.write, f"bus/pci/devices/{ADDRESSES[0]}/current_compute_partition", b"CPX")
        await node.until(lambda s: s.gpus[0].drift == ("the mode file says CPX, the partitions are those of SPX",))
