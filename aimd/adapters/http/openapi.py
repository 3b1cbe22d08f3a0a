"""The OpenAPI 3.1 document of the local API, from its table of routes and the typed messages.

`python -m aimd.adapters.http.openapi` writes it anew into the package; a test compares.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from aimd import __version__
from aimd.adapters.http.limits import Limits
from aimd.adapters.http.problems import PROBLEM_TYPE, phrase_of
from aimd.adapters.http.resources import ROUTES
from aimd.adapters.http.resources.daemon import DESCRIPTION
from aimd.adapters.http.routes import Parameter, Route
from aimd.protocol.messages import ProblemMessage

NDJSON = "application/x-ndjson"
OVERVIEW = """\
HTTP/1.1 and JSON on the daemon's Unix socket (/run/aimd/aimd.sock for the system's daemon). The Host is `aimd` or
`localhost`. The credentials of the connecting process decide: everyone may read; root, the daemon's user and the
configured operators may change things. A process in a pod is known by its control group: it changes nothing, whoever
it runs as, and sees and holds the claim that its pod is a replica of, and no other.

Every error is a problem (RFC 9457) with a stable `code`, and a `hint` where there is something to do about it.

Lists have a `generation`. `?watch=1&since=<generation>` streams what has changed since then and what changes from then
on, one JSON object a line; without `since` it begins with all objects. Status 410 says that the daemon does not know that
generation (any more): list anew.

Objects that clients make are named by them and written by PUT, so that a repeated request is the same request.

Limits: a body has at most {body} bytes, a head {head}; a head must be complete within {head_seconds:g} s and a body within
{body_seconds:g} s. There are {connections} connections, {account} of them for one user or pod; where there is no room, the one
that has been idle or slow for the longest time is closed, and if all are in use, the answer is 503."""
EVERYWHERE = (HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE)
WITH_BODY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.EXPECTATION_FAILED)
_NUMBER = {"type": "integer", "minimum": 0}
_NAME = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"}
_GPU = {"type": "string", "pattern": "^((gpu)?[0-9]{1,3}|[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\\.[0-7])$"}
_PROCESS = {"type": "string", "pattern": "^(self|[0-9]{1,10})$"}
VARIABLES = {
    each.name: each
    for each in (
        Parameter("gpu", "`gpu0`, its number, or its PCI address `0000:05:00.0`", _GPU),
        Parameter("index", "the partition's index on its GPU, from 0", _NUMBER),
        Parameter("name", "chosen by the client: 1 to 63 of a-z 0-9 . _ -, first and last a letter or digit", _NAME),
        Parameter("claim", "the claim's name", _NAME),
        Parameter("replica", "the replica's number, from 0", _NUMBER),
        Parameter("pid", "`self`, or the caller's own process id as the daemon sees it", _PROCESS),
    )
}


def document(routes: Iterable[Route], limits: Limits) -> dict[str, Any]:
    """The API as an OpenAPI document."""
    routes = tuple(routes)
    schemas, components = msgspec.json.schema_components(_messages(routes), ref_template="#/components/schemas/{name}")
    for schema in components.values():  # CPython 3.13 takes the indentation out of docstrings, others leave it
        schema["description"] = inspect.cleandoc(schema["description"])
    by_message = dict(zip(_messages(routes), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_message)
    overview = OVERVIEW.format(
        body=limits.body_bytes,
        head=limits.head_bytes,
        head_seconds=limits.head_seconds,
        body_seconds=limits.body_seconds,
        connections=limits.connections,
        account=limits.per_account,
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "aimd", "version": __version__, "description": overview, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "http://aimd", "description": "by the Unix socket"}],
        "paths": paths,
        "components": {"schemas": dict(sorted(components.items()))},
    }


def rendered() -> str:
    """The document of this API, as it is shipped."""
    return json.dumps(document(ROUTES, Limits()), indent=1) + "\n"


def _messages(routes: Iterable[Route]) -> list[Any]:
    """All messages, each once, in a stable order."""
    every = [ProblemMessage]
    for route in routes:
        answers = (message for answer in route.answers.values() for message in _alternatives(answer))
        every += [message for message in (*answers, route.body, route.lines) if message is not None]
    return list(dict.fromkeys(every))


def _alternatives(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else () if answer is None else (answer,)


def _one_of(answer: Any, schemas: dict[Any, Any]) -> Any:
    found = [schemas[message] for message in _alternatives(answer)]
    return found[0] if len(found) == 1 else {"anyOf": found} if found else {"type": "object"}


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation.__name__,
        "tags": [route.path.split("/")[2] if route.path.startswith("/v1/") else "health"],
        "summary": route.summary,
        "parameters": [*_path_parameters(route), *(_parameter(each, "query") for each in route.query)],
        "responses": dict(_responses(route, schemas)),
    }
    if route.body is not None:
        content = {"application/json": {"schema": schemas[route.body]}}
        operation["requestBody"] = {"required": _has_required(route.body), "content": content}
    return operation


def _responses(route: Route, schemas: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for status, answer in route.answers.items():
        content = {"application/json": {"schema": _one_of(answer, schemas)}}
        if route.lines is not None and status == HTTPStatus.OK:
            content[NDJSON] = {"schema": schemas[route.lines]}
        yield str(status), {"description": phrase_of(HTTPStatus(status)), "content": content}
    problems = {*route.problems, *EVERYWHERE, *(WITH_BODY if route.body is not None else ())}
    for status in sorted(problems - {HTTPStatus(known) for known in route.answers}):
        yield str(status.value), _problem(phrase_of(status), schemas)
    yield "default", _problem("Any other problem, such as a request that is no HTTP/1.1", schemas)


def _problem(description: str, schemas: dict[Any, Any]) -> dict[str, Any]:
    return {"description": description, "content": {PROBLEM_TYPE: {"schema": schemas[ProblemMessage]}}}


def _path_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in route.variables:
        yield _parameter(VARIABLES[name], "path")


def _parameter(parameter: Parameter, place: str) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": place,
        "required": place == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _has_required(body: Any) -> bool:
    return any(field.required for field in msgspec.structs.fields(body))


if __name__ == "__main__":
    Path(__file__).with_name(DESCRIPTION).write_text(rendered(), "utf-8")
