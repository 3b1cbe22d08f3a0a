"""HTTP/1.1 over the daemon's Unix socket: one connection per call, answers as plain dicts.

Everything that can go wrong between here and the daemon leaves as an AimdError.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aimd.ctl.fields import malformed
from aimd.errors import AimdError, DeniedError, UnreachableError

_DONE = (200, 201, 202)


class AnswerTimeoutError(AimdError):
    """The daemon took the connection and did not answer in time; it may still do what it was asked."""

    code = "timeout"


class ProblemError(AimdError):
    """The daemon said no: an RFC 9457 problem.

    Attributes:
        status: HTTP status.
        refusals, blockers: messages as in ProblemMessage, often empty.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        detail = problem.get("detail") or problem.get("title") or f"the daemon answered {status} without a reason"
        code, hint = problem.get("code"), problem.get("hint")
        super().__init__(str(detail), code=str(code) if code else None, hint=str(hint) if hint else None)
        self.status = status
        self.refusals = _objects(problem.get("refusals"), ("message", "reason", "hint"))
        self.blockers = _objects(problem.get("blockers"), ("pid", "command", "gpu", "node_wide"))


class ApiClient:
    """The local API at one socket.

    `timeout_seconds` bounds connecting and every wait for an answer. A stream may be silent for any time once it has
    begun: a GPU's users may take hours to leave.
    """

    def __init__(self, socket_path: str, timeout_seconds: float) -> None:
        self.socket_path = socket_path
        self.timeout_seconds = timeout_seconds

    def get(self, path: str) -> dict[str, Any]:
        """The answer to GET.

        Raises:
            ProblemError, UnreachableError, DeniedError, AnswerTimeoutError.
        """
        return self._ask("GET", path)

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to PUT; raises like `get`."""
        return self._ask("PUT", path, json.dumps(body).encode())

    def post(self, path: str) -> dict[str, Any]:
        """The answer to POST without a body; raises like `get`."""
        return self._ask("POST", path)

    def delete(self, path: str) -> dict[str, Any]:
        """The answer to DELETE; raises like `get`."""
        return self._ask("DELETE", path)

    def health(self, path: str) -> dict[str, Any]:
        """The HealthMessage of /healthz or /readyz, which also comes with status 503; raises like `get`."""
        with self._exchange("GET", path, accepted=(*_DONE, 503)) as (_, response):
            answer = _document(response.read())
            if "failing" not in answer:
                raise ProblemError(response.status, answer)
            return answer

    def stream(self, path: str) -> Iterator[dict[str, Any]]:
        """The lines of an NDJSON answer as they come; raises like `get`, also in the middle."""
        with self._exchange("GET", path) as (connected, response):
            connected.settimeout(None)
            while line := response.readline():
                yield _document(line)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        with self._exchange(method, path, body) as (_, response):
            return _document(response.read())

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: bytes | None = None, *, accepted: tuple[int, ...] = _DONE
    ) -> Iterator[tuple[socket.socket, http.client.HTTPResponse]]:
        connection = _UnixConnection(self.socket_path, self.timeout_seconds)
        headers = {"Accept": "application/json", "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connected = connection.open()
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            if response.status not in accepted:
                raise ProblemError(response.status, _problem(response.read()))
            with response:
                yield connected, response
        except TimeoutError as cause:
            raise AnswerTimeoutError(
                f"aimd at {self.socket_path} did not answer within {self.timeout_seconds:g} s",
                hint="a mode switch can block the driver for seconds: raise --timeout, or look at the daemon's log",
            ) from cause
        except (OSError, http.client.IncompleteRead) as cause:  # the first: RemoteDisconnected is both
            raise UnreachableError(
                f"aimd at {self.socket_path} ended the connection before its answer was complete",
                hint="the daemon may have been restarted: try again",
            ) from cause
        except http.client.HTTPException as cause:
            raise malformed(f"the answer breaks HTTP/1.1 ({type(cause).__name__})") from cause
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """HTTPConnection whose transport is a Unix socket. The Host header is `aimd`, which the daemon checks."""

    def __init__(self, socket_path: str, timeout_seconds: float) -> None:
        super().__init__("aimd", timeout=timeout_seconds)
        self._socket_path = socket_path
        self._timeout_seconds = timeout_seconds

    def open(self) -> socket.socket:
        """Connect; the errors tell apart who has to act: the starter of the daemon or the owner of the socket."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self._timeout_seconds))
        try:
            connected.connect(self._socket_path)
        except BlockingIOError as cause:
            connected.close()
            raise TimeoutError from cause
        except PermissionError as cause:
            connected.close()
            raise DeniedError(
                f"the socket {self._socket_path} may not be used by this user",
                hint="join the socket's group, or ask root",
            ) from cause
        except OSError as cause:
            connected.close()
            raise UnreachableError(
                f"no aimd answers at {self._socket_path}: {cause.strerror or cause}",
                hint="start the daemon, or name its socket by --socket PATH or AIMD_SOCKET "
                "(the system's daemon: /run/aimd/aimd.sock)",
            ) from cause
        connected.settimeout(self._timeout_seconds)
        self.sock = connected
        return connected


def _timeval(seconds: float) -> bytes:
    """For SO_SNDTIMEO: with it the kernel waits while a daemon under load has a full backlog. settimeout would fail."""
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))


def _document(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as cause:
        raise malformed("the answer is not JSON") from cause
    if not isinstance(document, dict):
        raise malformed("the answer is no JSON object")
    return document


def _problem(raw: bytes) -> dict[str, Any]:
    """The problem, or an empty one: the status alone decides what aimctl does."""
    try:
        return _document(raw)
    except UnreachableError:
        return {}


def _objects(value: object, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The objects that have all the keys: a report of an error must not fail itself."""
    entries = value if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and all(key in entry for key in keys)]
