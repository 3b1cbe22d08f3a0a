"""What the node offers to the scheduler, published whenever it changes, and how its devices are, told to the kubelet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from aimd.daemon.published import Published
from aimd.daemon.turning import turning
from aimd.domain.node import NodeSnapshot
from aimd.planning.dra.devices import devices
from aimd.planning.dra.health import health
from aimd.planning.dra.slices import Object, decided, slice_parts
from aimd.planning.dra.surroundings import Surroundings
from aimd.ports_dra import DeviceDriver, Pool

log = logging.getLogger("aimd.devices")

HEALTH_SECONDS = 10.0  # what is not said for half a minute counts as unknown
REST_SECONDS = 30.0  # a GPU whose switch has failed is not offered in other modes for so long
LOOK_SECONDS, PUBLISHED_LOOKS = 0.05, 60


class Offering:
    """The pool of a node. For the control loop's thread.

    Args:
        around: what devices depend on beside the snapshot.
    """

    def __init__(
        self,
        pool: Pool,
        driver: DeviceDriver,
        shown: Published[NodeSnapshot],
        node: str,
        around: Callable[[], Surroundings],
    ) -> None:
        self._pool = pool
        self._driver = driver
        self._shown = shown
        self._node = node
        self._around = around
        self._resting: dict[str, float] = {}  # by PCI address, until when (CLOCK_MONOTONIC seconds)
        self._parts: Sequence[Object] | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Published until the context ends; the devices stay after it, as pods that use them do."""
        async with turning(self._run, log, "offering devices"):
            yield

    async def rest(self, gpus: Iterable[str]) -> None:
        """Offer these GPUs (PCI addresses) in no other mode for a while; returns when the scheduler can know."""
        until = time.monotonic() + REST_SECONDS
        self._resting |= dict.fromkeys(gpus, until)
        self._publish()
        for _ in range(PUBLISHED_LOOKS):
            if self._pool.statistics().published:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _run(self) -> None:
        generation = -1
        while True:
            snapshot = await self._shown.newer(generation, HEALTH_SECONDS)
            generation = snapshot.generation
            if snapshot.ready:
                self._publish()
                self._driver.publish_health(health(snapshot, self._node), time.time())

    def _publish(self) -> None:
        now = time.monotonic()
        self._resting = {gpu: until for gpu, until in self._resting.items() if until > now}
        around = self._around()
        around = replace(around, unswitchable=around.unswitchable | frozenset(self._resting))
        parts = slice_parts(devices(self._shown.latest(), around))
        if parts != self._parts:
            self._parts = parts
            self._pool.publish(partial(decided, parts, self._node))
