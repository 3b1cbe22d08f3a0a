"""A MemoryProbe that answers what it is told to, without a process."""

from __future__ import annotations

from collections.abc import Mapping

from aimd.domain.probe import PartitionMemory, ProbeReport, ProbeState


class FakeProbe:
    """ports.MemoryProbe.

    Args:
        memory: (free, total) of the partitions in their order, by PCI address; other GPUs have none (MOVED).

    Attributes:
        reports: what a GPU is answered instead, by PCI address.
        asked: GPUs in the order of the questions.
        held: the keys now.
    """

    def __init__(self, memory: Mapping[str, list[tuple[int, int]]] | None = None) -> None:
        self.memory = dict(memory or {})
        self.reports: dict[str, ProbeReport] = {}
        self.asked: list[str] = []
        self.held: set[str] = set()
        self.pids: frozenset[int] = frozenset()
        self.closed = False

    async def probe(self, gpu: str) -> ProbeReport:
        if self.held or self.closed:
            return ProbeReport(gpu, ProbeState.HELD)
        self.asked.append(gpu)
        if gpu in self.reports:
            return self.reports[gpu]
        sizes = self.memory.get(gpu)
        if sizes is None:
            return ProbeReport(gpu, ProbeState.MOVED)
        partitions = tuple(PartitionMemory(index, *each) for index, each in enumerate(sizes))
        return ProbeReport(gpu, ProbeState.READ, partitions=partitions)

    async def hold(self, key: str) -> bool:
        self.held.add(key)
        return True

    def resume(self, key: str) -> None:
        self.held.discard(key)

    async def close(self) -> None:
        self.closed = True
