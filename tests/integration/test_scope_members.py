"""Real processes in a control group that is named as a claim's scope: they are the claim's, whatever else they are."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimd.adapters.callers import caller_of, holder_of
from aimd.adapters.processes import LinuxProcesses, start_time_of
from aimd.adapters.unix.peer import Operators
from aimd.domain.claim import ClaimSpec, PartitionRef
from aimd.domain.memory import parse_gb
from aimd.domain.scope import scope_name
from aimd.protocol.convert_left import left_behind_messages
from tests.fakes.node import fast_state, running_node

TOPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
# Once told to go on, it leaves a process without environment or parents behind, and ends. `$$` would be its own pid.
AWAY = "read word; setsid env -i sleep 50 >/dev/null 2>&1 & wait_for_it=$!; read word; echo $wait_for_it; exit 0"


# Every millisecond another process, until a second is over: whoever reads /proc one by one sees none of them at times.
HOP = """\
import os, sys, time
sys.stdin.readline()
end = time.monotonic() + 1.0
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    time.sleep(0.001)
"""


class FakeScope:
    """A control group where systemd makes scopes; it makes none for this one."""

    def __init__(self, pid: int, parent: str = "system.slice") -> None:
        top = next(top for top in TOPS if (top / "cgroup.controllers").exists())
        self._slice = top / parent
        self._made = not self._slice.exists()
        self._slice.mkdir(exist_ok=True)
        self.folder = self._slice / scope_name("team/llama-70b", pid, start_time_of(pid) or 0)
        self.folder.mkdir()
        self.take(pid)

    def take(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        return [int(line) for line in (self.folder / "cgroup.procs").read_text().split()]

    def remove(self) -> None:
        for pid in self.pids():
            os.kill(pid, 9)
        end = time.monotonic() + 10
        while self.pids() and time.monotonic() < end:
            time.sleep(0.01)
        self.folder.rmdir()
        if self._made:
            self._slice.rmdir()


@pytest.fixture
def leader() -> Iterator[subprocess.Popen]:
    pipe = subprocess.PIPE
    with subprocess.Popen(["sh", "-c", AWAY], stdin=pipe, stdout=pipe, text=True) as process:
        yield process
        process.kill()


@pytest.fixture
def scope(leader: subprocess.Popen, requires_root) -> Iterator[FakeScope]:
    try:
        made = FakeScope(leader.pid)
    except (OSError, StopIteration) as error:
        pytest.skip(f"no control group of version 2 can be made here: {error!r}")
    yield made
    made.remove()


def say(process: subprocess.Popen) -> None:
    process.stdin.write("go on\n")
    process.stdin.flush()


def left_behind_by(leader: subprocess.Popen) -> int:
    """Have it start the other process and end; the pid of what is left."""
    say(leader)
    time.sleep(0.1)
    say(leader)
    pid = int(leader.stdout.readline())
    leader.wait(10)
    return pid


def test_a_process_that_left_everything_behind_is_the_holders(leader: subprocess.Popen, scope: FakeScope) -> None:
    holder = (leader.pid, start_time_of(leader.pid))
    pid = left_behind_by(leader)
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    assert scope.pids() == [pid]
    assert holder_of(pid) == holder
    assert [each.pid for each in LinuxProcesses().members(*holder)] == [pid]
    assert LinuxProcesses().members(holder[0], holder[1] + 1) == (), "of another process that had this pid"


def test_nobody_is_left_when_the_kernel_says_so(requires_root) -> None:
    async def story() -> None:
        command = [sys.executable, "-I", "-c", HOP]
        with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env={}) as process:
            try:
                scope = FakeScope(process.pid)
            except (OSError, StopIteration) as error:
                process.kill()
                pytest.skip(f"no control group of version 2 can be made here: {error!r}")
            processes, start_time = LinuxProcesses(), start_time_of(process.pid)
            try:
                ending = asyncio.create_task(processes.ended(process.pid, start_time))
                await asyncio.sleep(0.1)
                await asyncio.to_thread(say, process)
                remains = await ending
                while remains.living:  # one of them was seen, which is another one by now
                    remains = await processes.ended(process.pid, start_time, remains.living)
                assert scope.pids() == []
            finally:
                scope.remove()

    asyncio.run(story())


def test_it_asks_for_leases_as_the_claims_process(leader: subprocess.Popen, scope: FakeScope) -> None:
    holder = (leader.pid, start_time_of(leader.pid))
    pid = left_behind_by(leader)
    caller = caller_of(pid, start_time_of(pid), 0, 0, Operators(frozenset()))
    assert caller is not None
    assert caller.holders == {(pid, start_time_of(pid)), holder}


def test_the_same_name_elsewhere_tells_nothing(leader: subprocess.Popen, requires_root) -> None:
    try:
        scope = FakeScope(leader.pid, "aimd-test-user.slice")
    except (OSError, StopIteration) as error:
        pytest.skip(f"no control group of version 2 can be made here: {error!r}")
    try:
        assert holder_of(leader.pid) is None
    finally:
        scope.remove()


def test_it_keeps_its_claims_place_until_it_ends(leader: subprocess.Popen, scope: FakeScope) -> None:
    async def story() -> None:
        async with running_node(fast_state(count=1)) as node:
            await node.switch((0, "CPX"))
            await node.loop.claim("k", ClaimSpec(parse_gb(24), partition=PartitionRef(0)), uid=0)
            await node.loop.hold("k", None, leader.pid, command="python serve.py")
            pid = await asyncio.to_thread(left_behind_by, leader)
            await node.until(
                lambda snapshot: [[one.pid for one in held.survivors] for held in snapshot.claim_holders] == [[pid]]
            )
            await node.loop.release("k")
            ((kept,),) = left_behind_messages(node.loop.snapshot).values()
            assert [(each.pid, each.command) for each in kept.processes] == [(pid, "sleep 50")]
            os.kill(pid, 9)
            await node.until(lambda snapshot: not snapshot.claim_holders)

    asyncio.run(story())
