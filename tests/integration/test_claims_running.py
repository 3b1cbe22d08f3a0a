"""Claims of a running daemon: real processes on them, restarts, reboots, and drains that wait and never signal."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimd.adapters.ledger import SqliteLedger
from aimd.adapters.processes import start_time_of
from aimd.domain.claim import ClaimState
from aimd.domain.ledger import HolderRecord, LedgerWrite
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.plan import PlanRefusedError, Reason
from aimd.domain.switch import SwitchState
from aimd.errors import ConflictError, NotFoundError
from aimd.planning.policy import Policy
from aimd.protocol.convert import change_message
from aimd.sim.node import SimulatedNode
from tests.fakes.claims import broken_promises, places, spec
from tests.fakes.node import ADDRESSES, RunningNode, fast_state, running_node

POLICY = Policy(wait_seconds=5.0, settle_seconds=5.0, wish_retry_seconds=0.3, orphan_grace_seconds=0.4)
PLACED = ClaimState.PLACED


class Children:
    """Processes that sleep until they are told to end, or that end at once at a signal: who is signalled is missed."""

    def __init__(self) -> None:
        self._all: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self._all.append(child)
        return child

    def close(self) -> None:
        for child in self._all:
            child.kill()
            child.communicate()


@pytest.fixture
def children() -> Iterator[Children]:
    made = Children()
    yield made
    made.close()


def end(child: subprocess.Popen[str]) -> None:
    child.stdin.close()
    child.wait(10)


async def hold(node: RunningNode, claim: str, child: subprocess.Popen[str], replica: int | None = None) -> HolderRecord:
    return await node.loop.hold(claim, replica, child.pid)


def at_rest(snapshot: NodeSnapshot) -> bool:
    return all(claim.state is PLACED for claim in snapshot.claims) and all(
        change.current is None for change in snapshot.changes
    )


async def event_kinds(node: RunningNode) -> list[str]:
    return [event.kind for event in await node.loop.events()]


# -- claims and switches -------------------------------------------------------------------------------------------


def test_a_claim_from_request_to_release() -> None:
    async def story() -> None:
        async with running_node(policy=POLICY) as node:
            claim = await node.loop.claim("m", spec(24, "CPX"), uid=7)
            assert (claim.state, claim.owner_uid) == (ClaimState.SWITCHING, 7)
            assert node.snapshot.claim("m") == claim, "who has the answer finds it in the snapshot"
            assert node.snapshot.change(claim.change) is not None
            assert await node.loop.claim("m", spec(24, "CPX"), uid=7) == node.snapshot.claim("m")
            await node.until(at_rest)
            assert places(node.snapshot.claim("m")) == [(ADDRESSES[0], 0)]
            assert [len(status.gpu.partitions) for status in node.snapshot.gpus] == [8, 1]
            assert broken_promises(node.snapshot) == []
            released = await node.loop.release("m")
            assert released.name == "m"
            assert node.snapshot.claims == ()
            with pytest.raises(NotFoundError):
                await node.loop.release("m")

    asyncio.run(story())


def test_many_requests_at_once() -> None:
    """They are answered one after the other: 16 of 24 GB and 16 of 12 GB fit two GPUs in CPX, nothing more does."""

    async def story() -> None:
        async with running_node(policy=POLICY) as node:
            await node.switch((0, "CPX"), (1, "CPX"))
            wanted = {f"m{n}": spec(24 if n % 2 else 12, "CPX", guarantee=8) for n in range(40)}
            answers = await asyncio.gather(
                *(node.loop.claim(name, each, uid=0) for name, each in wanted.items()), return_exceptions=True
            )
            refused = [answer for answer in answers if isinstance(answer, Exception)]
            assert {error.code for error in refused} <= {"no_room"}
            assert all(claim.state is PLACED for claim in node.snapshot.claims)
            assert len(node.snapshot.claims) == 40 - len(refused)
            assert broken_promises(node.snapshot) == []
            free = 16 * 24 - sum(claim.spec.memory_units for claim in node.snapshot.claims) / 1024
            assert free < 24, "nothing is refused that fits"

    asyncio.run(story())


# -- holders -------------------------------------------------------------------------------------------------------


def test_the_end_of_a_holder_is_seen(children: Children) -> None:
    async def story() -> None:
        async with running_node(policy=POLICY) as node:
            await node.loop.claim("m", spec(24), uid=0)
            child = children.start()
            record = await hold(node, "m", child)
            assert (record.pid, record.start_time, record.replica) == (child.pid, start_time_of(child.pid), 0)
            assert node.snapshot.claim_holders == (record,)
            await asyncio.to_thread(end, child)
            await node.until(lambda snapshot: snapshot.claim_holders == ())
            assert "orphan_found" not in await event_kinds(node)

    asyncio.run(story())


def test_who_is_not_there_holds_nothing(children: Children) -> None:
    async def story() -> None:
        async with running_node(policy=POLICY) as node:
            await node.loop.claim("m", spec(24), uid=0)
            child = children.start()
            end(child)
            with pytest.raises(NotFoundError) as refused:
                await hold(node, "m", child)
            assert refused.value.code == "unknown_process"
            assert node.snapshot.claim_holders == ()

    asyncio.run(story())


def test_a_holder_that_lives_on_is_watched_by_the_next_daemon(tmp_path: Path, children: Children) -> None:
    async def story() -> None:
        sim = SimulatedNode(fast_state(), tmp_path / "sim.json")
        child = children.start()
        async with running_node(sim, directory=tmp_path, policy=POLICY) as node:
            await node.loop.claim("m", spec(24), uid=0)
            record = await hold(node, "m", child)
        async with running_node(sim, directory=tmp_path, policy=POLICY) as node:
            await asyncio.sleep(0.1)
            assert node.snapshot.claim_holders == (record,)
            await asyncio.to_thread(end, child)
            await node.until(lambda snapshot: snapshot.claim_holders == ())
            assert "orphan_found" not in await event_kinds(node)

    asyncio.run(story())


def test_a_holder_that_died_meanwhile_is_an_orphan(tmp_path: Path, children: Children) -> None:
    async def story() -> None:
        sim = SimulatedNode(fast_state(), tmp_path / "sim.json")
        child = children.start()
        async with running_node(sim, directory=tmp_path, policy=POLICY) as node:
            await node.loop.claim("m", spec(24), uid=0)
            await hold(node, "m", child)
        end(child)
        began = time.monotonic()
        async with running_node(sim, directory=tmp_path, policy=POLICY) as node:
            found = await node.until(lambda snapshot: any(h.ended_at is not None for h in snapshot.claim_holders))
            assert [holder.pid for holder in found.claim_holders] == [child.pid]
            await node.until(lambda snapshot: snapshot.claim_holders == ())
            assert time.monotonic() - began >= POLICY.orphan_grace_seconds
            kinds = await event_kinds(node)
            assert (kinds.count("orphan_found"), kinds.count("orphan_released")) == (1, 1)
            assert node.snapshot.claim("m").state is PLACED

    asyncio.run(story())


def test_a_pid_that_is_somebody_elses_now(tmp_path: Path, children: Children) -> None:
    """The holder died while no daemon ran, and its pid went to another process: told by the start time."""

    async def story() -> None:
        sim = SimulatedNode(fast_state(), tmp_path / "sim.json")
        async with running_node(sim, directory=tmp_path, policy=POLICY) as node:
            await node.loop.claim("m", spec(24), uid=0)
        child = children.start()
        with contextlib.closing(SqliteLedger(tmp_path / "ledger.db", 0.0)) as ledger:
            stale = HolderRecord("m", 0, child.pid, start_time_of(child.pid) - 1)
            ledger.commit(LedgerWrite(holders=(stale,)))
        async with running_node(sim, directory=tmp_path, policy=POLICY) as node:
            await node.until(lambda snapshot: any(h.ended_at is not None for h in snapshot.claim_holders))
            assert (await hold(node, "m", child)).start_time == start_time_of(child.pid), "it may be one of its own"
            await node.until(lambda snapshot: len(snapshot.claim_holders) == 1)
            assert node.snapshot.claim_holders[0].ended_at is None
            assert child.poll() is None

    asyncio.run(story())


# -- drains --------------------------------------------------------------------------------------------------------


def test_a_drain_waits_for_processes_and_never_signals_them(children: Children) -> None:
    async def story() -> None:
        async with running_node(policy=POLICY) as node:
            await node.switch((0, "CPX"))
            await node.loop.claim("m", spec(24, "CPX"), uid=0)
            await node.loop.claim("n", spec(12, "CPX"), uid=0)
            first, second = children.start(), children.start()
            await hold(node, "m", first)
            await hold(node, "n", second)
            wish = [(ADDRESSES[0], PartitionMode.parse("QPX"))]
            with pytest.raises(PlanRefusedError) as refused:
                await node.loop.submit("plain", wish, wait_seconds=0.4, uid=0)
            assert (refused.value.code, refused.value.message) == (
                "gpu_in_use",
                f"GPU {ADDRESSES[0]} is in use by claims: m, n",
            )
            before = node.snapshot.claims
            await node.loop.submit("late", wish, wait_seconds=0.4, uid=0, drain=True)
            with pytest.raises(ConflictError, match="being switched"):
                await hold(node, "m", children.start())
            change = await node.ended("late")
            (switch,) = change.switches
            assert (switch.state, switch.reason) == (SwitchState.FAILED, Reason.GPU_BUSY)
            assert f"pid {first.pid} (cat)" in switch.message
            assert f"pid {second.pid} (cat)" in switch.message
            assert node.snapshot.claims == before
            assert (first.poll(), second.poll()) == (None, None), "nobody was signalled"

            await node.loop.submit("patient", wish, wait_seconds=10, uid=0, drain=True)
            await asyncio.to_thread(end, first)
            await asyncio.sleep(0.3)
            waiting = node.snapshot.change("patient")
            assert waiting.state is SwitchState.WAITING
            (blocker,) = change_message(waiting, node.snapshot, time.monotonic()).blockers
            assert (blocker.pid, blocker.gpu, blocker.node_wide) == (second.pid, ADDRESSES[0], False)
            await asyncio.to_thread(end, second)
            assert (await node.ended("patient")).state is SwitchState.COMMITTED
            await node.until(at_rest)
            assert {place[0] for claim in node.snapshot.claims for place in places(claim)} == {ADDRESSES[1]}
            assert [str(status.gpu.compute_mode) for status in node.snapshot.gpus] == ["QPX", "CPX"]
            events = [event.subject for event in await node.loop.events() if event.kind == "claim_placed"]
            assert events[-1] == "n", "the largest goes first"

    asyncio.run(story())


def test_a_draining_gpu_takes_nobody() -> None:
    async def story() -> None:
        async with running_node(policy=POLICY) as node:
            await node.loop.set_draining(ADDRESSES[0], draining=True)
            await node.loop.claim("m", spec(24), uid=0)
            assert places(node.snapshot.claim("m")) == [(ADDRESSES[1], 0)]
            await node.loop.set_draining(ADDRESSES[0], draining=False)
            await node.loop.claim("n", spec(24, preferred=(ADDRESSES[0], 0)), uid=0)
            assert places(node.snapshot.claim("n")) == [(ADDRESSES[0], 0)]

    asyncio.run(story())


# -- restarts and reboots ------------------------------------------------------------------------------------------


def test_claims_after_a_reboot(tmp_path: Path, children: Children) -> None:
    """Every GPU is in SPX then: the switches that the claims need are made, and each has its memory again."""

    async def story() -> None:
        sim = SimulatedNode(fast_state(), tmp_path / "sim.json")
        async with running_node(sim, directory=tmp_path, policy=POLICY) as node:
            await node.loop.claim("small", spec(24, "CPX", replicas=3, guarantee=5), uid=0)
            await node.until(at_rest)
            await node.loop.claim("large", spec(90, "DPX"), uid=0)
            await node.until(at_rest)
            await hold(node, "large", children.start())
            wanted = {claim.name: claim.spec for claim in node.snapshot.claims}
        boot_id = sim.boot_id
        sim.act(lambda driver, now: driver.reboot(now))
        again = SimulatedNode.open(tmp_path / "sim.json", fast_state())
        assert again.boot_id != boot_id
        assert [gpu.compute.value for gpu in again._driver.state.gpus] == ["SPX", "SPX"]
        async with running_node(again, directory=tmp_path, policy=POLICY) as node:
            await node.until(lambda snapshot: at_rest(snapshot) and len(snapshot.changes) >= 4)
            assert {claim.name: claim.spec for claim in node.snapshot.claims} == wanted
            assert broken_promises(node.snapshot) == []
            assert sorted(str(status.gpu.compute_mode) for status in node.snapshot.gpus) == ["CPX", "DPX"]
            assert "rebooted" in await event_kinds(node)
            await node.until(lambda snapshot: snapshot.claim_holders == ())
            assert (await event_kinds(node)).count("orphan_found") == 1

    asyncio.run(story())


def test_claims_after_a_restart_stay_where_they_are(tmp_path: Path) -> None:
    async def story() -> None:
        sim = SimulatedNode(fast_state(), tmp_path / "sim.json")
        async with running_node(sim, directory=tmp_path, policy=POLICY) as node:
            await node.loop.claim("m", spec(24, "CPX", replicas=2), uid=0)
            await node.until(at_rest)
            before = node.snapshot.claims
        for _ in range(3):
            async with running_node(sim, directory=tmp_path, policy=POLICY) as node:
                await asyncio.sleep(0.1)  # some polls
                assert node.snapshot.claims == before
                assert len(node.snapshot.changes) == 1
                assert broken_promises(node.snapshot) == []

    asyncio.run(story())


def test_a_driver_reload_under_claims() -> None:
    async def story() -> None:
        async with running_node(policy=POLICY) as node:
            await node.loop.claim("m", spec(24, "CPX", replicas=2), uid=0)
            await node.until(at_rest)
            assert node.sim.act(lambda driver, now: driver.reload(now)) == 0
            await node.until(lambda snapshot: at_rest(snapshot) and len(snapshot.changes) == 2)
            assert len(places(node.snapshot.claim("m"))) == 2
            assert broken_promises(node.snapshot) == []

    asyncio.run(story())
