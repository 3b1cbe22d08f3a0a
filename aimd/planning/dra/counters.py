"""Lock counters: what keeps the scheduler from allocating partitions of two modes of one GPU.

A device consumes of counters that its GPU's devices share, and is allocated only while they suffice. For each mode with
more than one partition and fewer than the finest one has, there are as many counters as partitions. Partition k takes all
of counter k of its own mode and, of each other mode's counters, its share of the GPU. So the partitions of a mode exhaust
all counters together and never more, and two of different modes meet in a counter that one of them takes all of:

    8 XCCs      dpx-0, dpx-1    qpx-0 to qpx-3
    SPX 0       8 each          8 each
    DPX k       dpx-k: 8        4 each
    QPX j       2 each          qpx-j: 8
    CPX i       1 each          1 each

Where there is no mode between, the finest one has the counters. One vector per mode, as for other divisible devices, cannot
do it: half of a GPU in DPX would leave room for four CPX partitions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import lcm

from aimd.domain.modes import ComputeMode


@dataclass(frozen=True, slots=True)
class LockCounters:
    """The counters of a GPU whose modes have so many partitions each.

    Attributes:
        counts: partitions by mode, of all modes that are published.
    """

    counts: Mapping[ComputeMode, int]

    @property
    def capacity(self) -> int:
        """Of every counter: each mode's share of it is a whole number."""
        return lcm(*self.counts.values())

    @property
    def capacities(self) -> dict[str, int]:
        """Every counter with its capacity; empty where there are no two modes to tell apart."""
        return {_name(mode, k): self.capacity for mode in self._locked for k in range(self.counts[mode])}

    def consumed(self, mode: ComputeMode, index: int) -> dict[str, int]:
        """What partition `index` of a mode takes of each counter; every entry is more than 0."""
        share = self.capacity // self.counts[mode]
        taken = {}
        for locked in self._locked:
            for k in range(self.counts[locked]):
                own = locked is mode
                if not own or k == index:
                    taken[_name(locked, k)] = self.capacity if own else share
        return taken

    def fits(self, devices: Iterable[tuple[ComputeMode, int]]) -> bool:
        """Whether the scheduler would allocate all of these together."""
        left = self.capacities
        for mode, index in devices:
            for counter, amount in self.consumed(mode, index).items():
                left[counter] -= amount
        return all(amount >= 0 for amount in left.values())

    @property
    def _locked(self) -> tuple[ComputeMode, ...]:
        """The modes that have counters."""
        if len(self.counts) < 2:
            return ()
        finest = max(self.counts.values())
        between = tuple(mode for mode, count in self.counts.items() if 1 < count < finest)
        return between or tuple(mode for mode, count in self.counts.items() if count == finest)


def _name(mode: ComputeMode, index: int) -> str:
    return f"{mode.lower()}-{index}"
