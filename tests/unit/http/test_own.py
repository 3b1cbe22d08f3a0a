"""GET /v1/self and holders/self: who the caller is, by its connection; a pod sees and holds what is its own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aimd.adapters.http.api import Api, NodeFacts
from aimd.adapters.http.call import Call
from aimd.adapters.http.resources import claims, holders, own
from aimd.adapters.unix.peer import Operators, Peer
from aimd.domain.claim import PodRequest
from aimd.domain.pod import PodRef
from aimd.errors import ConflictError, DeniedError, NotFoundError
from aimd.planning import effects as fx
from tests.fakes.claims import spec
from tests.fakes.node import RunningNode, fast_state, running_node
from tests.fakes.traffic import ShownTraffic

PID = os.getpid()
NAMES = ("a", "b", "c", "nobody")
PODS = {name: Peer(PID, 0, in_pod=True, account=f"pod uid-{name}", pod=f"uid-{name}") for name in NAMES}
MODEL = "default/llama"


def pod(name: str, gb: float, model: str = MODEL) -> PodRequest:
    return PodRequest(
        PodRef("default", name, f"uid-{name}"), model, spec(gb, "SPX"), f"2026-01-01T00:00:0{ord(name) % 9}Z"
    )


def on_a_node(story: Callable[[Api, RunningNode], Awaitable[None]]) -> None:
    """Two GPUs of 192 GB: pods a and b of one model are placed, c of another one finds no room."""

    async def run() -> None:
        async with running_node(fast_state(count=2)) as node:
            api = Api(node.loop, Operators(frozenset({0})), NodeFacts("boot", None, time.monotonic()), ShownTraffic())
            node.loop.post(fx.PodsSeen((pod("a", 100), pod("b", 100))))
            await node.until(lambda snapshot: [len(claim.assignments) for claim in snapshot.claims] == [2])
            node.loop.post(fx.PodsSeen((pod("a", 100), pod("b", 100), pod("c", 150, "default/other"))))
            await node.until(lambda snapshot: len(snapshot.claims) == 2)
            await story(api, node)

    asyncio.run(asyncio.wait_for(run(), 20))


async def asked(api: Api, peer: Peer) -> Any:
    return (await own.read_self(api, Call(peer, {}))).message


async def hold(api: Api, peer: Peer, name: str = MODEL, who: str = "self", content: bytes = b"{}") -> Any:
    return (await holders.write_holder(api, Call(peer, {"name": name, "pid": who}, {}, content))).message


def test_a_pod_is_told_its_claim_and_its_place():
    async def story(api: Api, _node: RunningNode) -> None:
        told = {name: await asked(api, PODS[name]) for name in "ab"}
        assert {name: (one.claim, one.state, one.pod, one.replica) for name, one in told.items()} == {
            "a": (MODEL, "placed", "default/a", 0),
            "b": (MODEL, "placed", "default/b", 1),
        }
        assert {one.assignment.partition_name for one in told.values()} == {"gpu0/0", "gpu1/0"}
        assert told["a"].assignment.pod == "default/a"
        assert (told["a"].pid, told["a"].uid, told["a"].operator, told["a"].pod_uid) == (PID, 0, False, "uid-a")

    on_a_node(story)


def test_a_pod_without_room_is_told_why():
    async def story(api: Api, _node: RunningNode) -> None:
        told = await asked(api, PODS["c"])
        assert (told.claim, told.state, told.assignment, told.reason) == ("default/other", "pending", None, "no_room")
        assert "150" in told.message
        with pytest.raises(ConflictError) as caught:
            await hold(api, PODS["c"], "default/other")
        assert caught.value.code == "not_placed"

    on_a_node(story)


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        (PODS["nobody"], "pod uid-nobody has no claim on this node"),
        (Peer(PID, 0, in_pod=True, account="pods"), "cannot be told from its control group"),
        (Peer(0, 0, in_pod=True, account="pods"), "needs hostPID"),
        (Peer(PID, 0, in_pod=False, account="uid 0"), "runs in no pod and holds no claim"),
    ],
)
def test_who_has_nothing_is_told_so(peer, message):
    async def story(api: Api, _node: RunningNode) -> None:
        told = await asked(api, peer)
        assert (told.state, told.claim, told.replica, told.assignment) == ("none", None, None, None)
        assert message in told.message
        assert told.operator is not peer.in_pod

    on_a_node(story)


def test_a_process_of_the_node_is_told_the_claim_that_it_holds():
    async def story(api: Api, node: RunningNode) -> None:
        peer = Peer(PID, 0, in_pod=False, account="uid 0")
        await node.loop.claim("mine", spec(1, "SPX"), uid=0)
        assert (await hold(api, peer, "mine")).claim == "mine"
        told = await asked(api, peer)
        assert (told.claim, told.replica, told.state, told.in_pod, told.operator) == ("mine", 0, "placed", False, True)

    on_a_node(story)


def test_a_pod_holds_its_own_replica_whatever_number_it_thinks_it_has():
    async def story(api: Api, node: RunningNode) -> None:
        held = await hold(api, PODS["b"])
        assert (held.claim, held.replica, held.pod) == (MODEL, 1, "default/b")
        assert held.holder.startswith(f"{PID}:")
        assert [(one.pid, one.replica) for one in node.snapshot.claim_holders] == [(PID, 1)]
        assert held.render_minors == [128, 136]
        with pytest.raises(DeniedError, match="expected self or its own pid") as caught:
            await hold(api, PODS["b"], who="7")
        assert caught.value.code == "not_own_process"

    on_a_node(story)


@pytest.mark.parametrize("name", ["c", "nobody"])
def test_a_pod_holds_and_sees_no_claim_of_others(name):
    async def story(api: Api, node: RunningNode) -> None:
        with pytest.raises(NotFoundError):
            await hold(api, PODS[name])
        for read in (claims.read_claim, holders.read_environment):
            with pytest.raises(NotFoundError):
                await read(api, Call(PODS[name], {"name": MODEL}))
        assert node.snapshot.claim_holders == ()

    on_a_node(story)


def test_a_replica_of_another_pod_is_refused():
    async def story(api: Api, _node: RunningNode) -> None:
        with pytest.raises(DeniedError) as caught:
            await hold(api, PODS["a"], content=b'{"replica": 1}')
        assert caught.value.code == "not_own_replica"

    on_a_node(story)


def test_a_place_that_a_switch_has_taken_is_none():
    async def story(api: Api, node: RunningNode) -> None:
        assert (await asked(api, PODS["a"])).state == "placed"
        node.loop.post(fx.PodsSeen((pod("b", 100),)))
        await node.until(lambda snapshot: [len(claim.pods) for claim in snapshot.claims] == [1])
        assert (await asked(api, PODS["a"])).state == "none"

    on_a_node(story)
