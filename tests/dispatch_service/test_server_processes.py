"""Leases belong to processes: what becomes of them when connections and processes end, and whose they are."""

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from aimd.dispatch import End, ModelConfig, Outcome, PartitionConfig
from aimd.dispatch.server import Caps
from aimd.protocol import frames
from aimd.protocol.frames import Adopted, FrameError, FrameKind, Granted, Queued, Refused, Released
from tests.dispatch_service.hosting import stat_fields
from tests.dispatch_service.puppet import PROJECT
from tests.dispatch_service.talking import Talk

MS = 1_000_000
HOLD = "client.lease(client.open(), {})"


def wide(slots, **options):
    return {0: PartitionConfig((ModelConfig(0),), capacity=slots, **options)}


@pytest.mark.parametrize("peer_pidfd", [True, False])
def test_the_end_of_a_process_frees_its_leases_at_once(make_host, make_puppet, peer_pidfd):
    host = make_host(caps=Caps(peer_pidfd=peer_pidfd))
    puppet = make_puppet().connect(host.path)
    puppet.do("handle = client.open()")
    for request in range(2):
        puppet.do(f"client.lease(handle, {request})")
    client = Talk(host.path)
    handle = client.open()
    assert client.acquire(handle, 1) == Queued(1)
    began = time.monotonic()
    puppet.kill()
    assert isinstance(client.hear(), Granted)
    assert time.monotonic() - began < 1  # the grace of an orphan would be 30 s
    host.until(lambda numbers: numbers["connections"] == 1 and numbers["callers"] == 1)
    assert host.model().ends[1][End.LOST] == 2
    host.check_balance()


def test_a_forked_child_that_keeps_the_socket_does_not_keep_the_leases(host, make_puppet):
    puppet = make_puppet().connect(host.path)
    lease = puppet.do(HOLD.format(1))
    child = puppet.do("child = os.fork() or (client.sock.settimeout(None), client.rest(), os._exit(0))")
    child = puppet.do("child")
    puppet.kill()
    host.until_empty()
    assert host.server.busy(0) == (0, 0)
    assert host.model().ends[1][End.LOST] == 1
    deadline = time.monotonic() + 5
    with suppress(FileNotFoundError):
        while stat_fields(child)[0] != "Z":
            assert time.monotonic() < deadline  # the child meets the end of file
            time.sleep(0.01)
    assert lease


def test_a_childs_own_connection_is_another_process(host, make_puppet):
    puppet = make_puppet().connect(host.path)
    puppet.do(HOLD.format(1))
    puppet.do(f"other = Talk({str(host.path)!r})")
    assert host.numbers()["callers"] == 1
    assert (
        puppet.do(
            "pid = os.fork()\n"
            f"if pid == 0:\n    mine = Talk({str(host.path)!r}); client.sock.close(); other.sock.close()\n"
            "    time.sleep(60)"
        )
        is None
    )
    host.until(lambda numbers: numbers["callers"] == 2 and numbers["connections"] == 3)
    puppet.do("os.kill(pid, 9)")
    host.until(lambda numbers: numbers["callers"] == 1 and numbers["connections"] == 2)
    assert host.server.busy(0) == (1, 0)


def test_another_process_does_not_own_the_lease(host, talk, make_puppet):
    lease = make_puppet().connect(host.path).do(HOLD.format(1))
    client = talk()
    client.say(frames.release(lease), frames.renew(lease), frames.adopt(lease), frames.release(lease, 3))
    assert client.hear_many(4) == [
        Refused(lease, 0, kind) for kind in (FrameKind.RELEASE, FrameKind.RENEW, FrameKind.ADOPT, FrameKind.RELEASE)
    ]
    assert host.server.busy(0) == (1, 0)


def test_an_orphan_is_lost_after_its_grace(make_host):
    host = make_host(partitions=wide(1, orphan_grace_ns=120 * MS))
    first, second = Talk(host.path), Talk(host.path)
    first.lease(first.open())
    handle = second.open()
    assert second.acquire(handle, 1) == Queued(1)
    began = time.monotonic()
    first.close()
    assert second.hear().request == 1
    assert 0.12 <= time.monotonic() - began < 2
    assert host.model().ends[1][End.LOST] == 1


def test_an_adopted_orphan_is_not_lost(make_host):
    host = make_host(partitions=wide(1, orphan_grace_ns=60 * MS))
    first, second = Talk(host.path), Talk(host.path)
    lease = first.lease(first.open())
    first.close()
    host.until(lambda numbers: numbers["connections"] == 1)
    second.say(frames.adopt(lease))
    assert isinstance(second.hear(), Adopted)
    time.sleep(0.15)
    assert host.server.busy(0) == (1, 0)
    second.close()
    third = Talk(host.path)
    assert host.until(lambda numbers: numbers["mirrored"] == 0)
    assert third.silent(0.001)


def test_the_end_of_a_connection_cancels_what_waits(host, talk):
    first, second = talk(), talk()
    handle = first.open()
    for request in range(2):
        first.lease(handle, request)
    other = second.open()
    first.say(*(frames.acquire(handle, request) for request in range(10, 20)))
    assert first.hear_many(10)[9] == Queued(19)
    assert second.acquire(other, 1) == Queued(1)
    assert host.server.busy(0) == (2, 11)
    first.close()
    host.until(lambda numbers: numbers["connections"] == 1)
    assert host.server.busy(0) == (2, 1)
    assert host.model().outcomes[1][Outcome.CANCELLED] == 10


@pytest.mark.parametrize("end", ["client.close()", "os._exit(0)"])
def test_what_was_released_just_before_the_end_is_released(make_host, make_puppet, end):
    """Also what is behind the piece that the server reads at once, and what it cannot answer any more."""
    host = make_host(partitions=wide(1000))
    puppet = make_puppet().connect(host.path)
    puppet.do("handle = client.open()")
    puppet.do("client.say(*(frames.acquire(handle, request) for request in range(1000)))")
    puppet.do("leases = [granted.lease for granted in client.hear_many(1000)]")
    puppet.tell(f"client.say(*(frames.release(lease) for lease in leases)); {end}")
    host.until(lambda numbers: numbers["mirrored"] == 0, 3)
    assert host.model().ends[1][End.OK] == 1000
    host.until(lambda numbers: numbers["connections"] == 0)


def numbers_of_descriptors():
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("ended_by", ["client", "server"])
def test_copies_of_its_sockets_are_of_no_account(make_host, ended_by):
    """As a process has them that the daemon has just forked."""
    host = make_host()
    Talk(host.path).open()
    host.until_empty()
    before = numbers_of_descriptors()
    client = Talk(host.path)
    new = numbers_of_descriptors() - before - {str(client.sock.fileno())}
    copies = [os.dup(int(number)) for number in new if Path(f"/proc/self/fd/{number}").exists()]
    if ended_by == "server":
        client.say(frames.hello())
        assert len(client.rest()) == 1  # and the end of file
    client.close()
    host.until_empty()
    busy, began = time.process_time(), time.monotonic()
    time.sleep(0.3)
    assert time.process_time() - busy < 0.3 * (time.monotonic() - began)
    for copy in copies:
        os.close(copy)


def until_not_read(host, puppet):
    """Let the puppet be told so much, and read nothing, that the server reads it no more; its own way out is free."""
    said = host.numbers()["frames"]
    while host.numbers()["frames"] == said:
        puppet.do("client.say(frames.cancel(2**60) * 256)")
        said += 256
        deadline = time.monotonic() + 0.3
        while host.numbers()["frames"] < said and time.monotonic() < deadline:
            time.sleep(0.001)


@pytest.mark.parametrize("end", ["client.close()", "os.fork() and os._exit(0); time.sleep(0.5); os._exit(0)"])
def test_what_was_released_and_is_not_read_before_the_end_is_released(make_host, make_puppet, end):
    """By a connection that ends, or by a process whose child keeps the connection."""
    host = make_host(partitions=wide(4))
    puppet = make_puppet().connect(host.path)
    puppet.do("handle = client.open()")
    puppet.do("leases = [client.lease(handle, request) for request in range(4)]")
    until_not_read(host, puppet)
    puppet.do("client.say(*(frames.release(lease) for lease in leases[:3]))")
    assert host.server.busy(0) == (4, 0)
    puppet.tell(end)
    host.until(lambda numbers: numbers["connections"] == 0)
    assert host.model().ends[1][End.OK] == 3


def test_a_grant_that_never_left_is_given_back(make_host):
    host = make_host(partitions=wide(1))
    stuck, other = Talk(host.path), Talk(host.path)
    handle, second = stuck.open(), other.open()
    lease = other.lease(second)
    assert stuck.acquire(handle, 1) == Queued(1)
    stuff(stuck)
    other.say(frames.release(lease))
    assert other.hear() == Released(lease)
    assert host.server.busy(0) == (1, 0)  # granted, and it stands behind what is not read
    stuck.close()
    numbers = host.until(lambda numbers: numbers["mirrored"] == 0)  # and not after the grace of an orphan
    assert numbers["undelivered"] == 1
    assert host.model().ends[1][End.FAILED] == 1
    assert isinstance(other.acquire(second, 2), Granted)


def test_what_is_given_back_is_not_granted_to_the_one_who_is_closed(make_host):
    host = make_host(partitions=wide(1))
    stuck, other = Talk(host.path), Talk(host.path)
    handle, second = stuck.open(), other.open()
    lease = other.lease(second)
    stuck.say(*(frames.acquire(handle, request) for request in range(20)))
    stuck.hear_many(20)
    stuff(stuck)
    other.say(frames.release(lease))
    other.hear()
    stuck.close()
    host.until(lambda numbers: numbers["mirrored"] == 0)
    model = host.model()
    assert model.outcomes[1][Outcome.GRANTED] == 2
    assert model.outcomes[1][Outcome.CANCELLED] == 19
    host.check_balance()


def stuff(client):
    """Let it be told so much, and read nothing, that the server stops to read it."""
    client.sock.settimeout(0.3)
    with suppress(TimeoutError):
        while True:
            client.sock.sendall(frames.cancel(2**60) * 256)
    client.sock.settimeout(5)


def test_who_does_not_read_is_not_read(make_host):
    host = make_host()
    client, honest = Talk(host.path), Talk(host.path)
    stuff(client)
    frames_read = host.numbers()["frames"]
    client.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.sock.sendall(frames.cancel(1) * 100_000)
    assert host.numbers()["frames"] == frames_read
    assert honest.lease(honest.open())
    client.sock.settimeout(5)
    refused = 0
    while refused < frames_read - 10:  # once it reads, it goes on
        client.heard.clear()
        client._read()
        refused += len(client.heard)
    assert host.numbers()["frames"] > frames_read


def test_who_does_not_read_is_given_up_after_patience(make_host):
    host = make_host(caps=Caps(patience_seconds=0.5))
    client, honest = Talk(host.path), Talk(host.path)
    handle = client.open()
    client.lease(handle)
    stuff(client)
    numbers = host.until(lambda numbers: numbers["connections"] == 1)
    assert numbers["given_up"] == 1
    assert honest.lease(honest.open())
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        client.sock.sendall(bytes(1_000_000))


def test_unread_output_of_one_does_not_take_it_from_others(make_host):
    host = make_host(caps=Caps(unread_bytes=60_000))
    honest = Talk(host.path)
    handle = honest.open()
    crowd = [Talk(host.path) for _ in range(12)]
    for request, client in enumerate(crowd):
        stuff(client)
        lease = honest.lease(handle, request)
        honest.say(frames.release(lease))
        assert honest.hear() == Released(lease)
    numbers = host.numbers()
    assert numbers["given_up"] >= 2
    assert 1 < numbers["connections"] < 12
    for request in range(500):
        honest.say(frames.cancel(request))
    assert len(honest.hear_many(500)) == 500
    assert host.numbers()["accepted"] == 13


CONNECT = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).connect(sys.argv[2])"


@pytest.mark.parametrize("peer_pidfd", [True, False])
def test_a_process_that_has_ended_is_not_visible(make_host, peer_pidfd):
    host = make_host(start=False, caps=Caps(peer_pidfd=peer_pidfd))
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    subprocess.run(
        [sys.executable, "-c", CONNECT, str(client.fileno()), str(host.path)], pass_fds=[client.fileno()], check=True
    )
    host.start()
    frame = client.recv(4096)
    assert frames.answer(frame).error == FrameError.NOT_VISIBLE
    assert client.recv(1) == b""
    visible = Talk(host.path)
    assert visible.open() == 0
    assert host.numbers()["callers"] == 1
    assert host.numbers()["refused"] == 1


@pytest.mark.usefixtures("requires_root")
def test_a_process_outside_of_the_pid_namespace_is_not_visible(tmp_path):
    code = (
        "import sys, tempfile, pathlib, time; from tests.dispatch_service.hosting import Host;"
        "Host(pathlib.Path(sys.argv[1])).start(); print('there', flush=True); sys.stdin.read(); sys.stdout.flush();"
        "import os; os._exit(0)"
    )
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"there\n"
        (answer,) = Talk(tmp_path / "dispatch.sock", hello=False).rest()
        assert answer.error == FrameError.NOT_VISIBLE
        process.stdin.close()


@pytest.mark.usefixtures("requires_root")
def test_users_have_caps_of_their_own_and_say_what_they_were_at_connect(make_host, make_puppet, tmp_path):
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    host = make_host(caps=Caps(connections_per_user=2), answering=False)
    puppet = make_puppet()
    puppet.do("os.setegid(60001), os.seteuid(60001)")
    puppet.do(f"clients = [Talk({str(host.path)!r}) for _ in range(2)]")
    assert puppet.do(f"Talk({str(host.path)!r}, hello=False).rest()[0].error") == FrameError.TOO_MANY_CONNECTIONS
    puppet.do("os.seteuid(0), os.setegid(0)")
    puppet.do(f"late = Talk({str(host.path)!r})")
    puppet.do("[client.say(frames.open_model(1, 'llama')) for client in (*clients, late)]")
    asked = []
    while len(asked) < 3:
        asked += host.server.questions()
    assert sorted((one.uid, one.gid) for one in asked) == [(0, 0), (60001, 60001), (60001, 60001)]
    assert {one.pid for one in asked} == {puppet.pid}
    assert host.numbers()["callers"] == 1


def test_many_processes_end_while_others_speak(make_host, make_puppet):
    """The end of a process is seen in one turn with frames of others, which are of a later time."""
    host = make_host(partitions=wide(64))
    talkers = [Talk(host.path) for _ in range(8)]
    handles = [talker.open() for talker in talkers]
    for _ in range(3):
        puppets = [make_puppet() for _ in range(4)]
        for puppet in puppets:
            puppet.connect(host.path).do(HOLD.format(1))
        for puppet in puppets:
            puppet.tell("os._exit(0)")
        for round_ in range(200):
            for talker, handle in zip(talkers, handles, strict=True):
                talker.say(frames.acquire(handle, round_))
            for talker in talkers:
                talker.say(frames.release(talker.hear().lease, 2))
    host.until(lambda numbers: numbers["callers"] == 1 and numbers["connections"] == 8)
    assert host.until(lambda numbers: numbers["mirrored"] == 0)
    assert host.model().ends[1][End.LOST] == 12
