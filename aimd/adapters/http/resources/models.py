"""Models: the claims as the dispatch service sees them, with what goes through. Visible to those who see the claims."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from http import HTTPStatus

from aimd.adapters.http.api import WATCH_SECONDS, Api
from aimd.adapters.http.call import Answer, Call, Result, Stream
from aimd.adapters.http.resources.claims import visible_claims
from aimd.adapters.http.resources.common import WATCH
from aimd.adapters.http.routes import Route
from aimd.adapters.unix.peer import Peer
from aimd.domain.traffic import TrafficBoard
from aimd.errors import NotFoundError
from aimd.protocol.convert_models import model_message
from aimd.protocol.models import ModelListMessage, ModelMessage
from aimd.protocol.watch import NOTHING, WatchMessage, step


def _models(api: Api, peer: Peer, board: TrafficBoard | None) -> dict[str, ModelMessage]:
    snapshot = api.snapshot()
    return {claim.name: model_message(claim, snapshot, board) for claim in visible_claims(snapshot, peer)}


async def list_models(api: Api, call: Call) -> Result:
    if call.flag("watch"):
        return Stream(_changes(api, call.peer))
    board = api.traffic.board
    found = list(_models(api, call.peer, board).values())
    if board is None:
        return Answer(ModelListMessage(models=found))
    return Answer(ModelListMessage(models=found, window_seconds=board.window_seconds, sample=board.number))


async def read_model(api: Api, call: Call) -> Result:
    name, snapshot = call.path["name"], api.snapshot()
    for claim in visible_claims(snapshot, call.peer):
        if claim.name == name:
            return Answer(model_message(claim, snapshot, api.traffic.board))
    raise NotFoundError(f"model {name!r} has no claim on this node", code="unknown_model", hint="aimctl get models")


async def _changes(api: Api, peer: Peer) -> AsyncGenerator[WatchMessage[ModelMessage], None]:
    """What differs from sample to sample, without end; a line's generation is the number of its sample."""
    shown: dict[str, ModelMessage] = {}
    number = NOTHING
    while True:
        board = api.traffic.board
        reached = board.number if board is not None else NOTHING
        models = _models(api, peer, board)
        for line in step(shown, models, since=number, reached=reached):
            yield line
        shown, number = models, reached
        await api.traffic.newer(number, WATCH_SECONDS)


ROUTES = (
    Route(
        "GET",
        "/v1/models",
        "All models with their traffic; watched, whatever differs from one sample to the next, every few seconds",
        list_models,
        {200: ModelListMessage},
        query=(WATCH,),
        lines=WatchMessage[ModelMessage],
    ),
    Route(
        "GET",
        "/v1/models/{name}",
        "One model with its traffic, as a whole and on each of its partitions",
        read_model,
        {200: ModelMessage},
        problems=(HTTPStatus.NOT_FOUND,),
    ),
)
