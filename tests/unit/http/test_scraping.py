"""The metrics endpoint on TCP and on a Unix socket: what it gives, and what it refuses. Nothing can be changed there."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aimd.adapters.http.health import ALIVE_SECONDS
from aimd.adapters.http.scraping import LIMITS, MetricsEndpoint, listen_tcp
from aimd.adapters.metrics.render import OPENMETRICS, TEXT
from aimd.domain.node import NodeSnapshot
from aimd.errors import UnreachableError
from aimd.ports import Health, MetricsPage

FAST = replace(LIMITS, head_seconds=0.3, idle_seconds=0.5, answer_seconds=0.5, body_seconds=0.2)
READY = NodeSnapshot(generation=1, ready=True)


class Told:
    """What the endpoint serves: pages that take their time, and a daemon whose health the test decides."""

    def __init__(self) -> None:
        self.snapshot, self.health = READY, Health(time.monotonic())
        self.seconds, self.error, self.body = 0.0, None, b"a 1\n"

    async def page(self, accept: str, accept_encoding: str) -> MetricsPage:
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        media_type = OPENMETRICS if "openmetrics" in accept else TEXT
        if "gzip" in accept_encoding:
            return MetricsPage(gzip.compress(self.body), media_type, "gzip")
        return MetricsPage(self.body, media_type)


class Running:
    def __init__(self, told, port, path, host):
        self.told, self.port, self.path, self.host = told, port, path, host

    def connect(self, unix=False):
        connection = socket.socket(socket.AF_UNIX if unix else socket.AF_INET6 if ":" in self.host else socket.AF_INET)
        connection.settimeout(10)
        connection.connect(str(self.path) if unix else (self.host, self.port))
        return connection

    def ask(self, request, unix=False):
        """The whole answer to a request's bytes, with the connection's end."""
        with self.connect(unix) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def get(self, path="/metrics", *fields, unix=False, method="GET"):
        head = "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *fields))
        answer = self.ask(f"{head}\r\n\r\n".encode(), unix)
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


@contextlib.contextmanager
def running(limits=FAST, host="127.0.0.1") -> Iterator[Running]:
    told, found, over = Told(), [], threading.Event()

    async def live(path: Path) -> None:
        endpoint = MetricsEndpoint(told, told, limits)
        endpoint.serve_path(path)
        listening = listen_tcp(host, 0, limits.backlog)
        port = listening.getsockname()[1]
        endpoint.serve(listening)
        found.append(Running(told, port, path, host))
        await asyncio.get_running_loop().run_in_executor(None, over.wait)
        await endpoint.close()

    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        thread = threading.Thread(target=lambda: asyncio.run(live(Path(folder) / "s")))
        thread.start()
        try:
            deadline = time.monotonic() + 10
            while not found:
                assert thread.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.001)
            yield found[0]
        finally:
            over.set()
            thread.join(10)


@pytest.fixture
def endpoint() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.mark.parametrize("unix", [False, True])
def test_a_page_in_each_format(endpoint, unix):
    status, fields, body = endpoint.get(unix=unix)
    assert (status, fields["content-type"], body) == (200, TEXT, b"a 1\n")
    status, fields, body = endpoint.get("/metrics", f"Accept: {OPENMETRICS}", "Accept-Encoding: gzip", unix=unix)
    assert (fields["content-type"], fields["content-encoding"]) == (OPENMETRICS.lower(), "gzip")
    assert gzip.decompress(body) == b"a 1\n"
    assert fields["vary"] == "accept, accept-encoding"


def test_head_has_no_body(endpoint):
    status, fields, body = endpoint.get(method="HEAD")
    assert (status, fields["content-length"], body) == (200, "4", b"")


def test_checks_name_what_fails(endpoint):
    for path in ("/healthz", "/health", "/readyz"):
        assert endpoint.get(path)[::2] == (200, b'{"status":"ok","failing":{}}')
    endpoint.told.health = Health(time.monotonic() - ALIVE_SECONDS - 1, "disk full")
    endpoint.told.snapshot = NodeSnapshot(warnings=("no driver",))
    status, _, body = endpoint.get("/readyz")
    assert (status, body) == (503, b'{"status":"failing","failing":{"inventory":"no driver","ledger":"disk full"}}')
    status, _, body = endpoint.get("/health")
    assert status == 503
    assert b'"loop":"the control loop has not turned' in body


@pytest.mark.parametrize("path", ["/", "/v1/gpus", "/v1/plans/x", "/metrics/", "//metrics", "/%6detrics"])
def test_nothing_else_is_there(endpoint, path):
    status, fields, body = endpoint.get(path)
    assert (status, fields["content-type"]) == (404, "application/problem+json")
    assert b"/metrics, /healthz and /readyz are" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(endpoint, method):
    status, fields, _ = endpoint.get("/metrics", method=method)
    assert (status, fields["allow"]) == (405, "get, head")


def test_a_body_is_not_waited_for(endpoint):
    began = time.monotonic()
    status, _, _ = endpoint.get("/metrics", "Content-Length: 1000000", method="GET")
    assert status == 200
    assert time.monotonic() - began < 3


def test_a_long_head_is_refused(endpoint):
    assert endpoint.get("/metrics", *(f"X-{n}: 1" for n in range(100)))[0] in (400, 431)
    assert endpoint.get("/metrics", "X: " + "y" * 9000)[0] == 431


def test_a_head_that_does_not_end_is_told_so(endpoint):
    assert endpoint.ask(b"GET /metrics HTTP/1.1\r\nHost").startswith(b"HTTP/1.1 408 ")
    assert endpoint.ask(b"") == b""


def test_a_page_that_takes_too_long(endpoint):
    endpoint.told.seconds = 5
    status, _, body = endpoint.get()
    assert (status, b"not made within 0.5 s" in body) == (503, True)


def test_a_page_that_fails_is_logged_and_the_next_one_is_served(endpoint, caplog):
    endpoint.told.error = ZeroDivisionError("secret")
    status, _, body = endpoint.get()
    assert (status, b"secret" in body) == (500, False)
    assert "secret" in caplog.text
    endpoint.told.error = None
    assert endpoint.get()[0] == 200


def test_a_connection_may_be_used_again(endpoint):
    with endpoint.connect() as connection:
        for _ in range(3):
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"a 1\n" in connection.recv(65536)
        assert connection.recv(10) == b"", "it is ended when nobody asks"


def test_more_connections_than_there_is_room_for(endpoint):
    with contextlib.ExitStack() as crowd:
        idle = [crowd.enter_context(endpoint.connect()) for _ in range(FAST.connections + 20)]
        assert endpoint.get()[0] == 200
        ended = 0
        for connection in idle:
            connection.settimeout(0.01)
            with contextlib.suppress(TimeoutError, ConnectionError):
                ended += connection.recv(1) == b""
        assert ended < len(idle)


def test_over_ipv6():
    try:
        listen_tcp("::1", 0, 1).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with running(host="::1") as found:
        assert found.get()[0] == 200


def test_an_address_that_is_taken():
    async def story() -> None:
        with listen_tcp("127.0.0.1", 0, 1) as taken:
            port = taken.getsockname()[1]
            endpoint = MetricsEndpoint(Told(), Told())
            with pytest.raises(
                UnreachableError, match=f"cannot be served at 127.0.0.1:{port}: Address already in use"
            ) as found:
                endpoint.serve_tcp("127.0.0.1", port)
            assert 'listen = "ADDRESS:PORT"' in found.value.hint
            await endpoint.close()

    asyncio.run(story())
