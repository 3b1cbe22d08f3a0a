"""The HTTP of the fake API server: what a request is about, chunks of a watch, connections that break."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
REASONS = {404: "NotFound", 409: "Conflict", 410: "Expired", 401: "Unauthorized", 403: "Forbidden", 422: "Invalid"}


def status(code, message="as the test wants it", reason=None, **details):
    """A Status object of meta/v1."""
    reason = reason or REASONS.get(code, "InternalError")
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message} | (
        {"details": details} if details else {}
    )


@dataclass
class Request:
    """As it came; `code` is what it was answered, None if with nothing."""

    verb: str
    resource: str
    name: str
    query: dict
    token: str | None
    agent: str
    at: float
    content_type: str = ""
    body: object = None
    code: int | None = None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, api):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api
        self._sockets = set()

    def process_request(self, request, client_address):
        self._sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self._sockets.discard(request)
        super().shutdown_request(request)

    def close_all(self):
        self.server_close()
        self.break_all()

    def break_all(self):
        for each in list(self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._answer()

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _answer(self):
        api = self.server.api
        parts = urlsplit(self.path)
        resource, namespace, name, subresource = _split(parts.path)
        query = dict(parse_qsl(parts.query))
        verb = VERBS.get(self.command) or ("get" if name else "list")
        verb = "watch" if query.get("watch") else verb
        verb = "apply" if "apply-patch" in (self.headers.get("Content-Type") or "") else verb
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        token = (self.headers.get("Authorization") or "").partition(" ")[2] or None
        request = Request(verb, resource, name, query, token, self.headers.get("User-Agent"), time.monotonic())
        request.body, request.content_type = body, self.headers.get("Content-Type") or ""
        api.requests.append(request)
        fault = api.next_fault(verb, resource)
        if fault is not None and fault.delay:
            time.sleep(fault.delay)
        if fault is not None and fault.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault is not None and fault.code is not None:
            request.code = fault.code
            self._send(fault.code, fault.body or json.dumps(status(fault.code)).encode(), fault.headers)
        elif api.tokens is not None and token not in api.tokens:
            request.code = 401
            self._send(401, json.dumps(status(401)).encode())
        elif verb == "watch" and resource not in api.unserved:
            request.code, content = api.begin_watch(request)
            self._stream(content) if request.code == 200 else self._send(410, json.dumps(content).encode())
        else:
            request.code, content = api.answer(request, name, namespace, subresource)
            if fault is not None and fault.lost:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._send(request.code, json.dumps(content).encode())

    def _send(self, code, body, headers=()):
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, watch):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while (line := watch.lines.get()) != "end":
                if line == "hush":
                    return self._fall_silent()
                if isinstance(line, tuple):
                    return self._break(line[1])
                self._chunk(line)
            self.wfile.write(b"0\r\n\r\n")
        finally:
            self.server.api.forget(watch)
        return None

    def _chunk(self, line):
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")

    def _break(self, partial):
        if partial:
            self._chunk(partial)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _fall_silent(self):
        """Until the client gives up."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.recv(1)


def _split(path):
    """Resource, namespace, name and subresource of a path."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    root, parts = (parts[:2], parts[2:]) if parts[0] == "api" else (parts[:3], parts[3:])
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    plural, name, subresource = (*parts, "", "")[:3]
    return "/".join([*root, plural]), namespace, name, subresource
