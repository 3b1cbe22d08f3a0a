"""What can be wrong at the socket: every case is one sentence and an exit code, never a traceback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner

from aimd.ctl.client import ApiClient
from aimd.ctl.main import program
from aimd.errors import UnreachableError
from tests.fakes.api import FakeApi, Raw, World


def run(path: Path | str, *arguments: str):
    return CliRunner().invoke(program, ["--socket", str(path), *arguments])


def one_sentence(result, code: int) -> str:
    assert (result.exit_code, result.stdout) == (code, "")
    error, hint = result.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return error


def test_no_socket(socket_path: Path) -> None:
    error = one_sentence(run(socket_path, "get", "gpus"), 3)
    assert error == f"error: no aimd answers at {socket_path}: No such file or directory"


def test_no_listener(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(socket_path))
    assert "Connection refused" in one_sentence(run(socket_path, "get", "gpus"), 3)


def test_no_socket_but_a_file(socket_path: Path) -> None:
    socket_path.write_text("x")
    one_sentence(run(socket_path, "get", "gpus"), 3)


@pytest.fixture
def crowded(socket_path: Path) -> Iterator[socket.socket]:
    """A listener whose backlog is full."""
    with socket.socket(socket.AF_UNIX) as listening, ExitStack() as others:
        listening.bind(str(socket_path))
        listening.listen(1)
        for _ in range(2):
            waiting = others.enter_context(socket.socket(socket.AF_UNIX))
            waiting.connect(str(socket_path))
        yield listening


def test_a_full_backlog_is_waited_for(crowded: socket.socket, socket_path: Path) -> None:
    def serve() -> None:
        time.sleep(0.1)
        for _ in range(3):
            accepted, _address = crowded.accept()
        with accepted:
            accepted.recv(65536)  # a socket that is closed with something unread resets the connection
            accepted.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    server = threading.Thread(target=serve)
    server.start()
    assert ApiClient(str(socket_path), 5).get("/v1/version") == {}
    server.join()


def test_a_backlog_that_stays_full(crowded: socket.socket, socket_path: Path) -> None:
    began = time.monotonic()
    error = one_sentence(run(socket_path, "--timeout", "0.3", "get", "gpus"), 7)
    assert "did not answer within 0.3 s" in error
    assert 0.3 <= time.monotonic() - began < 3


def test_a_path_too_long_for_a_socket() -> None:
    assert "too long" in one_sentence(run("/tmp/" + "x" * 200, "get", "gpus"), 3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"hello",
        b"[]",
        b"null",
        b"{}",
        b'{"gpus": 1}',
        b'{"gpus": [1]}',
        b'{"gpus": [{}]}',
        b"\xff",
        b"[" * 99999,
    ],
)
def test_an_answer_that_is_none(api: FakeApi, world: World, socket_path: Path, body) -> None:
    world.overrides["GET /v1/gpus"] = Raw(body)
    assert "no aimd of this version" in one_sentence(run(socket_path, "get", "gpus"), 3)


@pytest.mark.parametrize("raw", [b"220 mail.example ESMTP\r\n", b"\x00\x01\x02\n", b"HTTP/1.1 banana\r\n\r\n"])
def test_another_protocol(api: FakeApi, world: World, socket_path: Path, raw) -> None:
    world.overrides["GET /v1/gpus"] = Raw(raw, http=False)
    assert "breaks HTTP/1.1" in one_sentence(run(socket_path, "get", "gpus"), 3)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
    ],
)
def test_an_answer_that_breaks_off(api: FakeApi, world: World, socket_path: Path, raw) -> None:
    world.overrides["GET /v1/gpus"] = Raw(raw, http=False)
    assert "before its answer was complete" in one_sentence(run(socket_path, "get", "gpus"), 3)


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"])
def test_silence_is_7(api: FakeApi, world: World, socket_path: Path, raw) -> None:
    world.overrides["GET /v1/gpus"] = Raw(raw, http=False, hang=True)
    error = one_sentence(run(socket_path, "--timeout", "0.1", "get", "gpus"), 7)
    assert error == f"error: aimd at {socket_path} did not answer within 0.1 s"


def test_a_stream_may_be_silent_longer_than_an_answer(api: FakeApi, world: World, socket_path: Path) -> None:
    world.hold_watch = True
    stream = ApiClient(str(socket_path), 0.1).stream("/v1/events?since=1&watch=1")
    assert [next(stream)["sequence"], next(stream)["sequence"]] == [2, 5]
    end = threading.Timer(0.4, api.stopping.set)
    end.start()
    assert list(stream) == [], "it waited beyond the timeout, until the server ended the stream"
    end.join()


@pytest.mark.parametrize("line", [b'7\r\n{"a":1\n\r\n0\r\n\r\n', b"3\r\n[]\n\r\n0\r\n\r\n", b"5\r\n{}"])
def test_a_stream_of_something_else(api: FakeApi, world: World, socket_path: Path, line) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    world.overrides["GET /v1/events"] = Raw(head + line, http=False)
    with pytest.raises(UnreachableError):
        list(ApiClient(str(socket_path), 5).stream("/v1/events?since=0&watch=1"))


def test_a_change_of_another_shape_while_it_is_followed(api: FakeApi, world: World, socket_path: Path) -> None:
    world.overrides["PUT /v1/plans/x"] = Raw(b'{"final": false}')
    world.overrides["GET /v1/plans/x"] = Raw(b'{"final": false, "switches": [{"state": "switching"}]}\n')
    assert "no field 'step'" in one_sentence(run(socket_path, "set-mode", "gpu0", "SPX", "--name", "x"), 3)
