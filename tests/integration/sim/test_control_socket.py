"""The control socket with real processes: who is a KFD client, for how long, and what the socket endures."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from sim_processes import COMMAND, eventually, kfd_client, open_to_all

from aimd.errors import ConflictError, InvalidInputError, UnreachableError
from aimd.sim.client import SimClient
from aimd.sim.control import LONGEST_LINE, MOST_CONNECTIONS
from aimd.sim.node import SimulatedNode
from aimd.sim.requests import Answer
from aimd.sim.state import new_state
from aimd.sim.thread import ControlThread

FIRST = "0000:05:00.0"
MODE_FILE = f"bus/pci/devices/{FIRST}/current_compute_partition"


def errno_of(call, *arguments):
    with pytest.raises(OSError) as error:
        call(*arguments)
    return error.value.errno


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def exchange(path, *lines):
    """Send raw lines on one connection and return the answers."""
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answers:
        connection.settimeout(10)
        connection.connect(str(path))
        result = []
        for line in lines:
            connection.sendall(line)
            result.append(json.loads(answers.readline()))
        return result


def test_a_client_makes_the_gpu_busy_until_it_is_killed_and_reaped(node, control):
    with kfd_client(control, "gpu0") as child:
        assert [pid for pid, _ in node.clients()] == [child.pid]
        assert errno_of(node.write, MODE_FILE, b"CPX") == errno.EBUSY
        child.kill()
        eventually(lambda: not node.clients())
        ended = time.monotonic()
        assert errno_of(node.write, MODE_FILE, b"CPX") == errno.EBUSY, "a dead client is released asynchronously"

        eventually(lambda: json.loads(node.state_json())["clients"] == [])
        node.write(MODE_FILE, b"CPX")
        assert time.monotonic() - ended > 0.1
    assert node.read(MODE_FILE) == b"CPX\n"


def test_the_watch_of_a_dead_process_ends(node, control):
    descriptors = open_descriptors()
    with kfd_client(control):
        pass
    eventually(lambda: not node.clients())
    eventually(lambda: open_descriptors() <= descriptors)


def test_a_client_of_another_gpu_is_not_in_the_way_of_the_new_driver(node, control):
    with kfd_client(control, "gpu1"):
        node.write(MODE_FILE, b"CPX")


def test_the_connection_does_not_matter_only_the_process(node, control):
    code = f"from aimd.sim.client import SimClient\nwith SimClient({str(control)!r}) as c: c.join()\nprint(1, flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        time.sleep(0.05)
        assert [pid for pid, _ in node.clients()] == [child.pid]
        child.stdin.close()
        child.wait()
        eventually(lambda: not node.clients())


def test_a_process_joins_once_however_often_it_asks(node, control):
    with SimClient(control) as first, SimClient(control) as second:
        first.join(["gpu0"])
        second.join(["gpu0"])
        first.use(node_ids(node)[0], 4096)
    ((pid, _),) = node.clients()
    assert pid == os.getpid()


def node_ids(node):
    return [partition["gpu_id"] for partition in json.loads(node.state_json())["nodes"]]


def test_a_refused_join_leaves_no_watch_behind(node, control):
    descriptors = open_descriptors()
    with SimClient(control) as client:
        assert errno_of(client.join, ["gpu9"]) == errno.EINVAL
    eventually(lambda: open_descriptors() <= descriptors)
    assert node.clients() == []


def test_hold_becomes_the_command_and_stays_a_client(node, control):
    child = subprocess.Popen([*COMMAND, "hold", "--socket", str(control), "--gpu", "gpu1", "--", "sleep", "60"])
    try:
        eventually(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n")
        assert [pid for pid, _ in node.clients()] == [child.pid]
    finally:
        child.kill()
        child.wait()
    eventually(lambda: not node.clients())


def test_a_reload_that_is_refused_is_exit_5(control):
    with kfd_client(control):
        done = subprocess.run(
            [*COMMAND, "reload", "--socket", str(control)], capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("error: the amdgpu module cannot be unloaded, expected no KFD client")


def test_a_restarted_node_keeps_living_clients_and_drops_dead_ones(tmp_path):
    state, path = tmp_path / "sim.json", tmp_path / "sim.sock"

    def start():
        return SimulatedNode.open(state, new_state("mi300x", 2, switch_seconds=0.0, reap_seconds=0.0))

    with ControlThread(start(), path):
        stays, goes = kfd_client(path, "gpu0"), kfd_client(path, "gpu1")
        survivor, casualty = stays.__enter__(), goes.__enter__()
    goes.__exit__(None, None, None)
    node = start()
    assert {pid for pid, _ in node.clients()} == {survivor.pid, casualty.pid}, "the file still says so"
    with ControlThread(node, path):
        assert [pid for pid, _ in node.clients()] == [survivor.pid]
        assert errno_of(node.write, MODE_FILE, b"CPX") == errno.EBUSY
        stays.__exit__(None, None, None)
        eventually(lambda: not node.clients())
        node.write(MODE_FILE, b"CPX")


def test_a_pid_that_was_given_to_another_process_is_no_client(tmp_path):
    node = SimulatedNode(new_state("mi300x", 1))
    node.act(lambda driver, now: driver.join(os.getpid(), 1, now))  # this pid, but of a process that began at tick 1
    with ControlThread(node, tmp_path / "sim.sock"):
        assert node.clients() == []


BAD_LINES = [
    b"\n",
    b"hello\n",
    b"\x00\xff\n",
    b"[1]\n",
    b'{"op":"explode"}\n',
    b'{"op":"fault","kind":"busy","gpu":"gpu9"}\n',
    b'{"op":"' + b"x" * LONGEST_LINE + b'"}\n',
    b"x" * (10 * LONGEST_LINE) + b"\n",
    b"[" * 10_000 + b"\n",
]


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:20].decode("latin-1"))
def test_bad_input_gets_one_sentence_and_the_connection_goes_on(control, line):
    bad, good = exchange(control, line, b'{"op":"status"}\n')
    assert not bad["ok"]
    assert bad["errno"] in {errno.EINVAL, errno.EMSGSIZE}
    assert ", expected " in bad["error"]
    assert "\n" not in bad["error"]
    assert good["ok"]
    assert good["state"]["model"] == "mi300x"


def test_requests_in_one_packet_are_answered_in_order(control):
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answers:
        connection.connect(str(control))
        connection.sendall(b'{"op":"fault","kind":"busy","remaining":null}\n{"op":"clear-faults"}\n{"op":"status"}\n')
        first, second, third = (json.loads(answers.readline()) for _ in range(3))
    assert first == second == {"ok": True}
    assert third["state"]["faults"] == []


def test_the_answer_has_nothing_but_what_is_needed():
    assert msgspec.json.encode(Answer(ok=True)) == b'{"ok":true}'
    assert msgspec.json.encode(Answer(ok=False, errno=16, error="no")) == b'{"ok":false,"errno":16,"error":"no"}'


def test_connections_are_bounded_and_the_rest_is_told(control):
    idle = [SimClient(control) for _ in range(MOST_CONNECTIONS)]
    try:
        idle[-1].status()
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as answers:
            connection.connect(str(control))
            answer = json.loads(answers.readline())
            assert answers.readline() == b""
        assert answer["errno"] == errno.EAGAIN
        assert "expected clients to close theirs" in answer["error"]
        idle[0].status()
    finally:
        for client in idle:
            client.close()
    eventually(lambda: exchange(control, b'{"op":"status"}\n')[0]["ok"])


def test_a_peer_that_leaves_in_the_middle_harms_nobody(control):
    for line in (b'{"op":"sta', b'{"op":"status"}\n' * 200):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(control))
            connection.sendall(line)
    with SimClient(control) as client:
        assert client.status()["model"] == "mi300x"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be another user")
def test_another_user_may_join_and_look_and_nothing_else(node, control):
    open_to_all(control.parent)
    code = f"""
import os
from aimd.sim.client import SimClient
os.setgroups([]); os.setgid(65534); os.setuid(65534)
c = SimClient({str(control)!r})
for request in (c.join, c.status, c.clear_faults, c.reload, c.reboot, lambda: c.fault("busy")):
    try:
        request(); print(0)
    except OSError as error:
        print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [int(line) for line in done.stdout.split()] == [0, 0, *[errno.EPERM] * 4]


def test_a_socket_that_is_served_is_not_taken_over(control, node):
    with pytest.raises(ConflictError, match="is served by another process"), ControlThread(node, control):
        pass
    with SimClient(control) as client:
        client.status()


def test_a_left_over_socket_is_replaced_and_removed_at_the_end(node, tmp_path):
    path = tmp_path / "sim.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with ControlThread(node, path), SimClient(path) as client:
        client.status()
    assert not path.exists()


@pytest.mark.parametrize("name", ["missing/sim.sock", "x" * 120])
def test_a_path_that_cannot_be_is_one_sentence(node, tmp_path, name):
    with pytest.raises(InvalidInputError, match="cannot be made"), ControlThread(node, tmp_path / name):
        pass


def test_closing_ends_open_connections_and_the_client_says_so(node, tmp_path):
    with ControlThread(node, tmp_path / "sim.sock"):
        client = SimClient(tmp_path / "sim.sock")
        client.status()
    with pytest.raises(UnreachableError):
        client.status()
    client.close()


def test_a_blocked_write_does_not_hold_up_the_socket(node, control):
    with SimClient(control) as client:
        client.fault("slow-write", "gpu0", seconds=1.0)
        writer = threading.Thread(target=node.write, args=(MODE_FILE, b"CPX"))
        writer.start()
        eventually(lambda: client.status()["gpus"][0]["switching_until"])
        assert errno_of(client.join, ["gpu0"]) == errno.EINVAL
        client.join(["gpu1"])
        assert writer.is_alive()
        writer.join()
