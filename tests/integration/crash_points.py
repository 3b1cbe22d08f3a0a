"""Where a daemon is killed: ports that die by SIGKILL right before, inside or right after a named step.

The ledger dies around the commit that journals a state of a switch, the driver around the write of a mode.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from aimd.domain.event import NodeEvent
from aimd.domain.gpu import Holder, Observed
from aimd.domain.ledger import LedgerState, LedgerWrite
from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.ports import GpuDriver, Ledger

BEFORE, INSIDE, AFTER = "before", "inside", "after"


def die() -> None:
    """What kill -9 does: nothing is flushed, nothing is closed."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Moment:
    """When to die.

    Attributes:
        step: a state of a switch, `write` for the driver's write, `never` for a life that ends otherwise.
        side: before, inside (writes alone) or after.
        switch: index of the switch that is in the state, or number of the write.
        delay: seconds from the begin of a write until the kill inside it.
    """

    step: str
    side: str = BEFORE
    switch: int = 0
    delay: float = 0.0


class DyingLedger:
    """ports.Ledger that dies around the first commit in which the switch has the state."""

    def __init__(self, ledger: Ledger, moment: Moment) -> None:
        self._ledger = ledger
        self._moment = moment

    def commit(self, write: LedgerWrite) -> None:
        reached = any(
            change.switches[self._moment.switch].state == self._moment.step
            for change in write.changes
            if self._moment.switch < len(change.switches)
        )
        if reached and self._moment.side == BEFORE:
            die()
        self._ledger.commit(write)
        if reached:
            die()

    def load(self) -> LedgerState:
        return self._ledger.load()

    def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[NodeEvent]:
        return self._ledger.events(after=after, limit=limit)

    def close(self) -> None:
        self._ledger.close()


class DyingDriver:
    """ports.GpuDriver that dies around its n-th write."""

    def __init__(self, driver: GpuDriver, moment: Moment) -> None:
        self._driver = driver
        self._moment = moment
        self._writes = 0

    def scan(self) -> Observed:
        return self._driver.scan()

    def holders(self) -> tuple[Holder, ...]:
        return self._driver.holders()

    def generation(self) -> int | None:
        return self._driver.generation()

    def set_compute_mode(self, address: str, mode: ComputeMode) -> None:
        dies = self._begin()
        self._driver.set_compute_mode(address, mode)
        self._end(dies)

    def request_memory_mode(self, address: str, mode: MemoryMode) -> None:
        dies = self._begin()
        self._driver.request_memory_mode(address, mode)
        self._end(dies)

    def _begin(self) -> bool:
        dies = self._moment.step == "write" and self._writes == self._moment.switch
        self._writes += 1
        if dies and self._moment.side == BEFORE:
            die()
        if dies and self._moment.side == INSIDE:
            threading.Timer(self._moment.delay, die).start()
        return dies

    def _end(self, dies: bool) -> None:
        if dies and self._moment.side == AFTER:
            die()
