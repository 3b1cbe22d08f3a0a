"""What the API's operations work with: the daemon, who may change it, and the past that watchers go on from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from aimd.adapters.unix.peer import Operators
from aimd.domain.cluster import ClusterStanding
from aimd.domain.event import NodeEvent
from aimd.domain.node import NodeSnapshot
from aimd.ports import ControlPlane, TrafficSource
from aimd.protocol.messages import Message
from aimd.protocol.watch import History, WatchMessage, step

WATCH_SECONDS = 15.0
LEDGER_READS = 4  # at a time: the ledger's thread commits, too, and must not queue behind a crowd of readers
EVENT_BATCH = 1000


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the API tells of the daemon itself.

    Attributes:
        boot_id: of the machine, or of the simulated node.
        simulated: description of the simulated node, None on a real one.
        started: CLOCK_MONOTONIC seconds.
        sysfs_root: where a claim's process reads the topology in its own view; None if nothing is mounted.
    """

    boot_id: str
    simulated: str | None
    started: float
    sysfs_root: str | None = None


Listed = TypeVar("Listed", bound=Message)


@dataclass(frozen=True, slots=True)
class Collection(Generic[Listed]):
    """A list that can be watched: its objects by name, at CLOCK_MONOTONIC seconds (running switches have a duration)."""

    objects: Callable[[NodeSnapshot, float], Mapping[str, Listed]]


@dataclass(frozen=True, slots=True)
class Api:
    """The surroundings of every operation; `cluster` is None where none is configured."""

    control: ControlPlane
    operators: Operators
    facts: NodeFacts
    traffic: TrafficSource
    cluster: Callable[[], ClusterStanding] | None = None
    history: History = field(default_factory=History)
    ledger_reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LEDGER_READS))

    def snapshot(self) -> NodeSnapshot:
        """The present state, which a client may from now on refer to by its generation."""
        return self.history.keep(self.control.snapshot)

    async def events(self, after: int) -> Sequence[NodeEvent]:
        """The next events of the ledger after this sequence number, oldest first, at most EVENT_BATCH."""
        async with self.ledger_reads:
            return await self.control.events(after=after, limit=EVENT_BATCH)

    def watch(self, collection: Collection[Listed], since: int) -> AsyncGenerator[WatchMessage[Listed], None]:
        """The changes of a list after a generation, without end.

        One who reads slowly is not told of states in between, so nothing piles up here.

        Raises:
            GoneError: at once, if that generation is not kept.
        """
        return self._changes(collection, self.history.at(since))

    async def _changes(
        self, collection: Collection[Listed], shown: NodeSnapshot
    ) -> AsyncGenerator[WatchMessage[Listed], None]:
        while True:
            snapshot, now = self.snapshot(), time.monotonic()
            before, after = collection.objects(shown, now), collection.objects(snapshot, now)
            for line in step(before, after, since=shown.generation, reached=snapshot.generation):
                yield line
            shown = snapshot
            await self.control.changed(snapshot.generation, WATCH_SECONDS)
