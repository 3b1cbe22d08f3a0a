"""Requests to the API server by the `kubernetes` library's transport: JSON in and out, errors as aimd names them.

For any thread: each request has a connection of the pool to itself. Nothing is tried twice here.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException

from aimd.adapters.kube.answers import UNTRUSTED, failure
from aimd.adapters.kube.counting import RequestCounts
from aimd.adapters.kube.patience import Patience
from aimd.adapters.kube.resources import Target
from aimd.errors import AimdError, ConfigError, UnreachableError

_JSON = "application/json"
_CONTENT = {"patch": "application/merge-patch+json", "apply": "application/apply-patch+yaml"}  # which JSON is, too
_METHODS = {
    **dict.fromkeys(("get", "list", "watch"), "GET"),
    **dict.fromkeys(("patch", "apply"), "PATCH"),
    "create": "POST",
    "update": "PUT",
    "delete": "DELETE",
}
_LONGEST_LINE = 16 << 20  # bytes; etcd takes objects of 1.5 MiB


class Connection:
    """Asks as whoever the configuration says.

    Args:
        configure: gives a configuration with fresh credentials; raises ConfigError.
        user_agent: how the API server's logs name this program.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        configure: Callable[[], Configuration],
        user_agent: str,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = RequestCounts()
        self._configure = configure
        self._user_agent = user_agent
        self._patience = patience or Patience()
        self._clock = clock
        self._lock = threading.Lock()
        self._client = self._connected()

    @property
    def server(self) -> str:
        """URL of the API server."""
        return str(self._client.configuration.host)

    def ask(self, verb: str, target: Target, body: Any = None, **query: str) -> Any:
        """The decoded answer. `verb`: get, list, create, update, delete, patch (a JSON merge patch) or apply (server-side).

        Raises:
            AimdError: what answers.failure makes of the status; UnreachableError: there was no whole answer in time.
        """
        what, began, code = _named(verb, target), self._clock(), "unreachable"
        try:
            with _errors(what):
                response = self._send(verb, target, query, body, self._patience.answer)
                content = response.read()
            code = str(response.status)
        except AimdError as error:
            code = error.code
            raise
        finally:
            self.counts.add(verb, target.label, code, self._clock() - began)
        return _decoded(what, response, content)

    def follow(self, target: Target, **query: str) -> Lines:
        """A watch that has begun; the caller closes it. Raises as `ask`."""
        what, began, code = _named("watch", target), self._clock(), "unreachable"
        try:
            with _errors(what):
                response = self._send("watch", target, query | {"watch": "1"}, None, self._patience.silence)
                refusal = response.read() if response.status != 200 else None
            code = str(response.status)
        except AimdError as error:
            code = error.code
            raise
        finally:
            self.counts.add("watch", target.label, code, self._clock() - began)
        if refusal is not None:
            raise failure(what, response.status, refusal, response.headers.get("Retry-After"))
        return Lines(what, response)

    def reload(self) -> None:
        """Read configuration and credentials again; requests under way end as they are. Raises ConfigError."""
        try:
            fresh = self._connected()
        except ConfigError:
            self.counts.reloaded(ok=False)
            raise
        with self._lock:
            old, self._client = self._client, fresh
        self.counts.reloaded(ok=True)
        old.rest_client.close()

    def close(self) -> None:
        """Close what is idle."""
        self._client.rest_client.close()

    def _connected(self) -> ApiClient:
        client = ApiClient(self._configure())
        client.user_agent = self._user_agent
        return client

    def _send(
        self, verb: str, target: Target, query: Mapping[str, str], body: Any, silence: float
    ) -> urllib3.BaseHTTPResponse:
        with self._lock:
            client = self._client
        headers = {"Accept": _JSON}
        if body is not None:
            headers["Content-Type"] = _CONTENT.get(verb, _JSON)
            body = json.dumps(body) if verb == "apply" else body  # the library knows no other kind of JSON
        method, url, headers, content, _ = client.param_serialize(
            _METHODS[verb],
            target.path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        timeout = (self._patience.connect, silence)
        answer = client.call_api(method, url, headers, content, _request_timeout=timeout)
        response: urllib3.BaseHTTPResponse = answer.response
        return response


class Lines:
    """The lines of a watch. One thread reads them; any may cut it off."""

    def __init__(self, what: str, response: urllib3.BaseHTTPResponse) -> None:
        self._what = what
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        """Whole lines without their ends, until the server ends the answer.

        Raises:
            UnreachableError: silence for too long (`timed_out`), or an end in the midst of it (`cut`).
        """
        rest = b""
        with _errors(self._what):
            for chunk in self._response.stream(amt=None):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line for line in lines if line.strip())
                if len(rest) > _LONGEST_LINE:
                    raise UnreachableError(f"{self._what}: a line longer than {_LONGEST_LINE} bytes", code="garbled")
        if rest.strip():
            raise UnreachableError(f"{self._what}: the answer ends in the middle of a line", code="cut")

    def cut(self) -> None:
        """Make the reading thread see the end, now."""
        with contextlib.suppress(ValueError, RuntimeError, OSError):  # it has ended already
            self._response.shutdown()

    def close(self) -> None:
        self._response.close()


def _named(verb: str, target: Target) -> str:
    where = "/".join(part for part in (target.namespace, target.name) if part)
    return f"{verb} {target.label} {where}".rstrip()


def _decoded(what: str, response: urllib3.BaseHTTPResponse, content: bytes) -> Any:
    if response.status >= 300:
        raise failure(what, response.status, content, response.headers.get("Retry-After"))
    try:
        return json.loads(content)
    except ValueError as error:
        raise UnreachableError(f"{what}: the answer is not JSON ({error})", code="garbled") from error


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    """Translates what the library raises when there is no whole answer."""
    try:
        yield
    except (urllib3.exceptions.ConnectTimeoutError, urllib3.exceptions.NewConnectionError) as error:
        raise UnreachableError(f"{what}: no connection to the API server ({error})") from error
    except urllib3.exceptions.TimeoutError as error:
        raise UnreachableError(f"{what}: the API server has fallen silent", code="timed_out") from error
    except urllib3.exceptions.ProtocolError as error:
        raise UnreachableError(f"{what}: the connection broke ({error})", code="cut") from error
    except ApiException as error:  # the library's word for a TLS failure
        raise UnreachableError(
            f"{what}: no trust in the API server, or it has none ({error.reason})", code=UNTRUSTED
        ) from error
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise UnreachableError(f"{what}: no answer of the API server ({error})") from error
