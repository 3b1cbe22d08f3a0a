"""The API as a table: each resource's routes, from which requests are dispatched and the OpenAPI document is written."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from aimd.adapters.http.api import Api
from aimd.adapters.http.call import Call, Result
from aimd.adapters.http.problems import HttpError
from aimd.protocol.messages import Message

Operation = Callable[[Api, Call], Awaitable[Result]]
_VARIABLE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A part of the path or of the query, with its JSON schema."""

    name: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the API.

    Attributes:
        path: with variables in braces; each is one segment.
        summary: what it does, one sentence.
        answers: message by status; several where it depends on the request, None for JSON of another kind.
        body: message of the request.
        query: the parameters it knows; others are refused.
        lines: message of a line where the query's `watch` makes it a stream.
        problems: statuses that it may refuse with, beside those of every request.
    """

    method: str
    path: str
    summary: str
    operation: Operation
    answers: Mapping[int, Any]
    body: type[Message] | None = None
    query: tuple[Parameter, ...] = ()
    lines: Any = None
    problems: tuple[HTTPStatus, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(_VARIABLE.findall(self.path))


class RouteTable:
    """Finds a request's route.

    Args:
        routes: the whole API.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def find(self, method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
        """The route and the variables of the path, decoded. HEAD is GET without its body.

        Raises:
            HttpError: no such path, or not this method.
        """
        at_path = self._at(raw_path)
        for route, variables in at_path:
            if route.method == ("GET" if method == "HEAD" else method):
                return route, variables
        allowed = ", ".join(_methods(at_path))
        raise HttpError(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "method_not_allowed",
            f"{unquote(raw_path)}: method {method} is not supported, expected one of {allowed}",
            Allow=allowed,
        )

    def methods(self, raw_path: str) -> str:
        """The methods of a path, as in an Allow field; raises HttpError if there is no such path."""
        return ", ".join(_methods(self._at(raw_path)))

    def _at(self, raw_path: str) -> list[tuple[Route, dict[str, str]]]:
        segments = raw_path.split("/")
        matches = ((route, _match(route.path.split("/"), segments)) for route in self._routes)
        found = [(route, variables) for route, variables in matches if variables is not None]
        if not found:
            raise HttpError(
                HTTPStatus.NOT_FOUND,
                "not_found",
                f"path {unquote(raw_path)} does not exist in this API",
                hint="GET /v1/openapi.json describes what does",
            )
        return found


def _match(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    """The variables, None if the path is another one; an empty segment is no name."""
    if len(pattern) != len(segments):
        return None
    variables = {}
    for expected, segment in zip(pattern, segments, strict=True):
        if expected.startswith("{"):
            if not segment:
                return None
            variables[expected[1:-1]] = unquote(segment)
        elif expected != segment:
            return None
    return variables


def _methods(found: Iterable[tuple[Route, object]]) -> list[str]:
    methods = {route.method for route, _ in found}
    return sorted({*methods, "OPTIONS", *(("HEAD",) if "GET" in methods else ())})
