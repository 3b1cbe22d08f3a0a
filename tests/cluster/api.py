"""The API server as a test speaks to it: JSON over HTTP, a connection per request, any credentials.

What is tested uses other code (aimd's adapter, kubectl); this one only looks and prepares.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.cluster.authority import Certificate

SECONDS = 30
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


class RefusedError(Exception):
    """The API server's answer was no; `status` is HTTP's, the text is its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Api:
    """Asks as one user: a certificate's, a token's, or nobody."""

    def __init__(self, url: str, authority: Path, user: Certificate | str | None) -> None:
        self._address = urlsplit(url).netloc
        self._context = ssl.create_default_context(cafile=str(authority))
        self._headers = {"Accept": "application/json"}
        if isinstance(user, Certificate):
            self._context.load_cert_chain(user.certificate, user.key)
        elif user is not None:
            self._headers["Authorization"] = f"Bearer {user}"

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json", **query: Any) -> Any:
        """The decoded answer, text where it is no JSON. RefusedError from 400 on, OSError where nobody answers."""
        connection = http.client.HTTPSConnection(self._address, context=self._context, timeout=SECONDS)
        try:
            target = f"{path}?{urlencode(query)}" if query else path
            content = None if body is None else json.dumps(body)
            connection.request(method, target, content, {**self._headers, "Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        content = json.loads(text) if "json" in (answer.headers["Content-Type"] or "") else text
        if answer.status >= 400:
            raise RefusedError(answer.status, content["message"] if isinstance(content, dict) else text)
        return content

    @contextlib.contextmanager
    def lines(self, path: str, **query: Any) -> Iterator[Iterator[bytes]]:
        """Of a watch, as they come; RefusedError if it does not begin."""
        connection = http.client.HTTPSConnection(self._address, context=self._context)
        try:
            connection.request("GET", f"{path}?{urlencode(query)}", headers=self._headers)
            answer = connection.getresponse()
            if answer.status >= 400:
                raise RefusedError(answer.status, answer.read().decode())
            yield iter(answer)
        finally:
            if connection.sock is not None:
                connection.sock.close()

    def get(self, path: str, **query: Any) -> Any:
        return self.ask("GET", path, **query)

    def find(self, path: str) -> Any:
        """The object, or None where there is none."""
        try:
            return self.get(path)
        except RefusedError as refused:
            if refused.status == 404:
                return None
            raise

    def create(self, path: str, item: Any, **query: Any) -> Any:
        """`path` is the collection's."""
        return self.ask("POST", path, item, **query)

    def replace(self, path: str, item: Any, **query: Any) -> Any:
        return self.ask("PUT", path, item, **query)

    def merge(self, path: str, part: Any, **query: Any) -> Any:
        return self.ask("PATCH", path, part, MERGE, **query)

    def patch(self, path: str, operations: list[dict[str, Any]], **query: Any) -> Any:
        return self.ask("PATCH", path, operations, JSON_PATCH, **query)

    def apply(self, path: str, item: Any, manager: str = "test") -> Any:
        """Server-side apply, conflicts won."""
        return self.ask("PATCH", path, item, APPLY, fieldManager=manager, force="true")

    def delete(self, path: str, *, at_once: bool = False) -> Any:
        """`at_once`: without a pod's time to end."""
        return self.ask("DELETE", path, **({"gracePeriodSeconds": 0} if at_once else {}))
