"""From the native core's counters to what a page tells: nothing is lost when partitions, models and claims come and go."""

from __future__ import annotations

import pytest

from aimd.daemon.metering import DispatchMeter
from aimd.daemon.totals import AcquireTotals
from aimd.dispatch import values
from aimd.dispatch.core import NativeCore, histograms_of
from aimd.dispatch.values import SECOND, Class, CoreSnapshot, Limits, ModelConfig, PartitionConfig
from aimd.domain import budget
from aimd.domain.claim import Claim, ClaimSpec, QosClass
from aimd.domain.metering import BUCKETS_SECONDS
from aimd.domain.node import NodeSnapshot
from aimd.domain.partition import PartitionKey

KEY, LATER = PartitionKey("0000:05:00.0", 0, 1), PartitionKey("0000:05:00.0", 0, 2)
LLAMA, EMBED = 1, 2
CLAIMS = (Claim("llama", 0, ClaimSpec(1, QosClass.LOW), 1.0), Claim("embed", 0, ClaimSpec(1), 2.0))
BOUNDS = [round(bound * SECOND) for bound in BUCKETS_SECONDS]


def config(*models, capacity=2):
    return PartitionConfig(models, capacity=capacity)


class Service:
    """What the meter asks of a DispatchService, over a core whose time is the test's."""

    queue_cap = 4096
    denied = {"unknown_model": 2}  # noqa: RUF012 -- one instance a test, never changed

    def __init__(self) -> None:
        self.core = NativeCore(Limits(partitions=8, models=16))
        self.now = 0
        self.keys = {0: KEY}
        self.names = {LLAMA: "llama", EMBED: "embed"}
        self.claims = CLAIMS
        self.requests = 0
        self.connection = self.core.open(1)
        self.totals = AcquireTotals()
        self.meter = DispatchMeter(self, lambda: NodeSnapshot(claims=self.claims), self.totals)
        self.core.configure(0, 0, config(ModelConfig(LLAMA, latency_target_ns=SECOND), ModelConfig(EMBED)))

    def served(self):
        return {(number, model): (key, name) for number, key in self.keys.items() for model, name in self.names.items()}

    def partitions(self):
        return self.keys

    def metered(self):
        self.core.advance(self.now)
        return self.core.snapshot(), histograms_of(self.core._histograms(BOUNDS)), {"connections": 3}

    def use(self, model=LLAMA, seconds=0.5, klass=Class.HIGH, partition=0, ok=True):
        event = self.ask(model, klass, partition)
        self.now += round(seconds * SECOND)
        self.core.release(self.now, self.connection, event[3], ok)

    def ask(self, model=LLAMA, klass=Class.HIGH, partition=0):
        self.requests += 1
        [event] = self.core.acquire(self.now, self.connection, self.requests, partition, model, klass)
        return event

    def read(self):
        return self.meter.begin()()


def test_who_was_denied_is_passed_on():
    assert Service().read().denied == {"unknown_model": 2}


def test_requests_are_told_as_they_ended():
    service = Service()
    for seconds, ok in ((0.5, True), (0.5, True), (2.0, True), (0.1, False)):
        service.use(seconds=seconds, ok=ok)
    service.ask()
    service.ask()
    service.ask()
    llama, embed = service.read().models
    high = llama.classes[QosClass.HIGH]
    assert {how: count for how, count in high.ended.items() if count} == {"released": 2, "late": 1, "failed": 1}
    assert (high.running, high.waiting) == (2, 1)
    assert (high.total.counts[-1], high.total.sum_seconds) == (4, pytest.approx(3.1))
    assert high.queue.counts[0] == high.queue.counts[-1] == 6
    assert llama.slot_seconds == pytest.approx(3.1)
    assert llama.classes.keys() == {QosClass.HIGH, QosClass.LOW}, "its claim's class is there from the beginning"
    assert embed.classes.keys() == {QosClass.MEDIUM}


def test_buckets_are_cumulative_and_within_the_sketch_error():
    service = Service()
    for seconds in (0.0004, 0.004, 0.04, 0.4, 4.0, 40.0, 400.0):
        service.use(seconds=seconds)
    total = service.read().models[0].classes[QosClass.HIGH].total
    found = dict(zip(BUCKETS_SECONDS, total.counts, strict=False))
    assert [found[bound] for bound in (0.0005, 0.005, 0.05, 0.5, 5.0, 60.0, 120.0)] == [1, 2, 3, 4, 5, 6, 6]
    assert total.counts[-1] == 7


def test_a_partition_that_is_gone_takes_its_series_along():
    service = Service()
    service.use()
    service.core.remove_partition(service.now, 0)
    service.keys = {}
    found = service.read()
    assert (found.partitions, found.models) == ((), ())
    assert found.acquires["granted"] == 1


def test_totals_go_on_across_partitions():
    service = Service()
    for _ in range(3):
        service.use()
    service.read()
    waiting = [service.ask() for _ in range(4)]
    assert len(waiting) == 4
    service.core.remove_partition(service.now, 0)
    service.keys = {}
    found = service.read()
    assert (found.acquires["granted"], found.acquires["partition_gone"]) == (5, 2)
    assert found.rejected["llama"]["partition_gone"] == 2
    service.keys = {5: LATER}
    service.core.configure(service.now, 5, config(ModelConfig(LLAMA)))
    service.use(partition=5)
    found = service.read()
    assert found.models[0].key == LATER
    assert found.models[0].classes[QosClass.HIGH].ended["released"] == 1, "another partition, which begins at 0"
    assert (found.acquires["granted"], found.rejected["llama"]["partition_gone"]) == (6, 2)


def test_a_core_that_forgot_a_model_does_not_take_from_the_totals():
    service = Service()
    for _ in range(5):
        service.use()
    assert service.read().acquires["granted"] == 5
    service.core.configure(service.now, 0, config())
    service.core.configure(service.now, 0, config(ModelConfig(LLAMA)))
    service.use()
    assert service.read().acquires["granted"] == 6


def test_what_a_claim_was_refused_ends_with_it():
    service = Service()
    service.core.configure(0, 0, config(ModelConfig(LLAMA, queue_cap=0), capacity=1))
    service.ask()
    service.ask()
    assert service.read().rejected == {
        "llama": {"expired": 0, "shed": 0, "queue_full_model": 1, "queue_full_partition": 0},
        "embed": {"expired": 0, "shed": 0, "queue_full_model": 0, "queue_full_partition": 0},
    }
    service.claims = (Claim("llama", 0, ClaimSpec(1), 7.0),)
    found = service.read()
    assert found.rejected == {"llama": {"expired": 0, "shed": 0, "queue_full_model": 0, "queue_full_partition": 0}}
    assert found.acquires["queue_full_model"] == 1


def test_unrouted_acquires_are_counted():
    service = Service()
    service.requests += 1
    service.core.acquire(service.now, service.connection, service.requests, 7, LLAMA, Class.HIGH)
    assert service.read().acquires["unknown_partition"] == 1
    assert service.read().acquires["unknown_partition"] == 1


def test_an_unread_core_has_no_totals():
    totals = AcquireTotals()
    totals.read(CoreSnapshot(0, ()), {}, ())
    assert set(totals.acquires().values()) == {0}
    assert totals.rejected() == {}


def test_both_sides_call_the_same_outcomes_bad():
    assert {outcome.name.lower() for outcome in values.BAD_OUTCOMES} == set(budget.BAD_OUTCOMES)
    assert {end.name.lower() for end in values.End} == {"ok", *budget.BAD_ENDS}
