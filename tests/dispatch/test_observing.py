"""From the native core's counters to a board: what is read, models that the core forgets, and the task that samples."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from aimd.daemon import sampling
from aimd.daemon.sampling import Observer, readings_of
from aimd.dispatch.core import NativeCore, cell_value, cells_of
from aimd.dispatch.values import SECOND, Class, Limits, ModelConfig, PartitionConfig
from aimd.domain.claim import Claim, ClaimSpec, QosClass, Slo
from aimd.domain.node import NodeSnapshot
from aimd.domain.partition import PartitionKey
from aimd.domain.traffic import Counts, Stage

KEY = PartitionKey("0000:05:00.0", 3, 1)
CLAIM = Claim("llama", 0, ClaimSpec(1024, slo=Slo(0.1, 0.99)), 1.0)
PARTITION, MODEL = 7, 9
CONFIG = PartitionConfig((ModelConfig(MODEL, latency_target_ns=SECOND),), capacity=2)


class CoreOfATest:
    """What the observer asks of a DispatchService, with a core whose time is the test's."""

    def __init__(self, now: int = 100 * SECOND) -> None:
        self.core = NativeCore(Limits(partitions=8, models=16))
        self.now = now
        self.core.configure(now, PARTITION, CONFIG)
        self.connection = self.core.open(1)
        self.requests = 0
        self.gate = threading.Event()
        self.gate.set()
        self.reads = 0

    def served(self):
        return {(PARTITION, MODEL): (KEY, "llama")}

    def counters(self):
        self.gate.wait(10)
        self.core.advance(self.now)
        return self.core.snapshot()

    def cells(self):
        self.gate.wait(10)
        self.reads += 1
        return cells_of(self.core._latencies())

    def acquire(self, klass=Class.HIGH):
        """A lease, or None while it waits."""
        self.requests += 1
        [event] = self.core.acquire(self.now, self.connection, self.requests, PARTITION, MODEL, klass)
        return event[3] if len(event) > 3 else None

    def pass_time(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)

    def release(self, lease, ok=True):
        self.core.release(self.now, self.connection, lease, ok)


def read(service):
    return readings_of(service.served(), service.counters(), service.cells())["llama"][KEY]


def observer(service, first_number=0):
    return Observer(service, lambda: NodeSnapshot(claims=(CLAIM,)), first_number)


def test_what_is_read():
    service = CoreOfATest()
    service.pass_time(5)
    first, second = service.acquire(), service.acquire(Class.LOW)
    assert service.acquire() is None
    service.pass_time(0.5)
    service.release(first)
    service.pass_time(1.5)
    service.release(second, ok=False)
    found = read(service)
    assert (found.at, found.begun, found.slots, found.backlog_seconds) == (107.0, 100.0, 2, 0.5)
    assert found.classes == {
        QosClass.HIGH: Counts(1, 0, {"granted": 2}, {"ok": 1}, 1, 0),
        QosClass.MEDIUM: Counts(),
        QosClass.LOW: Counts(0, 0, {"granted": 1}, {"failed": 1}, 0, 1),
    }
    assert sum(found.cells[Stage.QUEUE, QosClass.HIGH].values()) == 2
    assert sum(found.cells[Stage.TOTAL, QosClass.LOW].values()) == 1
    assert found.cells[Stage.SERVICE, QosClass.MEDIUM] == {}


def test_stages_are_told_apart():
    service = CoreOfATest()
    first, second = service.acquire(), service.acquire()
    service.requests += 1
    service.core.acquire(service.now, service.connection, service.requests, PARTITION, MODEL, Class.HIGH)
    service.pass_time(1)
    [_, granted] = service.core.release(service.now, service.connection, first)
    service.pass_time(2)
    service.release(granted[3])
    service.release(second)
    cells = read(service).cells
    for stage, seconds in ((Stage.QUEUE, [0, 0, 1]), (Stage.SERVICE, [1, 2, 3]), (Stage.TOTAL, [1, 3, 3])):
        found = [cell_value(cell) / SECOND for cell, count in cells[stage, QosClass.HIGH].items() for _ in range(count)]
        assert sorted(found) == pytest.approx(seconds, rel=1 / 128)


def test_a_core_that_forgot_a_model_shows_it():
    service = CoreOfATest()
    for _ in range(5):
        service.release(service.acquire())
    service.pass_time(10)
    assert read(service).begun == 100.0
    service.core.configure(service.now, PARTITION, PartitionConfig((), capacity=2))
    assert readings_of(service.served(), service.counters(), service.cells()) == {}
    service.pass_time(3)
    service.core.configure(service.now, PARTITION, CONFIG)
    service.pass_time(1)
    assert read(service).begun == 113.0
    assert read(service).classes[QosClass.HIGH] == Counts()


def test_models_that_are_not_served_are_passed_over():
    service = CoreOfATest()
    assert readings_of({(PARTITION, 1): (KEY, "other")}, service.counters(), service.cells()) == {}


def test_boards_in_seconds():
    async def story():
        service = CoreOfATest()
        seen = observer(service, first_number=41)
        assert seen.board is None
        for _ in range(100):
            lease = service.acquire()
            service.pass_time(0.25)
            service.release(lease)
        await seen.sample()
        assert seen.board.number == 42
        flow = seen.board.models["llama"].whole.whole
        assert flow.grants_per_second == pytest.approx(4.0)
        assert flow.latencies[Stage.TOTAL].p50 == pytest.approx(0.25, rel=1 / 128)
        assert abs(time.time() - 25 - seen.board.models["llama"].whole.since) < 5

    asyncio.run(story())


def test_latencies_are_read_when_there_are_new_ones():
    async def story():
        service = CoreOfATest()
        seen = observer(service)
        reads = []

        async def sample():
            service.pass_time(2)
            await seen.sample()
            reads.append(service.reads)

        await sample()
        lease = service.acquire()
        await sample()
        await sample()
        service.release(lease)
        await sample()
        await sample()
        assert reads == [1, 2, 2, 3, 3]
        assert seen.board.models["llama"].whole.whole.latencies[Stage.TOTAL].count == 1

    asyncio.run(story())


def test_waiting_for_a_newer_board():
    async def story():
        seen = observer(CoreOfATest())
        waiting = asyncio.create_task(seen.newer(1, 10))
        assert await seen.newer(0, 0.01) is None
        await seen.sample()
        assert (await seen.newer(0, 10)).number == 1
        assert not waiting.done()
        await seen.sample()
        assert (await waiting).number == 2

    asyncio.run(story())


def test_the_end_waits_for_the_thread_that_reads():
    """Behind it the core is gone."""

    async def story():
        service = CoreOfATest()
        service.gate.clear()
        task = observer(service).begin()
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done()
        service.gate.set()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()
        assert service.reads == 1

    asyncio.run(story())


def test_it_goes_on_sampling():
    async def story():
        seen = observer(CoreOfATest())
        task = seen.begin()
        assert (await seen.newer(1, 20)).number == 2
        task.cancel()

    began = time.monotonic()
    asyncio.run(story())
    assert time.monotonic() - began >= sampling.SAMPLE_SECONDS - 0.1


def test_a_failure_is_told(caplog):
    class Broken(CoreOfATest):
        def counters(self):
            raise OSError("out of order")

    async def story():
        await asyncio.wait([observer(Broken()).begin()], timeout=10)

    asyncio.run(story())
    [record] = caplog.records
    assert record.getMessage().startswith("the traffic of models is not observed any more")
    assert "out of order" in record.exc_text
