"""Events: what happened, as the ledger keeps it. Their sequence numbers outlive the daemon, unlike generations."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from http import HTTPStatus

from aimd.adapters.http.api import Api
from aimd.adapters.http.call import Answer, Call, Result, Stream
from aimd.adapters.http.resources.common import SINCE, WATCH
from aimd.adapters.http.routes import Parameter, Route
from aimd.errors import GoneError
from aimd.protocol import convert
from aimd.protocol import messages as msg

LOOK_SECONDS = 1.0  # an event may be written without a new snapshot
_AFTER = Parameter("since", "the sequence number of the last event that is known already", SINCE.schema)


async def list_events(api: Api, call: Call) -> Result:
    since = call.number("since", "the sequence number of an event, 0 for all") or 0
    watch = call.flag("watch")
    if since and not await api.events(since - 1):
        raise GoneError(
            f"there is no event {since}: the ledger was begun anew since, or never had so many",
            code="events_gone",
            hint="list the events from 0",
        )
    if watch:
        return Stream(_followed(api, since))
    events = [convert.event_message(event) for event in await api.events(since)]
    return Answer(msg.EventListMessage(events=events, next=events[-1].sequence if events else since))


async def _followed(api: Api, since: int) -> AsyncGenerator[msg.Message, None]:
    while True:
        generation = api.snapshot().generation
        events = await api.events(since)
        for event in events:
            since = event.sequence
            yield convert.event_message(event)
        if not events:
            await api.control.changed(generation, LOOK_SECONDS)


ROUTES = (
    Route(
        "GET",
        "/v1/events",
        "What happened on the node, oldest first, at most 1000 at a time; watched, what happens from now on, too",
        list_events,
        {200: msg.EventListMessage},
        query=(WATCH, _AFTER),
        lines=msg.EventMessage,
        problems=(HTTPStatus.BAD_REQUEST, HTTPStatus.GONE),
    ),
)
