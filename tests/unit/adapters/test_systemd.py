"""What the service manager hands over and is told: a manager's end of the sockets, held by the test."""

import os
import socket

import pytest

from aimd.adapters.systemd import Notifier, in_journal, inherited_sockets, watchdog_seconds
from aimd.errors import InvalidInputError

PID = 4711


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """The socket that messages arrive at; its path stands in NOTIFY_SOCKET of this process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield end


def told(manager):
    return manager.recv(4096).decode().split("\n")


def test_the_manager_is_told_every_state(manager):
    notifier = Notifier.of(os.environ)
    notifier.ready("8 GPUs")
    notifier.status("8 GPUs")  # the same: not sent again
    notifier.status("7 GPUs\nREADY=1 \u20ac")
    notifier.reloading()
    notifier.again()
    notifier.alive()
    notifier.stopping()
    assert told(manager) == ["READY=1", "STATUS=8 GPUs"]
    assert told(manager) == ["STATUS=7 GPUs READY=1 ?"]
    state, at = told(manager)
    assert state == "RELOADING=1"
    assert at.startswith("MONOTONIC_USEC=")
    assert at.rpartition("=")[2].isdigit()
    assert told(manager) == ["READY=1"]
    assert told(manager) == ["WATCHDOG=1"]
    assert told(manager)[0] == "STOPPING=1"


def test_children_do_not_inherit_the_manager(manager):
    Notifier.of(os.environ)
    assert "NOTIFY_SOCKET" not in os.environ


def test_a_manager_that_is_gone_is_logged_and_survived(manager, caplog):
    notifier = Notifier.of(os.environ)
    manager.close()
    notifier.alive()
    assert "was not told WATCHDOG=1" in caplog.text


def test_a_manager_that_does_not_read_holds_nobody_up(manager, caplog):
    notifier = Notifier.of(os.environ)
    for _ in range(2000):
        notifier.alive()
    assert "was not told" in caplog.text


def test_no_manager_that_was_named_is_survived(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    Notifier.of(os.environ).ready("here")
    assert "cannot be told anything" in caplog.text


def test_without_a_manager_nobody_is_told():
    Notifier.of({}).ready("here")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(PID)}, 10.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_watchdog_period(environ, expected):
    assert watchdog_seconds(environ, PID) == expected
    assert environ == {}


def test_a_watchdog_period_that_is_none():
    with pytest.raises(InvalidInputError, match="WATCHDOG_USEC is 'soon'"):
        watchdog_seconds({"WATCHDOG_USEC": "soon"}, PID)


class Handed:
    """Descriptors in a row, as a manager hands them over."""

    def __init__(self, *sockets, first=200):
        self.first, self.count = first, len(sockets)
        for number, each in enumerate(sockets):
            os.dup2(each.fileno(), first + number, inheritable=True)

    def environ(self, names, pid=PID):
        return {"LISTEN_PID": str(pid), "LISTEN_FDS": str(self.count), "LISTEN_FDNAMES": names}

    def close(self):
        for number in range(self.count):
            try:
                os.close(self.first + number)
            except OSError:
                continue


@pytest.fixture
def listeners(tmp_path):
    found = []
    for name in ("one", "two"):
        found.append(socket.socket(socket.AF_UNIX))
        found[-1].bind(str(tmp_path / name))
        found[-1].listen(1)
    yield found
    for each in found:
        each.close()


def test_sockets_are_known_by_their_names(listeners):
    handed = Handed(*listeners)
    environ = handed.environ("dispatch:api")
    given = inherited_sockets(environ, PID, handed.first)
    assert {name: found.getsockname()[-3:] for name, found in given.items()} == {"dispatch": "one", "api": "two"}
    assert environ == {}
    assert not any(found.get_inheritable() or found.getblocking() for found in given.values())
    for found in given.values():
        found.close()


def test_sockets_of_another_process_are_left_alone(listeners):
    handed = Handed(*listeners)
    assert inherited_sockets(handed.environ("api:dispatch", pid=1), PID, handed.first) == {}
    os.fstat(handed.first)
    handed.close()


def test_a_socket_of_an_unknown_name_is_closed(listeners, caplog):
    handed = Handed(*listeners)
    assert list(inherited_sockets(handed.environ("api:unknown"), PID, handed.first)) == ["api"]
    assert "'unknown'" in caplog.text
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handed.first + 1)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_does_not_listen_is_refused(kind):
    with socket.socket(socket.AF_UNIX, kind) as idle:
        handed = Handed(idle)
        with pytest.raises(InvalidInputError, match="expected a Unix stream socket that listens"):
            inherited_sockets(handed.environ("api"), PID, handed.first)


def test_what_is_no_socket_is_refused(tmp_path):
    with (tmp_path / "file").open("w") as file:
        handed = Handed(file)
        with pytest.raises(InvalidInputError, match="is no socket"):
            inherited_sockets(handed.environ("api"), PID, handed.first)
        handed.close()


def test_two_sockets_of_a_name_are_refused(listeners):
    handed = Handed(*listeners)
    with pytest.raises(InvalidInputError, match="two sockets are named 'api'"):
        inherited_sockets(handed.environ("api:api"), PID, handed.first)
    handed.close()


def test_the_journal_is_known_by_its_inode(tmp_path):
    with (tmp_path / "stream").open("w") as stream:
        found = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert in_journal(environ, stream.fileno())
        assert not in_journal({}, stream.fileno())
    with (tmp_path / "other").open("w") as other:
        assert not in_journal(environ, other.fileno())
