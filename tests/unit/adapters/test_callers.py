"""Whose process it is: what an environment says is believed of those who could have had the holder ask."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from aimd.adapters.callers import caller_of, holder_of
from aimd.adapters.processes import marker_of, start_time_of
from aimd.adapters.unix.peer import Operators
from tests.cluster.pod_processes import PodGroups

WAITS = [sys.executable, "-I", "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
POD_A, POD_B = "0a1b2c3d-0000-4000-8000-00000000000a", "0a1b2c3d-0000-4000-8000-00000000000b"


@pytest.fixture
def groups(requires_root):
    made = PodGroups()
    yield made
    made.close()


@pytest.fixture
def started():
    """Starts a waiting process with these further variables, in a pod's group if one is told."""
    running: list[subprocess.Popen] = []

    def start(group=None, **variables: str) -> int:
        process = subprocess.Popen(
            WAITS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
        )
        assert process.stdout.readline() == "up\n"
        running.append(process)
        if group is not None:
            group.take(process.pid)
        return process.pid

    yield start
    for process in running:
        process.stdin.close()
        process.wait(10)


def named(pid: int) -> str:
    return marker_of(pid, start_time_of(pid))


def asks_as(pid: int) -> frozenset[tuple[int, int]]:
    caller = caller_of(pid, start_time_of(pid), os.getuid(), os.getgid(), Operators(frozenset()))
    assert caller is not None
    return caller.holders - {(pid, start_time_of(pid))}


def test_a_process_that_names_a_holder_of_its_user_belongs_to_it(started):
    holder = started()
    child = started(AIM_HOLDER=named(holder))
    assert asks_as(child) == {(holder, start_time_of(holder))}
    assert holder_of(child) == (holder, start_time_of(holder))


def test_a_holder_that_has_ended_is_still_named(started):
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    child = started(AIM_HOLDER=f"{gone}:7")
    assert holder_of(child) == (int(gone), 7)
    assert asks_as(child) == frozenset()


def test_root_of_one_pod_is_nobody_in_another(groups, started):
    a, b = groups.pod(POD_A), groups.pod(POD_B)
    holder = started(a)
    beside, elsewhere, outside = (started(group, AIM_HOLDER=named(holder)) for group in (a, b, None))
    assert [holder_of(pid) for pid in (beside, elsewhere, outside)] == [(holder, start_time_of(holder)), None, None]
    assert [len(asks_as(pid)) for pid in (beside, elsewhere, outside)] == [1, 0, 0]


def test_a_pod_names_no_holder_of_the_node(groups, started):
    holder = started()
    inside = started(groups.pod(POD_B), AIM_HOLDER=named(holder))
    assert (holder_of(inside), asks_as(inside)) == (None, frozenset())
