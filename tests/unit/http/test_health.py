"""healthz and readyz name the checks that fail."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from http import HTTPStatus

import pytest

from aimd.adapters.http.api import Api, NodeFacts
from aimd.adapters.http.call import Answer, Call
from aimd.adapters.http.health import ALIVE_SECONDS
from aimd.adapters.http.resources.daemon import read_health, read_readiness
from aimd.adapters.ledger import SqliteLedger
from aimd.adapters.unix.peer import Operators, Peer
from aimd.domain.node import NodeSnapshot
from aimd.errors import LedgerError
from aimd.ports import Health
from tests.fakes.node import ADDRESSES, RunningNode, running_node
from tests.fakes.traffic import ShownTraffic

CALL = Call(Peer(1, 0, False, "uid 0"), {})
READY = NodeSnapshot(generation=1, ready=True)


@dataclass
class Told:
    """The part of ports.ControlPlane that health asks."""

    snapshot: NodeSnapshot = READY
    health: Health = field(default_factory=lambda: Health(time.monotonic()))


def api(control: object) -> Api:
    return Api(control, Operators(frozenset()), NodeFacts("boot", None, 0.0), ShownTraffic())


def ask(operation, control: object) -> tuple[HTTPStatus, str, dict[str, str]]:
    answer = asyncio.run(operation(api(control), CALL))
    assert isinstance(answer, Answer)
    return answer.status, answer.message.status, answer.message.failing


@pytest.mark.parametrize("operation", [read_health, read_readiness])
def test_all_is_well(operation):
    assert ask(operation, Told()) == (HTTPStatus.OK, "ok", {})


def test_a_loop_that_does_not_turn_is_not_alive():
    status, word, failing = ask(read_health, Told(health=Health(time.monotonic() - ALIVE_SECONDS - 1)))
    assert (status, word, list(failing)) == (HTTPStatus.SERVICE_UNAVAILABLE, "failing", ["loop"])
    assert "has not turned for 16 s" in failing["loop"]


def test_a_node_that_was_not_scanned_is_alive_and_not_ready():
    control = Told(NodeSnapshot(generation=1, warnings=("no KFD topology",)))
    assert ask(read_health, control)[0] == HTTPStatus.OK
    assert ask(read_readiness, control) == (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "failing",
        {"inventory": "no KFD topology"},
    )


def test_both_checks_are_named():
    control = Told(NodeSnapshot(), Health(time.monotonic(), "disk full"))
    assert ask(read_readiness, control)[2] == {"inventory": "the node was not scanned yet", "ledger": "disk full"}


class FullDisk(SqliteLedger):
    """A ledger whose disk can be full."""

    full = False

    def commit(self, write) -> None:
        if self.full:
            raise LedgerError("the ledger cannot be written: disk full")
        super().commit(write)


def test_a_daemon_that_cannot_journal_is_alive_not_ready_and_recovers(tmp_path):
    async def story() -> None:
        ledger = FullDisk(tmp_path / "ledger.db", time.time())
        async with running_node(ledger=ledger) as node:
            ledger.full = True
            waiting = asyncio.create_task(node.loop.set_draining(ADDRESSES[0], draining=True))
            await until(node, {"ledger": "the ledger cannot be written: disk full"})
            assert (await read_health(api(node.loop), CALL)).status == HTTPStatus.OK
            ledger.full = False
            await asyncio.gather(waiting, return_exceptions=True)  # told or not that it is not durable yet
            await until(node, {})

    asyncio.run(asyncio.wait_for(story(), 20))


async def until(node: RunningNode, failing: dict[str, str]) -> None:
    while (await read_readiness(api(node.loop), CALL)).message.failing != failing:  # noqa: ASYNC110 - nothing is published
        await asyncio.sleep(0.01)
