"""Lock step with the reference where the structures are large: heaps of many chunks, wide clocks, deep guarantees.

The state machine keeps cores small so that rare meetings happen often; here it is depth that is looked for.
The fuzz campaign of a million operations: `pytest -m campaign tests/dispatch/test_native_large.py`.
"""

import random

import pytest

from aimd.dispatch.core import NativeCore
from aimd.dispatch.face import Fault, Kind, Limits, ModelConfig, PartitionConfig, canonical
from aimd.dispatch.reference import Reference

LIMITS = Limits(partitions=4, models=12, requests=3000, leases=400, connections=16, requests_per_connection=2500)
MS = 1_000_000


class Life:
    """A random life of both cores; `native` is whole and equal to the reference after each call that is looked at."""

    def __init__(self, seed, *, clock, check_every=40):
        self.dice = random.Random(seed)
        self.clock = clock  # largest power of ten of a step of time, in ns
        self.check_every = check_every
        self.cores = [Reference(LIMITS), NativeCore(LIMITS)]
        self.now = 0
        self.calls = 0
        self.number = 0
        self.waiting = set()
        self.leases = {}
        self.owners = {}

    def call(self, name, *args):
        said = []
        for core in self.cores:
            try:
                said.append(canonical(getattr(core, name)(self.now, *args)))
            except ValueError:
                said.append("ValueError")
        assert said[0] == said[1], (name, self.now, args)
        self.calls += 1
        if self.calls % self.check_every == 0:
            self.cores[1]._check()
            assert self.cores[0].snapshot() == self.cores[1].snapshot()
            assert self.cores[0].leases() == self.cores[1].leases()
        if said[0] != "ValueError":
            for event in said[0]:
                self.note(event)
        return said[0]

    def note(self, event):
        kind = event[0]
        if kind == Kind.QUEUED:
            self.waiting.add(event[1:3])
        elif kind in (Kind.GRANTED, Kind.ENDED):
            self.waiting.discard(event[1:3])
            if kind == Kind.GRANTED:
                self.leases[event[3]] = self.owners.get(event[1])
        elif kind in (Kind.RELEASED, Kind.REVOKED, Kind.LOST):
            self.leases.pop(event[1], None)

    def open(self):
        process = self.dice.randrange(6)
        opened = {core.open(process) for core in self.cores} if len(self.owners) < LIMITS.connections else set()
        assert len(opened) <= 1
        for connection in opened:
            self.owners[connection] = process

    def configure(self, partition):
        dice = self.dice
        capacity = dice.choice((1, 4, 16, 60))
        models, left = [], capacity
        for model in range(dice.randint(1, 4)):
            guarantee = dice.randint(0, left) if dice.random() < 0.6 else 0
            left -= guarantee
            limit = dice.choice((None, None, max(1, guarantee), guarantee + dice.randint(1, 8)))
            budget = tuple(10 ** dice.randint(3, self.clock + 1) for _ in range(3))
            cap = dice.choice((2000, 2000, 400, 20))
            models.append(
                ModelConfig(model, guarantee, limit, dice.randint(1, 1000), cap, dice.randrange(3), budget, 10**6)
            )
        queue_cap = dice.choice((600, 600, 300, 40, 5))
        life = 10 ** dice.randint(self.clock, self.clock + 2)
        self.call("configure", partition, PartitionConfig(tuple(models), capacity, queue_cap, life, life // 3))

    def start_by(self):
        shape = self.dice.random()
        if shape < 0.3:
            return -1
        return self.now + self.dice.randrange(10 ** self.dice.randint(1, self.clock + 2))

    def acquire(self, connection):
        self.number += 1
        klass = self.dice.choice((0, 1, 1, 2, 2, 2, -1))
        place, model = self.dice.choice((0, 0, 0, 0, 1, 2)), self.dice.randrange(4)
        no_wait = self.dice.random() < 0.05
        self.call("acquire", connection, self.number, place, model, klass, self.start_by(), no_wait)

    def step(self):
        dice = self.dice
        if not self.owners:
            self.open()
        connection = dice.choice(sorted(self.owners))
        move = dice.random()
        if dice.random() < 0.15:
            self.now += dice.randrange(10 ** dice.randint(0, self.clock))
        if move < 0.55:
            for _ in range(dice.choice((1, 1, 4, 30))):
                self.acquire(connection)
        elif move < 0.80 and self.leases:
            lease = dice.choice(sorted(self.leases))
            own = [peer for peer, process in self.owners.items() if process == self.leases[lease]]
            self.call(dice.choice(("release", "release", "release", "renew", "adopt")), (own or [connection])[0], lease)
        elif move < 0.93 and self.waiting:
            self.call("cancel", *dice.choice(sorted(self.waiting)))
        elif move < 0.94:
            self.configure(dice.randrange(3))
        elif move < 0.945:
            self.call("disconnect", connection, dice.random() < 0.5)
            del self.owners[connection]
        elif move < 0.947:
            process = dice.randrange(6)
            self.call("exited", process)
            self.owners = {peer: owner for peer, owner in self.owners.items() if owner != process}
        elif move < 0.95:
            self.call(dice.choice(("remove_partition", "drain", "undrain")), dice.randrange(3))
        elif move < 0.97:
            self.open()
        else:
            self.call("advance")

    def live(self, steps):
        for _ in range(3):
            self.open()
        self.configure(0)
        deepest = 0
        for _ in range(steps):
            self.step()
            deepest = max(deepest, len(self.waiting))
        return deepest


@pytest.mark.parametrize("clock", [6, 9, 13, 16])
def test_large_lives(clock):
    deepest = [Life(seed, clock=clock).live(400) for seed in range(2)]
    assert max(deepest) > 100


@pytest.mark.parametrize("seed", range(6))
def test_a_heap_of_many_chunks_serves_in_order(seed):
    dice = random.Random(seed)
    core = NativeCore(LIMITS)
    core.configure(0, 0, PartitionConfig((ModelConfig(0, queue_cap=2500),), 1, queue_cap=2500))
    connection = core.open(1)
    lease = core.acquire(0, connection, 10**6, 0, 0)[0][3]
    order = {}
    for number in range(2400):
        start_by = 10**9 - number if seed == 0 else 10**9 + dice.randrange(500)
        core.acquire(0, connection, number, 0, 0, 1, start_by)
        order[number] = (start_by, number)
    core._check()
    for number in dice.sample(range(2400), 1500):
        core.cancel(0, connection, number)
        del order[number]
    core._check()
    served = []
    while order.keys() - served:
        _, (_, _, number, lease, *_) = core.release(0, connection, lease)
        served.append(number)
    assert served == sorted(order, key=order.get)
    core._check()


@pytest.mark.parametrize("seed", range(8))
def test_shedding_among_many_entitled_and_late_ones(seed):
    """Model 0 waits below a deep guarantee while model 1 holds all slots: some of its entries are entitled, in an order
    that has nothing to do with their age.
    """
    dice = random.Random(seed)
    life = Life(seed, clock=9, check_every=10)
    life.open()
    models = [
        ModelConfig(0, guarantee=dice.randint(1, 40)),
        ModelConfig(1),
        ModelConfig(2, guarantee=dice.randint(0, 9)),
    ]
    life.call("configure", 0, PartitionConfig(tuple(models[1:2]), 60, queue_cap=50))
    for _ in range(60):
        life.number += 1
        life.call("acquire", 0, life.number, 0, 1)
    life.call("configure", 0, PartitionConfig(tuple(models), 60, queue_cap=50))
    shed = 0
    for _ in range(300):
        life.number += 1
        model, klass = dice.choice((0, 0, 0, 1, 2)), dice.choice((0, 1, 2, 2, 2))
        events = life.call("acquire", 0, life.number, 0, model, klass, 10**9 + dice.randrange(1000 if seed % 2 else 12))
        shed += len(events) > 1
        if dice.random() < 0.05:
            life.call("cancel", *dice.choice(sorted(life.waiting)))
        if dice.random() < 0.03:
            life.call("release", 0, dice.choice(sorted(life.leases)))
    assert shed > 20


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.003, 0.1, 0.3, 0.7, 1.0])
def test_many_that_expire_in_one_call_leave_the_others_in_order(seed, share):
    """Late ones and those in order, of several lanes and connections, few or many of them, more than a heap's chunk."""
    dice = random.Random(seed)
    life = Life(seed, clock=9, check_every=10**9)
    for _ in range(3):
        life.open()
    models = tuple(ModelConfig(model, guarantee=model, queue_cap=2500, weight=model + 1) for model in range(3))
    life.call("configure", 0, PartitionConfig(models, 5, queue_cap=2500, lease_max_ns=1 << 62))
    for _ in range(1100):
        life.number += 1
        due = dice.random() < share
        start_by = (1000 if due else 10**6) + dice.randrange(900)
        klass = dice.choice((0, 2, 2, 2)) if seed % 2 else 1
        life.call("acquire", dice.randrange(3), life.number, 0, dice.choice((0, 0, 0, 1, 2)), klass, start_by)
    before = len(life.waiting)
    life.now = 1450
    life.call("advance")
    life.cores[1]._check()
    life.now = 2000
    life.call("advance")
    life.cores[1]._check()
    assert abs((before - len(life.waiting)) / before - share) < 0.1
    assert life.cores[0].snapshot() == life.cores[1].snapshot()
    for _ in range(300):
        if life.leases:
            lease = dice.choice(sorted(life.leases))
            own = next(peer for peer, process in life.owners.items() if process == life.leases[lease])
            life.call("release", own, lease)
    life.cores[1]._check()


def test_renewal_while_somebody_reclaims():
    """Whoever is above its guarantee is refused, whoever is at it is not."""
    life = Life(1, clock=9, check_every=1)
    life.open()
    models = (ModelConfig(0, guarantee=1), ModelConfig(1), ModelConfig(2, guarantee=1))
    life.call("configure", 0, PartitionConfig(models, 2, queue_cap=10))
    ((*_, own, _, _, _, _),) = life.call("acquire", 0, 1, 0, 0)
    ((*_, excess, _, _, _, _),) = life.call("acquire", 0, 2, 0, 1)
    assert life.call("renew", 0, excess)[0][0] == Kind.RENEWED
    life.call("acquire", 0, 3, 0, 2)
    assert life.call("renew", 0, own)[0][0] == Kind.RENEWED
    assert life.call("renew", 0, excess) == [(Kind.REFUSED, 0, excess, Fault.RECLAIM)]


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_a_million_operations():
    calls = seed = 0
    while calls < 1_000_000:
        life = Life(seed, clock=3 + seed % 14, check_every=100)
        life.live(1500)
        calls += life.calls
        seed += 1
