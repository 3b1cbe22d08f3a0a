"""Samples how busy the partitions are, every few seconds in a thread of its own, and tells it of the node as it is now.

A page of metrics never waits for the driver: it gets the last sample, without GPUs that have been switched since.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from aimd.domain.metering import Telemetry
from aimd.domain.node import NodeSnapshot
from aimd.errors import AimdError, UnreachableError
from aimd.ports import TelemetrySource

log = logging.getLogger("aimd.telemetry")

SAMPLE_SECONDS = 2.0
IDLE_SHARE = 49  # times as long as a sample took the driver is left alone: at most 2 % of its time
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A reading, of GPUs with these mode epochs by PCI address; `error` is why there is none."""

    telemetry: Telemetry = field(default_factory=Telemetry)
    epochs: dict[str, int] = field(default_factory=dict)
    error: AimdError | None = None


class TelemetrySampler:
    """ports.TelemetrySource that gives what another source told last.

    Args:
        source: asked.
        snapshot: the node as published last.
        seconds: between two samples, at least.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        source: TelemetrySource,
        snapshot: Callable[[], NodeSnapshot],
        seconds: float = SAMPLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._snapshot = snapshot
        self._seconds = seconds
        self._clock = clock
        self._asked_at: float | None = None  # while a sample is under way
        self._sample = Sample()

    def read(self, snapshot: NodeSnapshot) -> Telemetry:
        """The last sample, of partitions that this snapshot has as the sample saw them; does not block.

        Raises:
            AimdError: the last sample failed, or one has been under way for too long: the driver does not answer.
        """
        asked_at, sample = self._asked_at, self._sample
        waited = 0.0 if asked_at is None else self._clock() - asked_at
        if waited > PATIENCE_SECONDS:
            raise UnreachableError(
                f"the driver has not told the partitions' load for {waited:.0f} s, expected an answer within seconds",
                hint="the kernel log may say which GPU hangs",
            )
        if sample.error is not None:
            raise sample.error
        return of_snapshot(sample, snapshot)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sample meanwhile."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="telemetry")
        sampling = asyncio.create_task(self._run(thread))
        sampling.add_done_callback(_ended)
        try:
            yield
        finally:
            sampling.cancel()
            await asyncio.wait({sampling})
            thread.shutdown(wait=False)  # a reading that hangs in the driver cannot be ended

    async def _run(self, thread: ThreadPoolExecutor) -> None:
        while True:
            self._asked_at = began = self._clock()
            sample = await asyncio.get_running_loop().run_in_executor(thread, self._take, self._snapshot())
            self._asked_at = None
            self._keep(sample)
            await asyncio.sleep(max(self._seconds, IDLE_SHARE * (self._clock() - began)))

    def _take(self, snapshot: NodeSnapshot) -> Sample:
        try:
            telemetry = self._source.read(snapshot)
        except AimdError as error:
            return Sample(error=error)
        return Sample(telemetry, {status.gpu.pci_address: status.mode_epoch for status in snapshot.gpus})

    def _keep(self, sample: Sample) -> None:
        if sample.error is not None and self._sample.error is None:
            log.warning("the partitions' load is unknown: %s", sample.error.message)
        self._sample = sample


def of_snapshot(sample: Sample, snapshot: NodeSnapshot) -> Telemetry:
    """What of a sample is still about the partitions that are there."""
    same = [status.gpu for status in snapshot.gpus if sample.epochs.get(status.gpu.pci_address) == status.mode_epoch]
    places = {(gpu.pci_address, partition.index) for gpu in same for partition in gpu.partitions}
    addresses = {gpu.pci_address for gpu in same}
    return Telemetry(
        {place: share for place, share in sample.telemetry.utilization.items() if place in places},
        {address: found for address, found in sample.telemetry.sources.items() if address in addresses},
    )


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the partitions' load is not sampled any more; restart the daemon", exc_info=error)
