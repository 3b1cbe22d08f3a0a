"""HTTP over a Unix socket by the standard library, for tests that play any client, also a rude one."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 30.0


class UnixConnection(http.client.HTTPConnection):
    """A connection that may be used for several requests."""

    def __init__(self, path: Path) -> None:
        super().__init__("aimd", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(self._path))


class Answer(NamedTuple):
    status: int
    type: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    where: Path | UnixConnection,
    path: str,
    method: str = "GET",
    body: object = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request; `body` is sent as JSON unless it is bytes."""
    connection = where if isinstance(where, UnixConnection) else UnixConnection(where)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data, headers or {})
    response = connection.getresponse()
    answer = Answer(response.status, response.headers.get_content_type(), response.read())
    if connection is not where:
        connection.close()
    return answer


def lines(where: Path, path: str) -> Iterator[dict[str, Any]]:
    """The objects of an NDJSON stream as they come; close the iterator to hang up."""
    connection = UnixConnection(where)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        assert (response.status, response.headers.get_content_type()) == (200, "application/x-ndjson")
        while line := response.readline():
            yield json.loads(line)
    finally:
        connection.close()
