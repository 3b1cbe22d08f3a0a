"""The sampler beside the control loop: what it gives of a node that has changed since, and when the driver does not answer."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

import pytest

from aimd.daemon.telemetry import PATIENCE_SECONDS, TelemetrySampler
from aimd.domain.gpu import Gpu, Partition
from aimd.domain.metering import Telemetry
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.errors import AimdError, DriverError, UnreachableError

ONE, OTHER = "0000:05:00.0", "0000:27:00.0"


def status(address: str, partitions: int = 2, epoch: int = 1) -> GpuStatus:
    gpu = Gpu(address, 0x74A1, tuple(Partition(index, 128 + index, 4, 1) for index in range(partitions)))
    return GpuStatus(0, gpu, mode_epoch=epoch)


SNAPSHOT = NodeSnapshot(gpus=(status(ONE), status(OTHER)))
FOUND = Telemetry(
    {(ONE, 0): 0.5, (ONE, 1): 0.0, (OTHER, 0): 1.0},
    {ONE: {"xcp_metrics": True}, OTHER: {"gpu_metrics": False}},
)


class Source:
    """ports.TelemetrySource that answers as the test says, and counts."""

    def __init__(self) -> None:
        self.answer: Telemetry | AimdError = FOUND
        self.asked = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def read(self, _snapshot: NodeSnapshot) -> Telemetry:
        self.asked += 1
        self.go_on.wait(5)
        if isinstance(self.answer, AimdError):
            raise self.answer
        return self.answer


class Clock:
    """Seconds, ahead of which the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def until(condition, seconds: float = 5.0) -> None:
    for _ in range(int(seconds / 0.002)):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("not reached in time")


def sampled(source: Source, snapshot: NodeSnapshot = SNAPSHOT) -> Telemetry:
    """What is told of the node that is `snapshot` by now, after a sample of SNAPSHOT."""

    async def run() -> Telemetry:
        sampler = TelemetrySampler(source, lambda: SNAPSHOT, 60)
        async with sampler.running():
            await until(lambda: source.asked == 1 and sampler._asked_at is None)
            return sampler.read(snapshot)

    return asyncio.run(run())


def test_nothing_is_known_before_the_first_sample() -> None:
    assert TelemetrySampler(Source(), lambda: SNAPSHOT).read(SNAPSHOT) == Telemetry()


def test_the_last_sample_is_told() -> None:
    assert sampled(Source()) == FOUND


def test_a_gpu_that_was_switched_since_is_left_out() -> None:
    """Its partitions have the same indexes, and are others."""
    now = replace(SNAPSHOT, gpus=(status(ONE, epoch=2), status(OTHER)))
    assert sampled(Source(), now) == Telemetry({(OTHER, 0): 1.0}, {OTHER: {"gpu_metrics": False}})


def test_a_partition_that_is_gone_is_left_out() -> None:
    now = replace(SNAPSHOT, gpus=(status(ONE, partitions=1), status(OTHER)))
    assert set(sampled(Source(), now).utilization) == {(ONE, 0), (OTHER, 0)}


def test_a_gpu_that_is_gone_is_left_out() -> None:
    now = replace(SNAPSHOT, gpus=(status(OTHER),))
    assert sampled(Source(), now) == Telemetry({(OTHER, 0): 1.0}, {OTHER: {"gpu_metrics": False}})


def test_a_failure_is_told_and_does_not_last(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()

    async def run() -> None:
        sampler = TelemetrySampler(source, lambda: SNAPSHOT, 0.001)
        source.answer = DriverError("a GPU's telemetry could not be read", errno=24, path="x")
        async with sampler.running():
            await until(lambda: source.asked > 2)
            with pytest.raises(DriverError):
                sampler.read(SNAPSHOT)
            source.answer = FOUND
            await until(lambda: sampler._sample.error is None)
            assert sampler.read(SNAPSHOT) == FOUND

    asyncio.run(run())
    assert len([record for record in caplog.records if "load is unknown" in record.message]) == 1, "told once"


def test_a_driver_that_does_not_answer() -> None:
    """The page gets the last sample, then the truth; nobody waits, and the driver is not asked twice."""
    source, clock = Source(), Clock()

    async def run() -> None:
        sampler = TelemetrySampler(source, lambda: SNAPSHOT, 0.001, clock)
        async with sampler.running():
            await until(lambda: sampler.read(SNAPSHOT) == FOUND)
            source.go_on.clear()
            asked = source.asked
            await until(lambda: source.asked > asked)
            clock.now += PATIENCE_SECONDS
            assert sampler.read(SNAPSHOT) == FOUND
            clock.now += 1
            with pytest.raises(UnreachableError, match="has not told"):
                sampler.read(SNAPSHOT)
            await asyncio.sleep(0.02)
            assert source.asked == asked + 1
            source.go_on.set()
            await until(lambda: sampler._asked_at is None or source.asked > asked + 1)

    asyncio.run(run())


def test_the_driver_is_asked_no_more_often_than_every_so_many_seconds() -> None:
    source, began = Source(), time.monotonic()

    async def run() -> None:
        async with TelemetrySampler(source, lambda: SNAPSHOT, 0.1).running():
            await asyncio.sleep(1.0)

    asyncio.run(run())
    assert 3 <= source.asked <= (time.monotonic() - began) / 0.1 + 1
