"""What the control socket understands, whom it obeys, and what it answers."""

import errno
import json
import os

import pytest

from aimd.errors import InvalidInputError
from aimd.sim.control import process_start_time
from aimd.sim.node import SimulatedNode
from aimd.sim.requests import (
    OPERATIONS,
    Allocate,
    Available,
    ClearFaults,
    Devices,
    Fault,
    Free,
    Join,
    Peer,
    Reboot,
    Reload,
    Status,
    Use,
    decode,
    gpu_address,
    perform,
    permitted,
)
from aimd.sim.state import FaultKind, new_state

FIRST, SECOND = "0000:05:00.0", "0000:27:00.0"
ME = Peer(os.getpid(), os.getuid())
MODE_FILE = f"bus/pci/devices/{FIRST}/current_compute_partition"


def small_node(**settings):
    return SimulatedNode(new_state("mi300x", 2, **{"switch_seconds": 0.0, "reap_seconds": 0.0, **settings}))


def state_of(node):
    return json.loads(node.state_json())


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        (b'{"op":"join"}', Join()),
        (b'{"op":"join","gpus":null}\n', Join()),
        (b'{"op":"join","gpus":["gpu0","0000:27:00.0"]}', Join(["gpu0", SECOND])),
        (b'{"op":"use","gpu_id":28851,"vram":4096}', Use(28851, 4096)),
        (b'{"op":"fault","kind":"busy"}', Fault(FaultKind.BUSY)),
        (
            b'{"op":"fault","kind":"slow-write","gpu":"gpu1","remaining":null,"seconds":2}',
            Fault(FaultKind.SLOW_WRITE, "gpu1", None, 2.0),
        ),
        (b'{"op":"clear-faults"}', ClearFaults()),
        (b'{"op":"reload"}', Reload()),
        (b'{"op":"reboot"}', Reboot()),
        (b'{"op":"status"}', Status()),
    ],
)
def test_requests_that_are_understood(line, request_):
    assert decode(line) == request_


def test_every_operation_that_the_refusal_names_is_understood():
    needed = {"use": ',"gpu_id":1,"vram":0', "fault": ',"kind":"busy"', "available": ',"gpu_id":1'}
    needed |= dict.fromkeys(("allocate", "free"), ',"gpu_id":1,"size":1') | {"compute": ',"gpu_id":1,"share":1'}
    for operation in OPERATIONS:
        decode(f'{{"op":"{operation}"{needed.get(operation, "")}}}'.encode())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"join",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"op":null}',
        b'{"op":"explode"}',
        b'{"op":"join","gpus":"gpu0"}',
        b'{"op":"join","gpu":["gpu0"]}',
        b'{"op":"join"}{"op":"join"}',
        b'{"op":"use","gpu_id":1}',
        b'{"op":"use","gpu_id":1,"vram":-1}',
        b'{"op":"fault"}',
        b'{"op":"fault","kind":"rain"}',
        b'{"op":"fault","kind":"busy","remaining":0}',
        b'{"op":"fault","kind":"busy","seconds":-1}',
        b'{"op":"fault","kind":"busy","seconds":1e9}',
        b'{"op":"reboot","gpu":"gpu0"}',
    ],
)
def test_anything_else_is_one_sentence(line):
    with pytest.raises(
        InvalidInputError, match=r"^the request is not understood .*, expected one JSON object"
    ) as error:
        decode(line)
    assert "\n" not in error.value.message


@pytest.mark.parametrize("request_", [Join(), Use(1, 0), Devices(), Available(1), Allocate(1, 1), Free(1, 1), Status()])
def test_everybody_may_be_a_client_and_look(request_):
    assert permitted(request_, 4242, 1000)


@pytest.mark.parametrize("request_", [Fault(FaultKind.BUSY), ClearFaults(), Reload(), Reboot()])
def test_only_root_and_the_node_s_user_may_act_on_the_whole_node(request_):
    assert permitted(request_, 0, 1000)
    assert permitted(request_, 1000, 1000)
    assert not permitted(request_, 1001, 1000)
    assert not permitted(request_, 1001, 0)


@pytest.mark.parametrize(
    ("name", "address"), [("gpu0", FIRST), ("gpu1", SECOND), (SECOND, SECOND), (SECOND.upper(), SECOND)]
)
def test_a_gpu_has_two_names(name, address):
    assert gpu_address(small_node(), name) == address


@pytest.mark.parametrize("name", ["gpu2", "gpu-1", "gpu", "", "0000:06:00.0", "gpu00"])
def test_an_unknown_gpu_is_told_what_there_is(name):
    with pytest.raises(InvalidInputError, match=r"expected gpu0\.\.gpu1 or a PCI address like 0000:05:00\.0"):
        gpu_address(small_node(), name)


def test_join_is_for_the_asking_process_and_the_gpus_named():
    node = small_node()
    assert perform(node, Join(["gpu1"]), ME, 7).ok
    (client,) = state_of(node)["clients"]
    assert (client["pid"], client["start_time"], client["gpus"]) == (ME.pid, 7, [SECOND])


def test_join_during_a_switch_is_refused_with_einval():
    node = small_node(switch_seconds=60.0)
    node.act(lambda driver, now: driver.write_compute(FIRST, b"CPX", now) and None)
    answer = perform(node, Join(), ME, 7)
    assert (answer.ok, answer.errno) == (False, errno.EINVAL)
    assert "cannot open /dev/kfd now" in answer.error


def test_join_of_an_unknown_gpu_changes_nothing():
    node = small_node()
    answer = perform(node, Join(["gpu0", "gpu7"]), ME, 7)
    assert (answer.ok, answer.errno) == (False, errno.EINVAL)
    assert "gpu7 is not in the simulated node" in answer.error
    assert node.clients() == []


def test_use_is_shown_per_client_and_limited_by_the_partition():
    node = small_node()
    (first, second) = state_of(node)["nodes"]
    whole = first["memory_bytes"]
    assert perform(node, Use(first["gpu_id"], 1), ME).errno == errno.ESRCH
    perform(node, Join(["gpu0"]), ME, 7)
    perform(node, Join(["gpu0"]), Peer(1, 0), 8)
    assert perform(node, Use(first["gpu_id"], whole - 5), ME).ok
    assert perform(node, Use(first["gpu_id"], 6), Peer(1, 0)).errno == errno.ENOMEM
    assert perform(node, Use(first["gpu_id"], 5), Peer(1, 0)).ok
    assert perform(node, Use(second["gpu_id"], 1), ME).errno == errno.EINVAL
    assert perform(node, Use(1, 1), ME).errno == errno.EINVAL
    assert perform(node, Use(first["gpu_id"], 0), ME).ok
    assert [client["vram"][str(first["gpu_id"])] for client in state_of(node)["clients"]] == [0, 5]


def test_memory_of_a_dead_process_is_taken_until_the_driver_has_released_it():
    node = small_node(reap_seconds=60.0)
    partition = state_of(node)["nodes"][0]
    for peer in (ME, Peer(1, 0)):
        perform(node, Join(["gpu0"]), peer, 7)
    perform(node, Use(partition["gpu_id"], partition["memory_bytes"]), Peer(1, 0))
    node.act(lambda driver, now: driver.leave(1, now))
    assert perform(node, Use(partition["gpu_id"], 1), ME).errno == errno.ENOMEM


def test_a_fault_strikes_and_is_cleared():
    node = small_node()
    assert perform(node, Fault(FaultKind.BUSY, "gpu0", None), ME).ok
    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
        node.write(MODE_FILE, b"CPX")
    assert perform(node, ClearFaults(), ME).ok
    node.write(MODE_FILE, b"CPX")


def test_reload_is_refused_while_a_client_lives_and_reboot_is_not():
    node = small_node()
    node.write(MODE_FILE, b"CPX")
    perform(node, Join(["gpu0"]), ME, 7)
    assert perform(node, Reload(), ME).errno == errno.EBUSY
    before = node.boot_id
    assert perform(node, Reboot(), ME).ok
    assert node.clients() == []
    assert node.boot_id != before
    node.write(MODE_FILE, b"CPX")
    assert perform(node, Reload(), ME).ok
    assert node.read(MODE_FILE) == b"SPX\n"


def test_status_is_the_state():
    node = small_node()
    answer = perform(node, Status(), ME)
    assert answer.ok
    assert json.loads(bytes(answer.state)) == state_of(node)


def test_start_time_tells_processes_apart_and_is_none_for_none():
    assert process_start_time(os.getpid()) > process_start_time(1)
    assert process_start_time(2**22 + 1) is None
