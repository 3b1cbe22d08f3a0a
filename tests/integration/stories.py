"""Words for tests that let a whole daemon live on a simulated node: faults, clients, what the hardware is in."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

from aimd.domain.modes import PartitionMode
from aimd.domain.plan import Plan
from aimd.domain.switch import Switch
from aimd.errors import AimdError
from aimd.sim.node import SimulatedNode
from aimd.sim.state import FaultKind, SimFault
from tests.fakes.node import ADDRESSES, RunningNode

_PIDS = itertools.count(4_200_000)  # beyond the largest pid_max: no such process


def story(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that runs in a loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


def fault(
    sim: SimulatedNode, kind: FaultKind, gpu: int | None = 0, remaining: int | None = 1, seconds: float = 0.0
) -> None:
    address = None if gpu is None else ADDRESSES[gpu]
    sim.act(lambda driver, now: driver.inject(SimFault(kind, address, remaining, seconds), now))


def join(sim: SimulatedNode, *gpus: int, pid: int | None = None) -> int:
    """A KFD client of these GPUs (none = all); its pid, that of no living process unless given."""
    number = next(_PIDS) if pid is None else pid
    permitted = frozenset(ADDRESSES[gpu] for gpu in gpus) if gpus else None
    code = sim.act(lambda driver, now: driver.join(number, 1, now, permitted=permitted))
    assert code == 0, f"errno {code}"
    return number


def leave(sim: SimulatedNode, pid: int) -> None:
    sim.act(lambda driver, now: driver.leave(pid, now))


def reload(sim: SimulatedNode) -> int:
    """`modprobe -r amdgpu && modprobe amdgpu`, as an operator does it; the errno."""
    return sim.act(lambda driver, now: driver.reload(now))


def reboot(sim: SimulatedNode) -> None:
    sim.act(lambda driver, now: driver.reboot(now))


def hardware(sim: SimulatedNode) -> list[str]:
    """Of each GPU: what the mode file says, what the hardware is in, its memory mode, its number of KFD nodes."""
    state = json.loads(sim.state_json())
    return [
        f"{gpu['mode_file']} {gpu['compute']}/{gpu['memory']} {sum(n['address'] == gpu['address'] for n in state['nodes'])}"
        for gpu in state["gpus"]
    ]


async def becomes(sim: SimulatedNode, *expected: str, seconds: float = 10.0) -> None:
    """Wait until `hardware` is as expected."""
    deadline = time.monotonic() + seconds
    while hardware(sim) != list(expected):
        assert time.monotonic() < deadline, f"still {hardware(sim)} after {seconds} s"
        await asyncio.sleep(0.01)


def memory_requests(sim: SimulatedNode) -> list[str | None]:
    """The memory modes that the next driver load will apply, which the driver shows nowhere."""
    return [gpu["requested_memory"] for gpu in json.loads(sim.state_json())["gpus"]]


async def begin(node: RunningNode, *wishes: tuple[int, str], name: str = "c1", wait: float = 5.0) -> None:
    """Submit; returns when it is accepted."""
    parsed = [(ADDRESSES[gpu], PartitionMode.parse(text)) for gpu, text in wishes]
    await node.loop.submit(name, parsed, wait_seconds=wait, uid=0)


async def refused(node: RunningNode, *wishes: tuple[int, str], name: str = "r1") -> AimdError:
    """The error that submitting raises."""
    try:
        await begin(node, *wishes, name=name)
    except AimdError as error:
        return error
    raise AssertionError("it was accepted")


async def told(node: RunningNode, condition: Callable[[Switch], bool], name: str = "c1", index: int = 0) -> Switch:
    """The switch of the change as soon as it meets the condition."""
    snapshot = await node.until(lambda s: (c := s.change(name)) is not None and condition(c.switches[index]))
    change = snapshot.change(name)
    assert change is not None
    return change.switches[index]


async def planned(node: RunningNode, *wishes: tuple[int, str]) -> Plan:
    return await node.loop.plan([(ADDRESSES[gpu], PartitionMode.parse(text)) for gpu, text in wishes])
