"""Rude clients: too large, too slow, too many, and those that do not speak HTTP. Everyone is told, nobody else suffers."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from aimd.adapters.http.limits import Limits
from tests.fakes.node import ADDRESSES
from tests.fakes.served import Served, served
from tests.integration.unix_http import UnixConnection, ask

QUICK = Limits(
    head_seconds=0.3, body_seconds=0.4, idle_seconds=0.5, write_seconds=0.4, per_account=4, retry_seconds=0.05
)
GET = b"GET /v1/version HTTP/1.1\r\nHost: aimd\r\n\r\n"


@pytest.fixture(scope="module")
def api() -> Iterator[Served]:
    with served(replace(QUICK, per_account=64)) as running:
        yield running


@pytest.fixture
def narrow() -> Iterator[Served]:
    """Room for four connections."""
    with served(QUICK) as running:
        yield running


class Raw(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        problem = json.loads(self.body)
        assert (problem["status"], problem["title"] != "", len(problem["detail"]) > 15) == (self.status, True, True)
        return problem["code"]


def connect(api: Served) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(10)
    connection.connect(str(api.socket))
    return connection


def receive(connection: socket.socket) -> Raw:
    """One answer."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return Raw(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def say(api: Served, data: bytes) -> Raw:
    with connect(api) as connection:
        connection.sendall(data)
        return receive(connection)


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def write_until_cut_off(connection: socket.socket, data: bytes) -> int:
    """Bytes that could be written; a pause after each write lets the daemon see it."""
    connection.settimeout(0.1)
    sent, deadline = 0, time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            sent += connection.send(data)
            time.sleep(0.001)
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            return sent
    raise AssertionError("was not cut off")


# -- size ----------------------------------------------------------------------------------------------------


def test_a_body_of_the_limit_is_read_and_one_byte_more_is_not(api):
    full = b'{"modes": {"gpu0": "SPX"}, "dry_run": true' + b" " * (QUICK.body_bytes - 43) + b"}"
    assert len(full) == QUICK.body_bytes
    assert ask(api.socket, "/v1/plans/full", "PUT", full).status == 200
    answer = ask(api.socket, "/v1/plans/full", "PUT", full + b" ")
    assert (answer.status, answer.json["code"]) == (413, "body_too_large")
    assert str(QUICK.body_bytes) in answer.json["detail"]


def test_a_body_without_a_length_is_measured(api):
    head = b"PUT /v1/plans/x HTTP/1.1\r\nHost: aimd\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    assert say(api, head + 3 * chunk + b"0\r\n\r\n").code == "body_too_large"
    assert (
        say(api, head + b"26\r\n" + b'{"modes":{"gpu0":"SPX"},"dry_run":true}'[:38] + b"\r\n1\r\n}\r\n0\r\n\r\n").status
        == 200
    )


def test_a_compressed_body_is_no_json(api):
    head = (
        b"PUT /v1/plans/x HTTP/1.1\r\nHost: aimd\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"
    )
    answer = say(api, head)
    assert (answer.status, answer.code) == (400, "invalid")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: aimd\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: aimd\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
    ],
)
def test_a_long_line_is_refused(api, head):
    answer = say(api, head)
    assert (answer.status, answer.code) == (431, "head_too_large")


def test_many_fields_are_refused(api):
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(QUICK.headers + 1))
    assert 400 <= say(api, b"GET / HTTP/1.1\r\nHost: aimd\r\n" + fields + b"\r\n").status < 500


def test_a_head_of_many_long_lines_is_refused(api):
    with connect(api) as connection:
        connection.sendall(b"GET /v1/version HTTP/1.1\r\nHost: aimd\r\n")
        for _ in range(QUICK.head_bytes // 4000 + 1):
            connection.sendall(b"X: %b\r\n" % (b"y" * 4000))
        time.sleep(0.1)
        connection.sendall(b"\r\n")
        answer = receive(connection)
        assert (answer.status, answer.code) == (431, "head_too_large")


def test_a_head_that_grows_without_end_is_refused(api):
    with connect(api) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: aimd\r\n")
        sent = write_until_cut_off(connection, b"X: %b\r\n" % (b"y" * 4000))
    assert sent < 1_000_000


# -- time ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [None, 0.05])
def test_a_head_that_does_not_end_is_given_up(api, pause):
    """However steadily it trickles."""
    began = time.monotonic()
    with connect(api) as connection:
        connection.sendall(GET[:10])
        connection.settimeout(pause or 10)
        while True:
            try:
                answer = receive(connection)
                break
            except TimeoutError:
                connection.sendall(b"x")
        assert (answer.status, answer.code) == (408, "request_timeout")
        connection.settimeout(10)
        assert closed(connection)
    assert QUICK.head_seconds <= time.monotonic() - began < 3 * QUICK.head_seconds


def test_a_connection_that_says_nothing_is_closed_without_a_word(api):
    with connect(api) as connection:
        assert closed(connection)


def test_a_body_that_does_not_come_is_given_up(api):
    answer = say(api, b"PUT /v1/plans/x HTTP/1.1\r\nHost: aimd\r\nContent-Length: 9\r\n\r\n{")
    assert (answer.status, answer.code) == (408, "request_timeout")


def test_a_kept_connection_is_closed_when_idle_and_serves_until_then(api):
    with connect(api) as connection:
        for _ in range(3):
            connection.sendall(GET)
            assert receive(connection).status == 200
            time.sleep(QUICK.idle_seconds / 2)
        began = time.monotonic()
        assert closed(connection)
        assert time.monotonic() - began < 3 * QUICK.idle_seconds


def test_the_head_of_a_further_request_must_not_take_longer():
    with served(replace(QUICK, idle_seconds=30.0)) as api, connect(api) as connection:
        connection.sendall(GET)
        assert receive(connection).status == 200
        connection.sendall(GET[:10])
        assert receive(connection).code == "request_timeout"


def test_a_head_that_came_in_part_behind_another_request_is_given_up_when_idle(api):
    with connect(api) as connection:
        connection.sendall(GET + GET[:10])
        version = receive(connection)
        assert version.status == 200
        assert closed(connection)


def test_a_client_that_does_not_read_is_cut_off(api):
    request = b"GET /v1/openapi.json HTTP/1.1\r\nHost: aimd\r\n\r\n"
    with connect(api) as connection:
        sent = write_until_cut_off(connection, request * 100)
    assert sent < 4_000_000


def test_a_watcher_that_reads_late_is_not_cut_off_and_gets_the_present_state(api):
    connection = UnixConnection(api.socket)
    connection.request("GET", "/v1/gpus?watch=1")
    response = connection.getresponse()
    for number in range(200):
        api.run(api.node.loop.set_draining(ADDRESSES[0], draining=number % 2 == 0))
    present = {gpu["name"]: gpu for gpu in ask(api.socket, "/v1/gpus").json["gpus"]}
    known: dict[str, Any] = {}
    while known != present:
        line = json.loads(response.readline())
        known[line["object"]["name"]] = line["object"]
    connection.close()


# -- number --------------------------------------------------------------------------------------------------


def ended(connection: socket.socket) -> bool:
    """Whether the other end has closed, after all that it has sent."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    return True


def watch(api: Served) -> socket.socket:
    connection = connect(api)
    connection.sendall(b"GET /v1/events?watch=1 HTTP/1.1\r\nHost: aimd\r\n\r\n")
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def test_an_idle_connection_makes_room(narrow):
    first, *others = [connect(narrow) for _ in range(4)]
    for each in others:
        each.sendall(GET)
        assert receive(each).status == 200
    assert ask(narrow.socket, "/v1/version").status == 200
    assert closed(first)
    others[-1].sendall(GET)
    assert receive(others[-1]).status == 200


def test_watches_are_kept_and_others_refused_until_there_is_room(narrow):
    watches = [watch(narrow) for _ in range(4)]
    for _ in range(10):
        with connect(narrow) as connection:
            answer = receive(connection)
            assert (answer.status, answer.code) == (503, "too_many_connections")
    assert ask(narrow.socket, "/v1/version").status == 503
    watches[1].close()
    assert status_soon(narrow, 200)
    for kept in (watches[0], *watches[2:]):
        assert not ended(kept)
        kept.close()


def status_soon(api: Served, status: int) -> bool:
    deadline = time.monotonic() + 5
    while ask(api.socket, "/v1/version").status != status:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# -- HTTP ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET /v1/version HTTP/7.5\r\nHost: aimd\r\n\r\n",
        b"GET /v1/version HTTP/1.1\r\nHost aimd\r\n\r\n",
        b"GET /v1/version HTTP/1.1\r\nHost: aimd\r\nContent-Length: x\r\n\r\n",
        b"GET /v1/version HTTP/1.1\r\nHost: aimd\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"PUT /v1/plans/x HTTP/1.1\r\nHost: aimd\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /v1/version HTTP/1.1\r\nHost: ai\x00md\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_problem_and_the_connection_ends(api, junk):
    with connect(api) as connection:
        connection.sendall(junk)
        answer = receive(connection)
        assert (answer.status, answer.code) == (400, "malformed_http")
        assert closed(connection)


def test_a_chunk_that_is_none_is_malformed(api):
    head = b"PUT /v1/plans/x HTTP/1.1\r\nHost: aimd\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = say(api, head + b"zz\r\n{}\r\n0\r\n\r\n")
    assert (answer.status, answer.code) == (400, "malformed_http")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/version\r\n\r\n",
        b"GET /v1/version HTTP/1.1\r\n\r\n",
        b"GET /v1/version HTTP/1.0\r\n\r\n",
        b"GET /v1/version HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /v1/version HTTP/1.1\r\nHost: aimd.evil.example\r\n\r\n",
        b"GET /v1/version HTTP/1.1\r\nHost: aimd\r\nHost: evil.example\r\n\r\n",
        b"GET http://evil.example/v1/version HTTP/1.1\r\nHost: aimd\r\n\r\n",
    ],
)
def test_a_foreign_host_is_refused(api, head):
    answer = say(api, head)
    assert answer.status == 400
    assert answer.code in ("host_invalid", "malformed_http")


@pytest.mark.parametrize("host", [b"aimd", b"localhost", b"LOCALHOST:80"])
def test_our_hosts(api, host):
    assert say(api, b"GET /v1/version HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").status == 200


@pytest.mark.parametrize("path", [b"/v1/gpus/", b"/v1/", b"/v1/plans/", b"/v1/gpus?watch=", b"/v1/gpus?"])
def test_any_bytes_in_a_target_are_told_back_as_json(api, path):
    answer = say(api, b"GET " + path + b"%ff\xff%00\xc3\x28 HTTP/1.1\r\nHost: aimd\r\n\r\n")
    assert answer.status in (400, 404)
    assert answer.code in ("unknown_gpu", "not_found", "invalid", "malformed_http")


@pytest.mark.parametrize(
    ("target", "detail"),
    [
        ("/v1/gpus?wacht=1", "query parameter 'wacht' is unknown to /v1/gpus, expected watch or since"),
        ("/v1/node?x", "query parameter 'x' is unknown to /v1/node, it takes none"),
        ("/v1/gpus?watch=1&watch=0", "query parameter 'watch' is there more than once, expected one value"),
        ("/v1/gpus?watch=yes", "watch is 'yes', expected 1 or 0"),
        ("/v1/events?since=-1", "since is '-1', expected the sequence number of an event, 0 for all"),
        ("/v1/gpus?watch=1&since=1e3", "since is '1e3', expected the generation of a list or of a line"),
    ],
)
def test_a_query_that_says_nothing_we_know_is_refused(api, target, detail):
    answer = ask(api.socket, target)
    assert (answer.status, answer.json["detail"]) == (400, detail)


def test_options_tells_the_methods_and_head_is_get_without_its_body(api):
    options = say(api, b"OPTIONS /v1/plans/p HTTP/1.1\r\nHost: aimd\r\n\r\n")
    assert (options.status, options.headers["allow"], options.body) == (204, "GET, HEAD, OPTIONS, PUT", b"")
    with connect(api) as connection:
        connection.sendall(GET.replace(b"GET", b"HEAD"))
        head = http.client.HTTPResponse(connection, method="HEAD")
        head.begin()
        assert (head.status, head.getheader("Content-Type")) == (200, "application/json")
        connection.sendall(GET)
        got = receive(connection)
        assert got.headers["content-length"] == head.getheader("Content-Length")


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW"])
def test_another_method_is_told_which_are_allowed(api, method):
    answer = say(api, f"{method} /v1/plans HTTP/1.1\r\nHost: aimd\r\n\r\n".encode())
    if method in ("CONNECT", "BREW") and answer.status == 400:
        return  # no target of CONNECT, no method that the parser knows
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method_not_allowed", "GET, HEAD, OPTIONS")


def test_expect_100_continue_is_answered_before_the_body(api):
    head = b"PUT /v1/plans/x HTTP/1.1\r\nHost: aimd\r\nExpect: %s\r\nContent-Length: 2\r\n\r\n"
    with connect(api) as connection:
        connection.sendall(head % b"100-continue")
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert receive(connection).code == "invalid"
    assert say(api, head % b"a miracle").status == 417


def test_pipelined_requests_are_answered_in_order(api):
    with connect(api) as connection:
        connection.sendall(GET + GET.replace(b"version", b"nothing") + GET)
        data = b""
        while data.count(b"HTTP/1.1 ") < 3:
            data += connection.recv(65536)
    statuses = [part[:3] for part in data.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200"]


def test_a_daemon_after_all_of_this_is_as_before(api):
    assert ask(api.socket, "/healthz").json == {"status": "ok", "failing": {}}
    assert ask(api.socket, "/readyz").json == {"status": "ok", "failing": {}}
