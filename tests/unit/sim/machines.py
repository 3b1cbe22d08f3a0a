"""A simulated node on a clock that tests turn: waiting costs no time, and others can act while somebody waits."""

from __future__ import annotations

import errno
from collections.abc import Callable

from aimd.sim.node import SimulatedNode
from aimd.sim.state import FaultKind, SimFault, SimState, new_state

TOPOLOGY = "class/kfd/kfd/topology"


class FakeClock:
    """Seconds that pass when somebody sleeps; `at` has something done at an instant on the way."""

    def __init__(self) -> None:
        self.now = 100.0
        self._due: list[tuple[float, Callable[[], object]]] = []

    def __call__(self) -> float:
        return self.now

    def at(self, instant: float, action: Callable[[], object]) -> None:
        self._due.append((instant, action))
        self._due.sort(key=lambda entry: entry[0])

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            instant, action = self._due.pop(0)
            self.now = max(self.now, instant)
            action()
        self.now = max(self.now, until)


class Machine:
    """A simulated node with short names for what tests do."""

    def __init__(self, state: SimState) -> None:
        self.state = state
        self.clock = FakeClock()
        self.node = SimulatedNode(state, clock=self.clock, sleep=self.clock.sleep)

    def file(self, name: str, gpu: int = 0) -> str:
        return f"bus/pci/drivers/amdgpu/{self.state.gpus[gpu].address}/{name}"

    def read(self, name: str, gpu: int = 0) -> str:
        return self.node.read(self.file(name, gpu)).decode()

    def write(self, name: str, text: str, gpu: int = 0) -> int:
        """The errno of one write(2), 0 for success."""
        return code(lambda: self.node.write(self.file(name, gpu), text.encode()))

    def switch(self, mode: str, gpu: int = 0) -> int:
        return self.write("current_compute_partition", mode, gpu)

    def topology(self, path: str) -> str:
        return self.node.read(f"{TOPOLOGY}/{path}").decode()

    def generation(self) -> int:
        return int(self.topology("generation_id"))

    def numbers(self) -> list[int]:
        """Numbers of the GPU nodes."""
        listed = sorted(int(name) for name in self.node.listdir(f"{TOPOLOGY}/nodes"))
        return [number for number in listed if self.topology(f"nodes/{number}/gpu_id") != "0\n"]

    def properties(self, number: int) -> dict[str, int]:
        lines = self.topology(f"nodes/{number}/properties").splitlines()
        return {key: int(value) for key, value in (line.split(" ") for line in lines)}

    def nodes_of(self, gpu: int) -> list[int]:
        bus = self.state.gpus[gpu].bus
        return [n for n in self.numbers() if self.properties(n)["location_id"] >> 8 == bus]

    def sizes(self, gpu: int = 0) -> list[int]:
        texts = [self.topology(f"nodes/{n}/mem_banks/0/properties") for n in self.nodes_of(gpu)]
        return [int(text.split("size_in_bytes ")[1].split("\n")[0]) for text in texts]

    def join(self, pid: int, *gpus: int) -> int:
        permitted = frozenset(self.state.gpus[gpu].address for gpu in gpus) if gpus else None
        return self.node.act(lambda driver, now: driver.join(pid, 1, now, permitted=permitted))

    def leave(self, pid: int) -> None:
        self.node.act(lambda driver, now: driver.leave(pid, now))

    def reload(self) -> int:
        return self.node.act(lambda driver, now: driver.reload(now))

    def fault(self, kind: FaultKind, gpu: int | None = 0, remaining: int | None = 1, seconds: float = 0.0) -> None:
        address = None if gpu is None else self.state.gpus[gpu].address
        self.node.act(lambda driver, now: driver.inject(SimFault(kind, address, remaining, seconds), now))

    def during(self, seconds: float, action: Callable[[], object]) -> None:
        """Have something done after so many seconds, when somebody sleeps over that instant."""
        self.clock.at(self.clock.now + seconds, action)

    def pass_time(self, seconds: float) -> None:
        self.clock.sleep(seconds)


def machine(model: str = "mi300x", count: int = 2, profile: str = "7.2", **settings: float) -> Machine:
    return Machine(new_state(model, count, profile, **settings))


def code(operation: Callable[[], object]) -> int:
    """The errno that an operation raises, 0 if none."""
    try:
        operation()
    except OSError as error:
        return error.errno or -1
    return 0


def name_of(number: int) -> str:
    return errno.errorcode.get(number, str(number))
