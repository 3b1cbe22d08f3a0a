"""What routes of several resources share: query parameters, and how a list is answered or watched."""

from __future__ import annotations

import re

from aimd.adapters.http.api import Api, Collection, Listed
from aimd.adapters.http.call import Call, Stream
from aimd.adapters.http.routes import Parameter
from aimd.errors import InvalidInputError
from aimd.protocol.watch import NOTHING

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")

WATCH = Parameter(
    "watch",
    "1: a stream of changes, one JSON object a line (NDJSON), instead of one answer",
    {"enum": ["0", "1", "false", "true"], "default": "0"},
)
SINCE = Parameter(
    "since",
    "with watch=1: go on after the line with this generation, or after a list with it; 0 begins with all objects",
    {"type": "integer", "minimum": 0, "maximum": 10**18 - 1, "default": 0},
)


async def watched(api: Api, call: Call, collection: Collection[Listed]) -> Stream | None:
    """The stream that the query asks for, or None if it asks for the list.

    Raises:
        InvalidInputError: a parameter is none, or `since` stands alone.
        GoneError: the history does not reach back as far as `since`.
    """
    since = call.number("since", "the generation of a list or of a line")
    if not call.flag("watch"):
        if since is not None:
            raise InvalidInputError(f"since is {since} without watch, expected both", hint="add watch=1")
        return None
    return Stream(api.watch(collection, NOTHING if since is None else since))


def name_of(call: Call, kind: str) -> str:
    """The object's name, which the client chooses; raises InvalidInputError for one that is not allowed."""
    name = call.path["name"]
    if _NAME.fullmatch(name) is None:
        raise InvalidInputError(
            f"{kind} name {name!r} is not allowed, expected 1 to 63 of a-z 0-9 . _ - beginning and ending with a "
            "letter or digit"
        )
    return name
