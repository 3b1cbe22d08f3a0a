"""Plans: mode changes, named by the client and written by PUT, so that a repeated request is the same request."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from http import HTTPStatus

from aimd.adapters.http.api import WATCH_SECONDS, Api, Collection
from aimd.adapters.http.call import Answer, Call, Result, Stream
from aimd.adapters.http.resources.common import SINCE, WATCH, name_of, watched
from aimd.adapters.http.routes import Route
from aimd.domain.node import NodeSnapshot
from aimd.errors import InvalidInputError, NotFoundError
from aimd.protocol import convert
from aimd.protocol import messages as msg
from aimd.protocol.watch import WatchMessage


def _plans(snapshot: NodeSnapshot, now: float) -> dict[str, msg.ChangeMessage]:
    return {change.name: convert.change_message(change, snapshot, now) for change in snapshot.changes}


PLANS = Collection(_plans)


async def list_plans(api: Api, call: Call) -> Result:
    if (stream := await watched(api, call, PLANS)) is not None:
        return stream
    snapshot = api.snapshot()
    plans = list(_plans(snapshot, time.monotonic()).values())
    return Answer(msg.ChangeListMessage(plans=plans, generation=snapshot.generation))


async def read_plan(api: Api, call: Call) -> Result:
    name, watch = call.path["name"], call.flag("watch")
    snapshot = api.snapshot()
    change = snapshot.change(name)
    if change is None:
        raise NotFoundError(f"plan {name!r} does not exist (any more)", hint="aimctl get plans lists them")
    if watch:
        return Stream(_followed(api, name))
    return Answer(convert.change_message(change, snapshot, time.monotonic()))


async def write_plan(api: Api, call: Call) -> Result:
    name = name_of(call, "plan")
    body = call.body(msg.ChangeRequest, '{"modes": {"gpu0": "CPX/NPS1"}}')
    snapshot = api.snapshot()
    wishes = [(snapshot.find(gpu).gpu.pci_address, mode) for gpu, mode in body.wishes()]
    named = [gpu for gpu, _ in wishes]
    twice = sorted({gpu for gpu in named if named.count(gpu) > 1})
    if twice:
        raise InvalidInputError(
            f"modes: {', '.join(twice)} is named more than once, expected each GPU once", hint="use one of its names"
        )
    if body.dry_run:
        return Answer(convert.plan_message(await api.control.plan(wishes, drain=body.drain)))
    api.operators.require(call.peer)
    known = snapshot.change(name) is not None
    change = await api.control.submit(name, wishes, wait_seconds=body.wait_seconds, uid=call.peer.uid, drain=body.drain)
    status = HTTPStatus.OK if known else HTTPStatus.ACCEPTED
    return Answer(convert.change_message(change, api.snapshot(), time.monotonic()), status)


async def _followed(api: Api, name: str) -> AsyncGenerator[msg.Message, None]:
    """The change at each of its steps, the final one last."""
    snapshot, shown = api.snapshot(), None
    while (change := snapshot.change(name)) is not None:
        if change != shown:
            shown = change
            yield convert.change_message(change, snapshot, time.monotonic())
        if change.current is None:
            return
        snapshot = await api.control.changed(snapshot.generation, WATCH_SECONDS)


ROUTES = (
    Route(
        "GET",
        "/v1/plans",
        "All mode changes that are under way, and the last that have ended",
        list_plans,
        {200: msg.ChangeListMessage},
        query=(WATCH, SINCE),
        lines=WatchMessage[msg.ChangeMessage],
        problems=(HTTPStatus.BAD_REQUEST, HTTPStatus.GONE),
    ),
    Route(
        "GET",
        "/v1/plans/{name}",
        "One mode change; watched, it is told at each of its steps, until it has ended",
        read_plan,
        {200: msg.ChangeMessage},
        query=(WATCH,),
        lines=msg.ChangeMessage,
        problems=(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
    ),
    Route(
        "PUT",
        "/v1/plans/{name}",
        "Change modes, as a transaction; a dry run tells what would happen",
        write_plan,
        {200: (msg.ChangeMessage, msg.PlanMessage), 202: msg.ChangeMessage},
        body=msg.ChangeRequest,
        problems=(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.FORBIDDEN,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    ),
)
