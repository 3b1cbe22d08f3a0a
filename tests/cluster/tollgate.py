"""A gate between a daemon and its API server, at which something may happen at an exact point of the conversation.

The daemon speaks HTTP to it, it speaks TLS to the API server as the daemon would, watches included.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.cluster.control_plane import ControlPlane

PASSED_ON = ("Authorization", "Content-Type", "Accept", "User-Agent")
SECONDS = 600  # a watch is ended by the API server before


@dataclass(frozen=True)
class Point:
    """Of the conversation: a request that comes, or whose answer is there; neither goes any further.

    Attributes:
        moment: `asked` or `answered`.
        method: of HTTP.
        path: a regular expression that is found in the path.
    """

    moment: str
    method: str
    path: str

    def is_at(self, moment: str, method: str, path: str) -> bool:
        return (moment, method) == (self.moment, self.method) and re.search(self.path, path) is not None


class Tollgate:
    """Open from its making until `close`; `url` is where a daemon finds it."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._target = urlsplit(cluster.url).netloc
        self._context = ssl.create_default_context(cafile=str(cluster.authority))
        self._lock = threading.Lock()
        self._points: list[tuple[Point, Callable[[], None], threading.Event]] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.gate = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="tollgate", daemon=True).start()

    @contextlib.contextmanager
    def once(self, point: Point, happens: Callable[[], None]) -> Iterator[threading.Event]:
        """While the context lasts, the first that comes to the point makes it happen and gets no answer.

        The event is set when it has happened.
        """
        waiting = (point, happens, threading.Event())
        with self._lock:
            self._points.append(waiting)
        try:
            yield waiting[2]
        finally:
            with self._lock:
                self._points = [each for each in self._points if each is not waiting]

    def reached(self, moment: str, method: str, path: str) -> bool:
        """Whether it was the first at a point, which has happened now."""
        with self._lock:
            found = next((each for each in self._points if each[0].is_at(moment, method, path)), None)
            if found is None:
                return False
            self._points.remove(found)
        _, happens, passed = found
        happens()
        passed.set()
        return True

    def connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._target, context=self._context, timeout=SECONDS)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.cut()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    gate: Tollgate

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self._sockets: set[socket.socket] = set()

    def process_request(self, request, client_address):
        self._sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self._sockets.discard(request)
        super().shutdown_request(request)

    def cut(self):
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        """One of both sides has gone: the other sees it."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        gate, path = self.server.gate, self.path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        if gate.reached("asked", self.command, path):
            return self._hang_up()
        upstream = gate.connection()
        try:
            headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
            upstream.request(self.command, path, body, headers)
            answer = upstream.getresponse()
            if gate.reached("answered", self.command, path):
                return self._hang_up()
            self._pass_on(answer, watched="watch=" in path)
        except OSError:
            self._hang_up()
        finally:
            upstream.close()
        return None

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815 - names of http.server

    def _pass_on(self, answer, *, watched):
        self.send_response(answer.status)
        for name in ("Content-Type", "Retry-After"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        if not watched:
            content = answer.read()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while chunk := answer.read1(1 << 16):
            self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _hang_up(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
