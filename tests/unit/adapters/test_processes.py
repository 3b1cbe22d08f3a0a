"""Real processes of this machine: when a holder has ended, with all that it started."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from aimd.adapters.processes import LinuxProcesses, start_time_of
from aimd.errors import NotFoundError
from aimd.ports import Remains

# A holder marks itself as aimctl exec does; what it is to do is its second argument.
HOLDER = """\
import os, sys
from aimd.adapters.processes import start_time_of, marker_of
me = os.getpid()
os.execvpe("sh", ["sh", "-c", sys.argv[1]], {**os.environ, "AIM_HOLDER": marker_of(me, start_time_of(me))})
"""

# Once told to go on, every millisecond another process, until a second is over; each has the marker, none has a scope.
HOP = """\
import os, sys, time
from aimd.adapters.processes import start_time_of, marker_of
me = os.getpid()
if "AIM_HOLDER" not in os.environ:
    environment = {**os.environ, "AIM_HOLDER": marker_of(me, start_time_of(me))}
    os.execve(sys.executable, [sys.executable, "-c", sys.argv[1], sys.argv[1]], environment)
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + 1.0
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    time.sleep(0.001)
print("over", flush=True)
"""


@pytest.fixture
def started() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            continue


def holder(script: str) -> tuple[subprocess.Popen, int]:
    """A holder that waits for a line before it does what it is to do, and its start time."""
    words = [sys.executable, "-c", HOLDER, f"read line; {script}"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, start_time_of(process.pid)


def go(process: subprocess.Popen) -> None:
    process.stdin.write("go\n")
    process.stdin.flush()


async def after(seconds: float, task: asyncio.Task) -> bool:
    """Whether the task is done by then."""
    await asyncio.wait({task}, timeout=seconds)
    return task.done()


def test_a_child_that_outlives_the_holder_keeps_it(started: list[int]) -> None:
    process, start_time = holder("sleep 50 >/dev/null & echo $!; exit 0")

    async def watch() -> None:
        processes = LinuxProcesses()
        task = asyncio.create_task(processes.ended(process.pid, start_time))
        go(process)
        child = int(process.stdout.readline())
        started.append(child)
        process.wait()
        assert await after(20, task)
        left = task.result()
        assert [(one.pid, one.command) for one in left.living] == [(child, "sleep 50")], "not the dead one"
        assert left.seen
        assert [member.pid for member in processes.members(process.pid, start_time)] == [child]
        task = asyncio.create_task(processes.ended(process.pid, start_time, left.living))
        assert not await after(1.5, task), "its child runs"
        os.kill(child, 9)
        assert await after(20, task)
        assert task.result() == Remains(seen=True)

    asyncio.run(watch())


def test_what_is_left_is_told_again_when_another_is_left(started: list[int]) -> None:
    """Of a tree the top is told: what it starts and ends meanwhile is no news."""
    script = "sh -c 'sleep 51 & echo $$ $!; while :; do sleep 0.1; done' >&3 & exit 0"
    process, start_time = holder(f"exec 3>&1; {script}")

    async def watch() -> None:
        processes = LinuxProcesses()
        go(process)
        top, below = map(int, process.stdout.readline().split())
        started.extend((top, below))
        process.wait()
        left = await asyncio.wait_for(processes.ended(process.pid, start_time), 20)
        assert [one.pid for one in left.living] == [top]
        task = asyncio.create_task(processes.ended(process.pid, start_time, left.living))
        assert not await after(2.5, task), "only its children come and go"
        os.kill(top, 9)
        assert await after(20, task)
        assert below in [one.pid for one in task.result().living]
        assert top not in [one.pid for one in task.result().living]

    asyncio.run(watch())


def test_a_child_without_the_marker_is_known_by_the_tree(started: list[int]) -> None:
    process, start_time = holder("env -i sleep 50 >/dev/null & echo $!; read line; exit 0")

    async def watch() -> None:
        processes = LinuxProcesses()
        task = asyncio.create_task(processes.ended(process.pid, start_time))
        go(process)
        child = int(process.stdout.readline())
        started.append(child)
        await asyncio.sleep(4)
        assert {m.pid for m in processes.members(process.pid, start_time)} == {process.pid, child}
        go(process)
        process.wait()
        assert await after(20, task)
        assert [one.pid for one in task.result().living] == [child]
        task = asyncio.create_task(processes.ended(process.pid, start_time, task.result().living))
        assert not await after(1.5, task), "its child runs"
        os.kill(child, 9)
        assert await after(20, task)
        assert task.result() == Remains(seen=True)

    asyncio.run(watch())


def test_children_are_found_by_a_daemon_that_never_saw_the_holder(started: list[int]) -> None:
    process, start_time = holder("sleep 50 >/dev/null & echo $!; exit 0")
    go(process)
    started.append(int(process.stdout.readline()))
    process.wait()

    async def watch() -> None:
        left = await asyncio.wait_for(LinuxProcesses().ended(process.pid, start_time), 20)
        assert [one.pid for one in left.living] == started
        task = asyncio.create_task(LinuxProcesses().ended(process.pid, start_time, left.living))
        assert not await after(1.5, task)
        os.kill(started[0], 9)
        assert await after(20, task)
        assert task.result() == Remains(seen=True)

    asyncio.run(watch())


def test_want_of_descriptors_is_not_the_end(started: list[int]) -> None:
    process = subprocess.Popen(["sleep", "50"])
    started.append(process.pid)
    start_time = start_time_of(process.pid)

    async def watch() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        await asyncio.to_thread(str)  # the thread is there before descriptors run out
        task = asyncio.create_task(LinuxProcesses().ended(process.pid, start_time))
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            assert not await after(1.5, task)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not await after(1.5, task)
        process.kill()
        process.wait()
        assert await after(20, task)

    asyncio.run(watch())


def test_a_process_that_was_not_there() -> None:
    process = subprocess.Popen(["true"])
    start_time = start_time_of(process.pid) or 1
    process.wait()
    assert asyncio.run(LinuxProcesses().ended(process.pid, start_time)) == Remains(seen=False)
    assert asyncio.run(LinuxProcesses().ended(os.getpid(), 1)) == Remains(seen=False), "another process has the pid"
    with pytest.raises(NotFoundError):
        LinuxProcesses().identify(process.pid)


def test_one_that_forks_and_ends_all_the_time_is_not_missed_by_its_marker_alone() -> None:
    command, pipe = [sys.executable, "-c", HOP, HOP], subprocess.PIPE
    environment = {name: value for name, value in os.environ.items() if name != "AIM_HOLDER"}

    async def story(process: subprocess.Popen) -> None:
        assert process.stdout.readline() == "ready\n"
        processes, start_time = LinuxProcesses(), start_time_of(process.pid)
        watching = asyncio.create_task(processes.ended(process.pid, start_time))
        await asyncio.sleep(0.1)
        go(process)
        over = asyncio.create_task(asyncio.to_thread(process.stdout.readline))
        remains = await watching
        while remains.living:  # one of them was seen, which is another one by now
            remains = await processes.ended(process.pid, start_time, remains.living)
        assert await after(0.3, over), "nobody is said to be left while one of them runs"

    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        asyncio.run(story(process))
