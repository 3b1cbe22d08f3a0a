"""Who may see and change what: operators all, others read, owners give up their own, pods nothing of claims."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aimd.adapters.http.api import Api, NodeFacts
from aimd.adapters.http.call import Answer, Call, Stream
from aimd.adapters.http.resources import claims, daemon, holders, inventory, models, plans
from aimd.adapters.unix.peer import Operators, Peer
from aimd.errors import AimdError, DeniedError, NotFoundError
from tests.fakes.node import running_node
from tests.fakes.traffic import ShownTraffic

PID = os.getpid()
OPERATOR = Peer(PID, 500, False, "uid 500")
USER = Peer(PID, 1000, False, "uid 1000")
ROOT_IN_POD = Peer(PID, 500, True, "pod a")
CLAIM = b'{"memory_gb": 1}'
PATHS = {"name": "llama", "claim": "llama", "replica": "0", "gpu": "gpu0", "pid": str(PID)}

CHANGES = {
    "claim": (claims.write_claim, CLAIM),
    "release": (claims.release_claim, b""),
    "hold": (holders.write_holder, b"{}"),
    "drain": (inventory.drain_gpu, b"{}"),
    "undrain": (inventory.undrain_gpu, b""),
    "plan": (plans.write_plan, b'{"modes": {"gpu0": "CPX"}}'),
    "reload": (daemon.reload, b""),
}
READS = {
    "claim": claims.read_claim,
    "assignment": claims.read_assignment,
    "environment": holders.read_environment,
    "model": models.read_model,
}


def on_a_node(story: Callable[[Api], Awaitable[None]]) -> None:
    """A node with the operator's claim `llama`."""

    async def run() -> None:
        async with running_node() as node:
            api = Api(node.loop, Operators(frozenset({500})), NodeFacts("boot", None, time.monotonic()), ShownTraffic())
            assert (await ask(api, claims.write_claim, OPERATOR, CLAIM)).status == 201
            await story(api)

    asyncio.run(asyncio.wait_for(run(), 20))


async def ask(api: Api, operation: Any, peer: Peer, content: bytes = b"", **path: str) -> Any:
    return await operation(api, Call(peer, {**PATHS, **path}, {}, content))


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("peer", [USER, ROOT_IN_POD], ids=["user", "pod"])
def test_only_operators_change_things(what, peer):
    async def story(api: Api) -> None:
        before = api.control.snapshot
        operation, content = CHANGES[what]
        hidden = peer.in_pod and what in ("release", "hold")
        with pytest.raises(NotFoundError if hidden else DeniedError):
            await ask(api, operation, peer, content)
        assert api.control.snapshot.claims == before.claims
        assert api.control.snapshot.gpus == before.gpus
        assert api.control.snapshot.changes == before.changes

    on_a_node(story)


@pytest.mark.parametrize("what", READS)
def test_users_read_claims_and_pods_see_none(what):
    async def story(api: Api) -> None:
        assert isinstance(await ask(api, READS[what], USER), Answer)
        with pytest.raises(NotFoundError):
            await ask(api, READS[what], ROOT_IN_POD)

    on_a_node(story)


def test_lists_and_watches_of_a_pod_are_empty():
    async def story(api: Api) -> None:
        assert (await ask(api, claims.list_claims, USER)).message.claims[0].name == "llama"
        assert (await ask(api, claims.list_assignments, USER)).message.assignments[0].name == "llama/0"
        assert (await ask(api, models.list_models, USER)).message.models[0].name == "llama"
        assert (await ask(api, claims.list_claims, ROOT_IN_POD)).message.claims == []
        assert (await ask(api, models.list_models, ROOT_IN_POD)).message.models == []
        assert (await ask(api, claims.list_assignments, ROOT_IN_POD)).message.assignments == []
        for operation in (claims.list_claims, claims.list_assignments, models.list_models):
            stream = await operation(api, Call(ROOT_IN_POD, {}, {"watch": "1"}))
            assert isinstance(stream, Stream)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(stream.messages), 0.1)

    on_a_node(story)


def test_an_owner_that_is_no_operator_any_more_may_hold_and_release():
    async def story(api: Api) -> None:
        later = Api(api.control, Operators(frozenset()), api.facts, api.traffic)
        assert (await ask(later, holders.write_holder, OPERATOR, b"{}")).message.partition == "0000:05:00.0/0"
        released = (await ask(later, claims.release_claim, OPERATOR)).message
        assert PID in [holder.pid for holder in released.holders]  # beside what this process has started
        assert api.control.snapshot.claims == ()

    on_a_node(story)


def test_nobody_makes_another_process_a_holder():
    async def story(api: Api) -> None:
        with pytest.raises(DeniedError, match=f"expected self or its own pid, {PID}") as caught:
            await ask(api, holders.write_holder, OPERATOR, b"{}", pid="1")
        assert caught.value.code == "not_own_process"

    on_a_node(story)


@pytest.mark.parametrize("number", ["00", "-0", " 0", "0x0", "1", "99999999999999999999", "\u0660"])
def test_a_replica_that_is_none_is_not_found(number):
    async def story(api: Api) -> None:
        with pytest.raises(AimdError) as caught:
            await ask(api, claims.read_assignment, USER, replica=number)
        assert caught.value.code == "unknown_assignment"

    on_a_node(story)
