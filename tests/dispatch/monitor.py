"""Checks T1 to T7, the order within a lane, admission and the life of leases, from calls and event logs alone.

It knows the contract of `aimd.dispatch.face` and nothing of any core, so that it can stand beside each of them. Tell it
of a call before its events; every violation is an AssertionError that names the rule.
"""

from collections import Counter
from dataclasses import dataclass, field

from aimd.dispatch.face import DEFAULT, SLOT_BITS, Class, End, Fault, Kind, ModelConfig, Outcome, PartitionConfig

CREDITS = (0, 7, 15)  # by class: passes after which it is its turn


@dataclass(eq=False)
class Wait:
    connection: int
    request: int
    partition: int
    model: int
    klass: int
    start_by: int
    seq: int
    no_wait: bool

    @property
    def order(self):
        return (self.start_by, self.seq)


@dataclass(eq=False)
class Run:
    partition: int
    model: int
    process: int
    klass: int
    connection: int | None
    deadline: int
    lost_at: int | None = None


@dataclass(eq=False)
class Cell:
    """A model of a partition."""

    config: ModelConfig
    limit: int
    removed: bool = False
    lanes: tuple = field(default_factory=lambda: ({}, {}, {}))
    run: int = 0
    waited: list = field(default_factory=lambda: [0, 0, 0])
    acquires: Counter = field(default_factory=Counter)
    outcomes: Counter = field(default_factory=Counter)
    ends: Counter = field(default_factory=Counter)
    restored: Counter = field(default_factory=Counter)

    @property
    def classes(self):
        return [klass for klass in Class if self.lanes[klass]]

    def backlog(self):
        return sum(map(len, self.lanes))

    def eligible(self):
        return self.run < self.limit and any(self.lanes)

    def entitled(self):
        room = max(0, self.config.guarantee - self.run)
        if not room:
            return []
        waits = sorted((klass, *wait.order, wait) for klass in Class for wait in self.lanes[klass].values())
        return [wait for *_, wait in waits[:room]]

    def loose(self):
        entitled = self.entitled()
        return [wait for lane in self.lanes for wait in lane.values() if wait not in entitled]


@dataclass(eq=False)
class Place:
    config: PartitionConfig
    removed: bool = False
    draining: bool = False
    cells: dict = field(default_factory=dict)
    waited: list = field(default_factory=lambda: [0, 0, 0])
    races: dict = field(default_factory=dict)  # (class, f, h): difference of normalised service, its least, its most

    @property
    def run(self):
        return sum(cell.run for cell in self.cells.values())

    @property
    def capacity(self):
        return 0 if self.removed else self.config.capacity

    def eligible(self):
        return {name: cell for name, cell in self.cells.items() if cell.eligible()}

    def loose(self):
        return [wait for cell in self.cells.values() for wait in cell.loose()]


class Monitor:
    def __init__(self, limits):
        self.limits = limits
        self.now = 0
        self.seq = 0
        self.places = {}
        self.connections = {}  # id: (process, highest)
        self.waits = {}
        self.runs = {}
        self.used = set()
        self.unrouted = Counter()
        self.closing = set()  # connections that end in this call
        self.dead = None  # the process that ends in this call
        self.alive = False  # whether the process of a connection that ends in this call goes on
        self.cancelling = None  # the entry that is cancelled in this call

    # What was called.

    def time(self, now):
        self.now = now

    def opened(self, connection, process, highest):
        free = min(set(range(len(self.connections) + 1)) - set(self.connections))
        assert connection == free, "a connection is the lowest free index"
        self.connections[connection] = (process, highest)

    def arrive(self, connection, request, partition, model, klass, start_by, no_wait):
        place = self.places.get(partition)
        cell = place.cells.get(model) if place is not None else None
        known = cell is not None and not (place.removed or cell.removed)
        self.seq += 1
        if known:
            klass = cell.config.default_class if klass == DEFAULT else klass
            start_by = self.now + cell.config.budget_ns[klass] if start_by < 0 else start_by
            cell.acquires[klass] += 1
        wait = Wait(connection, request, partition, model, klass, start_by, self.seq, no_wait)
        expected = self.expected(wait, place, cell if known else None)
        self.waits[connection, request] = wait
        if known:
            cell.lanes[klass][connection, request] = wait
        return wait, expected

    def expected(self, wait, place, cell):
        """The outcome that section 4 prescribes; None for a wait, SHED for a wait that costs another one's."""
        if place is None or place.removed:
            return Outcome.UNKNOWN_PARTITION
        if cell is None:
            return Outcome.UNKNOWN_MODEL
        if wait.klass < self.connections[wait.connection][1]:
            return Outcome.UNAUTHORISED
        if place.draining:
            return Outcome.DRAINING
        if cell.config.denied:
            return Outcome.MEMORY_OVERRUN
        if wait.start_by <= self.now:
            return Outcome.DEADLINE_PASSED
        mine = sum(other.connection == wait.connection for other in self.waits.values())
        if mine >= self.limits.requests_per_connection:
            return Outcome.QUEUE_FULL_CONN
        if place.run < place.capacity and cell.run < cell.limit:
            return Outcome.GRANTED
        if wait.no_wait:
            return Outcome.WOULD_BLOCK
        if cell.backlog() >= cell.config.queue_cap:
            return Outcome.QUEUE_FULL_MODEL
        if len(self.waits) >= self.limits.requests:
            return Outcome.QUEUE_FULL_PARTITION
        return self.expected_at_cap(wait, place, cell)

    def expected_at_cap(self, wait, place, cell):
        loose = place.loose()
        ahead = sum((other.klass, *other.order) < (wait.klass, *wait.order) for other in cell_waits(cell))
        entitled = max(0, cell.config.guarantee - cell.run)
        if len(loose) < place.config.queue_cap or (ahead < entitled and cell.backlog() < entitled):
            return None
        if ahead < entitled:
            return Outcome.SHED
        lowest = max((other.klass for other in loose), default=Class.HIGH)
        return Outcome.SHED if wait.klass < lowest else Outcome.QUEUE_FULL_PARTITION

    def configured(self, partition, config):
        self.drop_records()
        place = self.places.setdefault(partition, Place(config))
        if place.removed:
            place.removed = place.draining = False
        place.config = config
        named = {model.model: model for model in config.models}
        for name, cell in place.cells.items():
            if name not in named:
                self.retire(cell)
        for name, model in named.items():
            limit = config.capacity if model.limit is None else model.limit
            cell = place.cells.setdefault(name, Cell(model, limit))
            if cell.config.weight != model.weight:
                place.races = {race: value for race, value in place.races.items() if name not in race[1:]}
            cell.config, cell.limit, cell.removed = model, limit, False
        self.watch_races(place)

    def retire(self, cell):
        cell.config, cell.limit, cell.removed = ModelConfig(cell.config.model), 0, True

    def removed(self, partition):
        self.drop_records()
        place = self.places[partition]
        place.removed = True
        for cell in place.cells.values():
            self.retire(cell)

    def drop_records(self):
        for name, place in list(self.places.items()):
            place.cells = {key: cell for key, cell in place.cells.items() if cell.run or not cell.removed}
            if place.removed and not place.cells:
                del self.places[name]

    def closed(self, connections, process=None, alive=False):
        """These connections end with this call; with a process: because it ended."""
        self.closing, self.dead, self.alive = set(connections), process, alive
        for connection in self.closing:
            del self.connections[connection]

    def restored(self, records):
        for record in records:
            place = self.places.setdefault(record.partition, Place(PartitionConfig(), removed=True))
            cell = place.cells.setdefault(record.model, Cell(ModelConfig(record.model), limit=0, removed=True))
            lost_at = self.now + place.config.orphan_grace_ns
            self.runs[record.lease] = Run(
                record.partition, record.model, record.process, record.klass, None, record.deadline, lost_at
            )
            self.used.add(record.lease)
            cell.run += 1
            cell.restored[record.klass] += 1

    # What happened.

    def events(self, events):
        for event in events:
            kind, *fields = event
            getattr(self, "on_" + Kind(kind).name.lower())(*fields)
            for place in self.places.values():
                self.watch_races(place)

    def on_queued(self, connection, request):
        wait = self.waits[connection, request]
        place = self.places[wait.partition]
        assert not (place.run < place.capacity and place.cells[wait.model].eligible()), "T2: a queued arrival could run"

    def on_granted(self, connection, request, lease, partition, model, klass, green):
        wait = self.waits[connection, request]
        place = self.places[partition]
        cell = place.cells[model]
        assert (wait.partition, wait.model, wait.klass) == (partition, model, klass), "granted what was not asked for"
        assert wait.start_by > self.now, "T6: granted at or after start_by"
        assert place.run < place.capacity, "T1: no free slot"
        assert cell.run < cell.limit, "T1: model at its limit"
        assert wait is min(cell.lanes[klass].values(), key=lambda other: other.order), "EDF: not the head of its lane"
        eligible = place.eligible()
        below = [other for other in eligible.values() if other.run < other.config.guarantee]
        assert green == bool(below), "T3: excess granted while a backlogged model is below its guarantee"
        if green:
            self.check_green(cell, below)
            self.check_credit(cell.classes, cell.waited, klass)
        else:
            classes = sorted({lane for other in eligible.values() for lane in other.classes})
            self.check_credit(classes, place.waited, klass)
            self.check_race(place, model, klass)
        self.leave(wait)
        self.check_new_lease(lease)
        process = self.connections[connection][0]
        deadline = self.now + place.config.lease_max_ns
        self.runs[lease] = Run(partition, model, process, klass, connection, deadline)
        cell.run += 1
        cell.outcomes[klass, Outcome.GRANTED] += 1

    def check_green(self, cell, below):
        assert cell.run < cell.config.guarantee, "T3: green grant of a model that has its guarantee"

        def urgency(other):
            first = other.classes[0]
            share = (other.config.guarantee - other.run) / other.config.guarantee
            return first, -share, min(wait.order for wait in other.lanes[first].values())

        assert cell is min(below, key=urgency), "guarantees: another model comes first"

    def check_credit(self, classes, waited, klass):
        due = (lane for lane in (2, 1) if lane in classes and waited[lane] >= CREDITS[lane])
        early = 2 in classes and waited[2] == 14 and waited[1] == 8  # see the contract
        turn = next(due, 2 if early else classes[0])
        for lane in classes:
            waited[lane] = 0 if lane == klass else waited[lane] + 1
        assert waited[2] <= 15, "T4: LOW passed over more than 15 times"
        assert waited[1] <= 8, "T4: MEDIUM passed over more than 8 times"
        assert klass == turn, "credit: another class's turn"

    def check_race(self, place, model, klass):
        for (lane, first, second), race in place.races.items():
            if lane != klass or model not in (first, second):
                continue
            f, h = place.cells[first].config.weight, place.cells[second].config.weight
            race[0] += h if model == first else -f  # n_f/w_f - n_h/w_h, times both weights
            race[1], race[2] = min(race[0], race[1]), max(race[0], race[2])
            assert race[2] - race[1] <= f + h, "T5: unfair"

    def watch_races(self, place):
        """Races are run while both models are eligible in a class without a break."""
        races = {}
        for klass in Class:
            names = [name for name, cell in place.cells.items() if cell.run < cell.limit and cell.lanes[klass]]
            for index, first in enumerate(names):
                for second in names[index + 1 :]:
                    key = (klass, *sorted((first, second)))
                    races[key] = place.races.get(key) or [0, 0, 0]
        place.races = races

    def check_new_lease(self, lease):
        slot = lease & ((1 << SLOT_BITS) - 1)
        taken = {other & ((1 << SLOT_BITS) - 1) for other in self.runs}
        assert slot == min(set(range(len(taken) + 1)) - taken), "leases: not the lowest free slot"
        assert lease not in self.used, "leases: an id returned"
        assert all(lease > other for other in self.used if (other ^ lease) & ((1 << SLOT_BITS) - 1) == 0)
        self.used.add(lease)

    def leave(self, wait):
        key = (wait.connection, wait.request)
        del self.waits[key]
        place = self.places.get(wait.partition)
        cell = place.cells.get(wait.model) if place is not None else None
        if cell is None or cell.lanes[wait.klass].pop(key, None) is None:
            return
        if not cell.lanes[wait.klass]:
            cell.waited[wait.klass] = 0
        if not any(other.lanes[wait.klass] for other in place.cells.values()):
            place.waited[wait.klass] = 0

    def on_ended(self, connection, request, outcome):
        outcome = Outcome(outcome)
        wait = self.waits[connection, request]
        if outcome is Outcome.EXPIRED:
            assert wait.start_by <= self.now, "T6: expired before start_by"
        if outcome is Outcome.SHED:
            self.check_shed(wait)
        if outcome is Outcome.CANCELLED:
            assert connection in self.closing or (connection, request) == self.cancelling, "cancelled by nobody"
        self.leave(wait)
        if outcome in (Outcome.UNKNOWN_PARTITION, Outcome.UNKNOWN_MODEL):
            self.unrouted[outcome] += 1
        else:
            self.places[wait.partition].cells[wait.model].outcomes[wait.klass, outcome] += 1

    def check_shed(self, wait):
        place = self.places[wait.partition]
        loose = place.loose()
        assert wait in loose, "admission: an entitled entry was shed"
        lowest = max(other.klass for other in loose)
        assert wait.klass == lowest, "admission: shed above the lowest class"
        counts = Counter(other.model for other in loose if other.klass == lowest)
        model = min(counts, key=lambda name: (-counts[name], name))
        newest = max((other for other in loose if other.klass == lowest and other.model == model), key=lambda o: o.seq)
        assert wait is newest, "admission: shed not the newest of the model with the most"

    def running(self, lease):
        assert lease in self.runs, "leases: an event of one that has ended"
        return self.runs[lease]

    def end_lease(self, lease, end):
        run = self.running(lease)
        del self.runs[lease]
        cell = self.places[run.partition].cells[run.model]
        cell.run -= 1
        cell.ends[run.klass, end] += 1
        return run

    def on_released(self, lease, ok):
        self.end_lease(lease, End.OK if ok else End.FAILED)

    def on_revoked(self, lease):
        assert self.end_lease(lease, End.REVOKED).deadline <= self.now, "leases: revoked before its deadline"

    def on_lost(self, lease):
        run = self.end_lease(lease, End.LOST)
        due = run.lost_at is not None and run.lost_at <= self.now
        assert due or run.connection in self.closing or run.process == self.dead, "leases: lost too early"

    def on_renewed(self, lease, deadline):
        run = self.running(lease)
        assert not self.reclaims(run), "leases: renewed against a reclaim"
        assert deadline == self.now + self.places[run.partition].config.lease_max_ns
        run.deadline = deadline

    def reclaims(self, run):
        cells = self.places[run.partition].cells
        starved = any(cell.entitled() for cell in cells.values())
        return starved and cells[run.model].run > cells[run.model].config.guarantee

    def on_orphaned(self, lease, lost_at):
        run = self.running(lease)
        assert self.alive, "leases: the orphan of a dead process"
        assert run.connection in self.closing, "leases: an orphan with a connection"
        assert lost_at == self.now + self.places[run.partition].config.orphan_grace_ns
        run.connection, run.lost_at = None, lost_at

    def on_adopted(self, connection, lease):
        run = self.running(lease)
        assert run.process == self.connections[connection][0], "leases: adopted by another process"
        run.connection, run.lost_at = connection, None

    def on_refused(self, connection, number, fault):
        run = self.runs.get(number)
        if fault == Fault.NOT_OWNER:
            assert run.process != self.connections[connection][0], "leases: the owner was refused"
        elif fault == Fault.RECLAIM:
            assert self.reclaims(run), "leases: renewal refused without need"

    # What holds after each call.

    def settled(self):
        if self.dead is not None:
            assert all(run.process != self.dead for run in self.runs.values()), "leases: leaked by a process"
        self.closing, self.dead, self.alive, self.cancelling = set(), None, False, None
        assert all(wait.start_by > self.now for wait in self.waits.values()), "T6: an entry outlived start_by"
        for run in self.runs.values():
            assert run.deadline > self.now, "leases: one outlived its deadline"
            assert run.lost_at is None or run.lost_at > self.now, "leases: an orphan outlived its grace"
            assert run.connection is None or run.connection in self.connections, "leases: leaked by a disconnect"
        for wait in self.waits.values():
            assert wait.connection in self.connections, "a disconnect left an entry"
        for place in self.places.values():
            self.check_place(place)

    def check_place(self, place):
        assert place.run >= place.capacity or not place.eligible(), "T2: a slot is free and a model could run"
        assert not any(cell.removed and any(cell.lanes) for cell in place.cells.values()), "an entry outlived its model"
        if any(cell.entitled() for cell in place.cells.values()):
            excess = any(cell.run > cell.config.guarantee for cell in place.cells.values())
            assert excess, "T3: below the guarantee while nobody holds excess"

    def check_snapshot(self, snapshot):
        """T7, and that the core's counters tell what its events told."""
        assert {place.partition for place in snapshot.partitions} == set(self.places)
        assert snapshot.connections == len(self.connections)
        assert snapshot.unrouted == tuple(self.unrouted[outcome] for outcome in Outcome)
        for told in snapshot.partitions:
            place = self.places[told.partition]
            assert (told.removed, told.draining) == (place.removed, place.draining)
            assert (told.capacity, told.running) == (place.capacity, place.run)
            assert {model.model for model in told.models} == set(place.cells)
            for model in told.models:
                self.check_model(model, place.cells[model.model])

    def check_model(self, told, cell):
        for klass in Class:
            outcomes, ends = told.outcomes[klass], told.ends[klass]
            assert told.waiting[klass] == len(cell.lanes[klass])
            assert outcomes == tuple(cell.outcomes[klass, outcome] for outcome in Outcome), "T7: outcomes"
            assert ends == tuple(cell.ends[klass, end] for end in End), "T7: ends of leases"
            assert cell.acquires[klass] == sum(outcomes) + told.waiting[klass], "T7: acquires"
            grants = outcomes[Outcome.GRANTED] + told.restored[klass]
            assert grants == sum(ends) + told.running[klass], "T7: grants"
        assert sum(told.running) == cell.run
        assert told.restored == tuple(cell.restored[klass] for klass in Class)


def cell_waits(cell):
    return [wait for lane in cell.lanes for wait in lane.values()]
