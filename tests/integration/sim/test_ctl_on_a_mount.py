"""What aimctl reads of a node by itself, on a mounted simulation: ordinals in the caller's view, and the preflight."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from sim_processes import kfd_client, open_to_all

from aimd.ctl.environment import variables, visible_partitions
from aimd.errors import DeniedError

GPU0, GPU1 = "0000:05:00.0", "0000:27:00.0"


def answer(partition, root):
    return {
        "claim": "llama",
        "replica": 0,
        "partition": partition,
        "memory_limit_bytes": 1,
        "kfd_order": [],
        "sysfs_root": str(root),
    }


def preflight(root):
    """Exit code, and the findings as (result, check, message)."""
    result = subprocess.run(
        [sys.executable, "-m", "aimd.ctl", "doctor", "--preflight", "--root", str(root), "-o", "json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stderr == ""
    found = json.loads(result.stdout)["findings"]
    return result.returncode, [(each["result"], each["check"], each["message"]) for each in found]


def test_a_hidden_partition_is_denied_and_the_others_move_up(new_driver):
    assert visible_partitions(str(new_driver.root)) == ([f"{GPU0}/0", f"{GPU1}/0"], 0)
    with new_driver.client() as client:
        client.fault("cgroup-denied", "gpu0", remaining=None, seconds=0)
    assert visible_partitions(str(new_driver.root)) == ([f"{GPU1}/0"], 1)
    assert variables(answer(f"{GPU1}/0", new_driver.root))["ROCR_VISIBLE_DEVICES"] == "0"
    with pytest.raises(DeniedError) as hidden:
        variables(answer(f"{GPU0}/0", new_driver.root))
    assert hidden.value.code == "partition_hidden"
    assert "1 KFD nodes are hidden" in hidden.value.message


def test_ordinals_are_of_one_instant_while_the_tree_is_rebuilt(new_driver):
    """KFD adds a GPU's nodes one by one, at the end of its list: each reading has one state of it, never a mixture."""
    divided = [f"{GPU0}/{index}" for index in range(8)]
    states = [[f"{GPU0}/0", f"{GPU1}/0"], *([f"{GPU1}/0", *divided[:count]] for count in range(9))]
    with subprocess.Popen(["sh", "-c", f"while :; do echo CPX; echo SPX; done >{new_driver.mode_file}"]) as switching:
        try:
            for _ in range(50):
                visible, hidden = visible_partitions(str(new_driver.root))
                assert visible in states
                assert hidden == 0
        finally:
            switching.kill()


def test_an_idle_node_is_fit(new_driver):
    code, found = preflight(new_driver.root)
    assert code == 0
    assert {result for result, _, _ in found} == {"ok"}
    assert ("ok", "EBUSY rule", "a GPU cannot be switched while a process holds this GPU") in found
    assert ("ok", "KFD topology", "2 partitions of 2 GPUs") in found


def test_who_holds_a_gpu(new_driver):
    with kfd_client(new_driver.socket, "gpu1") as child:
        code, found = preflight(new_driver.root)
    assert code == 0
    ((result, _, message),) = [each for each in found if each[1] == "holders"]
    assert (result, message.startswith(f"pid {child.pid} ("), message.endswith(") holds gpu1")) == ("warn", True, True)


def test_an_old_driver_counts_the_whole_node(old_driver):
    _, found = preflight(old_driver.root)
    ((result, _, message),) = [each for each in found if each[1] == "EBUSY rule"]
    assert (result, message) == ("warn", "no GPU can be switched while any process holds any GPU of the node")
    assert any(check == "memory modes" and "does not take requests" in message for _, check, message in found)


def test_hidden_nodes_fail(new_driver):
    with new_driver.client() as client:
        client.fault("cgroup-denied", "gpu0", remaining=None, seconds=0)
    code, found = preflight(new_driver.root)
    assert code == 1
    assert [(result, check) for result, check, _ in found if result == "fail"] == [("fail", "KFD topology")]


@pytest.mark.skipif(os.getuid() != 0, reason="drops root's rights")
def test_an_ordinary_user_is_told_what_it_may_not(new_driver):
    program = (
        "import os; from pathlib import Path\n"
        "from aimd.doctor.files import OsFiles\nfrom aimd.doctor.reading import read_facts\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"root = Path({str(new_driver.root)!r})\n"
        "print([gpu.denied for gpu in read_facts(OsFiles(root), root).gpus])"
    )
    open_to_all(new_driver.root.parent)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    modes = ("current_compute_partition", "current_memory_partition")
    assert result.stdout == f"{[modes, modes]}\n"
