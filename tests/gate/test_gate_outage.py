"""aimd goes and comes back under the gate."""

import asyncio
import time

from aimd.dispatch.gate.reach import Reach
from tests.gate.scene import scene, until
from tests.gate.test_gate_passing import played
from tests.gate.test_gate_refusals import check, with_all_slots_taken


def test_closed_without_aimd(dispatcher):
    async def story():
        dispatcher.stop()
        async with scene(dispatcher) as s:
            began = time.monotonic()
            problem = check(await s.told(), 503, "dispatch_unreachable", "5")
            assert "--fail open" in problem["hint"]
            assert 0.4 < time.monotonic() - began < 3
            check(await s.told(headers={"X-Aim-Timeout": "60"}), 503, "dispatch_unreachable", "5")
            assert time.monotonic() - began < 6
            assert s.upstream.requests == []
            assert await s.counted('aim_gate_aimd_unreachable_total{policy="closed"}') == 2
            dispatcher.start()
            assert (await s.told())[0] == 200

    played(story)


def test_open_without_aimd(dispatcher):
    async def story():
        dispatcher.stop()
        async with scene(dispatcher, fail_open=True) as s:
            assert (await s.told())[0] == 200
            assert (await s.told("/", "POST", data=b"x", headers={"X-Aim-Timeout": "60"}))[2]["body"] == "x"
            began = time.monotonic()
            assert [status for status, _, _ in await asyncio.gather(*(s.told() for _ in range(5)))] == [200] * 5
            assert time.monotonic() - began < 2
            assert await s.counted('aim_gate_aimd_unreachable_total{policy="open"}') == 7
            assert await s.counted('aim_gate_requests_total{class="default",outcome="passed"}') == 7
            dispatcher.start()
            assert (await s.told())[0] == 200
            assert await s.counted('aim_gate_requests_total{class="medium",outcome="granted"}') == 1
        dispatcher.until_idle()

    played(story)


def test_requests_wait_for_an_aimd_that_restarts(dispatcher):
    async def story():
        async with scene(dispatcher, patience=5.0) as s:
            holding = await with_all_slots_taken(s)
            waiting = [asyncio.create_task(s.told("/sleep")) for _ in range(6)]
            await until(lambda: dispatcher.waiting() == 6)
            await asyncio.to_thread(dispatcher.restart, 0.3)
            late = asyncio.create_task(s.told("/sleep"))
            await until(lambda: dispatcher.running() == 2 and dispatcher.waiting() == 7)
            s.upstream.go.set()
            for status, _, _ in await asyncio.gather(*holding, *waiting, late):
                assert status == 200
            assert s.upstream.most == 2
        dispatcher.until_idle()

    played(story)


def test_what_ends_while_aimd_is_away_is_given_back_when_it_is_there(dispatcher):
    async def story():
        async with scene(dispatcher, patience=5.0) as s:
            holding = await with_all_slots_taken(s)
            dispatcher.stop()
            s.upstream.go.set()
            for status, _, _ in await asyncio.gather(*holding):
                assert status == 200
            dispatcher.start()
            await asyncio.to_thread(dispatcher.until_idle)

    played(story)


def test_daemon_that_has_forgotten_all_leases(dispatcher):
    async def story():
        async with scene(dispatcher, patience=5.0) as s:
            (one, two) = await with_all_slots_taken(s)
            dispatcher.stop()
            dispatcher.forget_leases()
            dispatcher.start()
            for told in await asyncio.gather(one, two):
                check(told, 503, "lease_lost", "1")
            assert (await s.told())[0] == 200

    played(story)


def test_an_outage_is_longer_than_a_restart(tmp_path, dispatcher):
    reach = Reach(str(dispatcher.path), 2.0)
    assert reach.look(0.0)
    assert not reach.is_out(100.0)
    dispatcher.stop()
    assert not reach.look(101.0)
    assert not reach.is_out(102.9)
    assert reach.is_out(103.0)
    dispatcher.start()
    assert reach.look(104.0)
    assert not reach.is_out(104.0)
