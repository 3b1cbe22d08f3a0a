"""The local API's resources: gpus, partitions, plans, events, node, version. Translates, decides nothing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiohttp import web

from aimd import __version__
from aimd.adapters.http.peer import Operators, peer_of
from aimd.adapters.http.problems import problems
from aimd.domain.event import Event
from aimd.domain.node import NodeSnapshot
from aimd.errors import InvalidInputError, NotFoundError
from aimd.ports import ControlPlane
from aimd.protocol import convert
from aimd.protocol import messages as msg

BODY_LIMIT = 64 * 1024
WATCH_SECONDS = 15.0
EVENT_BATCH = 1000
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the API tells of the daemon itself."""

    boot_id: str
    simulated: str | None
    started: float


class LocalApi:
    """The API on one Unix socket.

    Args:
        control: the daemon.
        operators: who may change things.
        facts: what /v1/node tells.
    """

    def __init__(self, control: ControlPlane, operators: Operators, facts: NodeFacts) -> None:
        self._control = control
        self._operators = operators
        self._facts = facts
        self._runner: web.AppRunner | None = None

    async def start(self, path: Path) -> None:
        """Listen on the path; a socket file left by a dead daemon is replaced (the caller holds the daemon's lock)."""
        app = web.Application(middlewares=[problems], client_max_size=BODY_LIMIT)
        app.add_routes(
            [
                web.get("/v1/gpus", self._gpus),
                web.get("/v1/gpus/{gpu}", self._gpu),
                web.get("/v1/partitions", self._partitions),
                web.get("/v1/partitions/{gpu}/{index}", self._partition),
                web.get("/v1/plans", self._plans),
                web.get("/v1/plans/{name}", self._plan),
                web.put("/v1/plans/{name}", self._put_plan),
                web.get("/v1/events", self._events),
                web.get("/v1/node", self._node),
                web.get("/v1/version", self._version),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        path.unlink(missing_ok=True)
        await web.UnixSite(self._runner, os.fspath(path)).start()
        path.chmod(0o666)  # everyone may read; each change is decided by the peer's credentials

    async def close(self) -> None:
        """End all connections and stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    # -- resources -------------------------------------------------------------------------------------------

    def _snapshot(self) -> NodeSnapshot:
        return self._control.snapshot

    async def _gpus(self, _request: web.Request) -> web.Response:
        return _json(convert.inventory_message(self._snapshot()))

    async def _gpu(self, request: web.Request) -> web.Response:
        snapshot = self._snapshot()
        return _json(convert.gpu_message(snapshot.find(request.match_info["gpu"]), snapshot.holders))

    async def _partitions(self, _request: web.Request) -> web.Response:
        found = [part for status in self._snapshot().gpus for part in convert.partition_messages(status)]
        return _json(msg.PartitionListMessage(partitions=found))

    async def _partition(self, request: web.Request) -> web.Response:
        status, index = self._snapshot().find(request.match_info["gpu"]), request.match_info["index"]
        for partition in convert.partition_messages(status):
            if str(partition.index) == index:
                return _json(partition)
        has = f"it has {len(status.gpu.partitions)} in mode {status.gpu.mode}"
        raise NotFoundError(
            f"{status.name} has no partition {index!r}", code="unknown_partition", hint=f"{has}, counted from 0"
        )

    async def _plans(self, _request: web.Request) -> web.Response:
        now = time.monotonic()
        return _json(msg.ChangeListMessage(plans=[convert.change_message(c, now) for c in self._snapshot().changes]))

    async def _plan(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        change = self._snapshot().change(name)
        if change is None:
            raise NotFoundError(f"plan {name!r} does not exist (any more)", hint="aimctl get plans lists them")
        if request.query.get("watch") in ("1", "true"):
            return await _stream(request, self._watch_plan(name))
        return _json(convert.change_message(change, time.monotonic()))

    async def _put_plan(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if _NAME.fullmatch(name) is None:
            raise InvalidInputError(
                f"plan name {name!r} is not allowed, expected 1 to 63 of a-z 0-9 . _ - beginning and ending with a "
                "letter or digit"
            )
        body = _decode(await request.read())
        snapshot = self._snapshot()
        wishes = [(snapshot.find(gpu).gpu.pci_address, mode) for gpu, mode in body.wishes()]
        if len({gpu for gpu, _ in wishes}) < len(wishes):
            raise InvalidInputError("modes: a GPU is named twice", hint="name each GPU once, by one of its names")
        if body.dry_run:
            return _json(convert.plan_message(await self._control.plan(wishes)))
        peer = peer_of(request)
        self._operators.require(peer)
        known = snapshot.change(name) is not None
        change = await self._control.submit(name, wishes, wait_seconds=body.wait_seconds, uid=peer.uid)
        return _json(convert.change_message(change, time.monotonic()), status=200 if known else 202)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        since = _since(request)
        if request.query.get("watch") in ("1", "true"):
            return await _stream(request, self._watch_events(since))
        events = [convert.event_message(event) for event in await self._control.events(after=since, limit=EVENT_BATCH)]
        return _json(msg.EventListMessage(events=events, next=events[-1].sequence if events else since))

    async def _node(self, _request: web.Request) -> web.Response:
        snapshot, facts = self._snapshot(), self._facts
        return _json(
            msg.NodeMessage(
                ready=snapshot.ready,
                generation=snapshot.generation,
                gpu_count=len(snapshot.gpus),
                partition_count=sum(len(status.gpu.partitions) for status in snapshot.gpus),
                topology_generation=snapshot.topology_generation,
                busy_rule=snapshot.busy_rule.value,
                boot_id=facts.boot_id,
                simulated=facts.simulated,
                version=__version__,
                pid=os.getpid(),
                uptime_seconds=round(time.monotonic() - facts.started, 3),
                warnings=list(snapshot.warnings),
            )
        )

    async def _version(self, _request: web.Request) -> web.Response:
        return _json(msg.VersionMessage(version=__version__))

    # -- streams ---------------------------------------------------------------------------------------------

    async def _watch_plan(self, name: str) -> AsyncIterator[msg.Message]:
        """The change at each of its steps, the final one last."""
        snapshot, shown = self._snapshot(), None
        while (change := snapshot.change(name)) is not None:
            if change != shown:
                shown = change
                yield convert.change_message(change, time.monotonic())
            if change.current is None:
                return
            snapshot = await self._control.changed(snapshot.generation, WATCH_SECONDS)

    async def _watch_events(self, since: int) -> AsyncIterator[msg.Message]:
        """Events after `since`, without end."""
        while True:
            generation = self._snapshot().generation
            events: list[Event] = list(await self._control.events(after=since, limit=EVENT_BATCH))
            for event in events:
                since = event.sequence
                yield convert.event_message(event)
            if not events:
                await self._control.changed(generation, 1.0)


def _json(message: msg.Message, status: int = 200) -> web.Response:
    return web.Response(body=msg.to_json(message), status=status, content_type="application/json")


async def _stream(request: web.Request, messages: AsyncIterator[msg.Message]) -> web.StreamResponse:
    """NDJSON: one message a line, as they come."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    async for message in messages:
        await response.write(msg.to_json(message) + b"\n")
    await response.write_eof()
    return response


def _decode(body: bytes) -> msg.ChangeRequest:
    try:
        return msgspec.json.decode(body, type=msg.ChangeRequest)
    except msgspec.DecodeError as error:
        raise InvalidInputError(
            f"the request's body is not understood: {error}", hint='for example {"modes": {"gpu0": "CPX/NPS1"}}'
        ) from error


def _since(request: web.Request) -> int:
    text = request.query.get("since", "0")
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise InvalidInputError(f"since is {text!r}, expected the sequence number of an event, 0 for all")
    return int(text)
