"""Several cores given the same calls, their logs compared, and a monitor beside the first of them."""

from aimd.dispatch.face import SLOT_BITS, Class, Kind, Limits, Outcome, canonical
from tests.dispatch.monitor import Monitor

LIMITS = Limits(partitions=3, models=9, requests=130, leases=24, connections=6, requests_per_connection=30)
UNKNOWN = 99  # neither a partition nor a model


def refuses(call):
    try:
        call()
    except ValueError:
        return True
    return False


class Lockstep:
    """The first core is advanced before each call, the others are not: both must come to the same.

    `factories` are called as a core's class, with limits and the first generation.
    """

    def __init__(self, factories, limits=LIMITS):
        self.factories = factories
        self.limits = limits
        self.generation = 1
        self.cores = [factory(limits, 1) for factory in factories]
        self.monitor = Monitor(limits)
        self.configs = {}
        self.draining = {}
        self.ended = []  # some ids of leases that ended
        self.requests = 0
        self.processes = 0
        self.stepped = []  # snapshots that are being taken, of each core
        self.began = None  # what they must tell

    @property
    def now(self):
        return self.monitor.now

    @property
    def leases(self):
        return list(self.monitor.runs)

    @property
    def connections(self):
        return list(self.monitor.connections)

    def advance(self, now):
        """Advance the first core to `now`; the events are owed by the others."""
        self.monitor.time(now)
        events = self.cores[0].advance(now)
        self.note(events)
        self.monitor.settled()
        return events

    def note(self, events):
        ends = [event[1] for event in events if event[0] in (Kind.RELEASED, Kind.REVOKED, Kind.LOST)]
        self.ended = (self.ended + ends)[-16:]
        self.monitor.events(events)

    def call(self, name, now, *args, prepare=None, before=None):
        """One timed call on all cores; `prepare` tells the monitor, after what was due. Returns the call's events."""
        due = self.advance(now) if before is None else before
        self.monitor.time(now)
        prepared = prepare() if prepare is not None else None
        own = getattr(self.cores[0], name)(now, *args)
        if name == "acquire":
            self.check_arrival(own, *prepared)
        self.note(own)
        self.monitor.settled()
        for core in self.cores[1:]:
            theirs = canonical(getattr(core, name)(now, *args))
            assert canonical(due + own) == theirs, f"{type(core).__name__}: {name}{(now, *args)}"
        self.compare()
        return own

    def compare(self):
        snapshot = self.cores[0].snapshot()
        self.monitor.check_snapshot(snapshot)
        for core in self.cores[1:]:
            assert core.snapshot() == snapshot
            assert core.leases() == self.cores[0].leases()

    def check_arrival(self, own, wait, expected):
        mine = [event for event in own if tuple(event[1:3]) == (wait.connection, wait.request)]
        assert len(mine) == 1, "an acquire has one answer"
        kind = mine[0][0]
        told = Outcome.GRANTED if kind == Kind.GRANTED else Outcome(mine[0][3]) if kind == Kind.ENDED else None
        if expected is Outcome.SHED:  # another one's
            assert told is None, f"admission: {told} instead of shedding"
            shed = [event for event in own if event[0] == Kind.ENDED and event[3] == Outcome.SHED]
            assert len(shed) == len(own) - 1 == 1, "admission: one entry is shed for another"
        else:
            assert told == expected, f"admission: {told} instead of {expected}"
            assert len(own) == 1

    def refused(self, name, *args):
        """A call that all cores refuse with ValueError, without any effect."""
        for core in self.cores:
            try:
                getattr(core, name)(*args)
            except ValueError:
                continue
            raise AssertionError(f"{type(core).__name__} accepts {name}{args}")
        self.compare()

    # Moves: arguments are small integers that are taken modulo what there is.

    def move_advance(self, now):
        self.call("advance", now, before=[])

    def move_open(self, highest):
        process = self.processes = self.processes + 1
        return self.connect(process, highest)

    def move_open_again(self, index, highest):
        """Another connection of a process that is known, if only by a lease."""
        known = [process for process, _ in self.monitor.connections.values()]
        known += [run.process for run in self.monitor.runs.values()]
        return self.connect(known[index % len(known)], highest) if known else None

    def connect(self, process, highest=Class.HIGH):
        if len(self.connections) == self.limits.connections:
            self.refused("open", process, highest)
            return None
        opened = {core.open(process, highest) for core in self.cores}
        assert len(opened) == 1
        connection = opened.pop()
        self.monitor.opened(connection, process, highest)
        return connection

    def move_acquire(self, now, index, partition, model, klass, wait, no_wait=False):
        """An arrival with `wait` ns until start_by (negative: the budget of the configuration)."""
        connection = self.connections[index % len(self.connections)] if self.connections else self.move_open(0)
        self.requests += 1
        start_by = -1 if wait < 0 else now + wait
        args = (connection, self.requests, partition, model, klass, start_by, no_wait)
        return self.call("acquire", now, *args, prepare=lambda: self.monitor.arrive(*args))

    def move_release(self, now, index, ok):
        if self.leases:
            lease = self.leases[index % len(self.leases)]
            self.with_owner("release", now, lease, ok)

    def move_renew(self, now, index):
        if self.leases:
            self.with_owner("renew", now, self.leases[index % len(self.leases)])

    def with_owner(self, name, now, lease, *args):
        connection = self.owner(lease)
        if connection is not None:
            events = self.call(name, now, connection, lease, *args)
            assert events[0][0] in (Kind.RELEASED, Kind.RENEWED) or lease not in self.leases or name == "renew"

    def owner(self, lease):
        """A connection of the lease's process."""
        process = self.monitor.runs[lease].process
        for connection, (mine, _) in self.monitor.connections.items():
            if mine == process:
                return connection
        return self.connect(process)

    def move_stale(self, now, name, index):
        """Release, renew or adopt a lease that ended."""
        if self.ended and self.connections:
            connection = self.connections[index % len(self.connections)]
            lease = self.ended[index % len(self.ended)]
            events = self.call(name, now, connection, lease)
            assert events[0][0] == Kind.REFUSED

    def move_foreign(self, now, name, index):
        """Release, renew or adopt a lease, whoever has it."""
        if self.leases and self.connections:
            connection = self.connections[index % len(self.connections)]
            self.call(name, now, connection, self.leases[index % len(self.leases)])

    def move_cancel(self, now, index):
        waits = list(self.monitor.waits)
        if waits:
            self.cancel(now, *waits[index % len(waits)])
        elif self.connections:
            self.cancel(now, self.connections[0], self.requests + 1)

    def cancel(self, now, connection, request):
        def prepare():
            self.monitor.cancelling = (connection, request)
            return (connection, request) in self.monitor.waits

        events = self.call("cancel", now, connection, request, prepare=prepare)
        assert (connection, request) not in self.monitor.waits
        assert len(events) == 1

    def move_disconnect(self, now, index, alive):
        if self.connections:
            connection = self.connections[index % len(self.connections)]
            self.call(
                "disconnect", now, connection, alive, prepare=lambda: self.monitor.closed([connection], alive=alive)
            )

    def move_exited(self, now, index):
        known = [process for process, _ in self.monitor.connections.values()]
        known += [run.process for run in self.monitor.runs.values()]
        if known:
            process = known[index % len(known)]
            closing = [name for name, (mine, _) in self.monitor.connections.items() if mine == process]
            self.call("exited", now, process, prepare=lambda: self.monitor.closed(closing, process))

    def move_snapshot(self, blocks):
        """Begin a snapshot on all cores, or go on with it, or (with no blocks) begin another one before it is taken."""
        if not self.stepped or not blocks:
            earlier = self.stepped
            self.stepped = [core.begin_snapshot() for core in self.cores]
            self.began = self.cores[0].snapshot()
            for stepped in earlier:
                assert refuses(stepped.step)
                assert refuses(stepped.read)
            return
        more = [stepped.step(blocks) for stepped in self.stepped]
        for stepped, some in zip(self.stepped, more, strict=True):
            if some:
                assert refuses(stepped.read)
            else:
                assert stepped.read() == self.began, "a snapshot is of its beginning"
        if not any(more):
            self.stepped = []

    def move_wrong(self, now, index):
        """A call with a number out of its range, which nobody takes."""
        wrong = (-1, 1 << 63, 1 << 31, 0.0)[index % 4]
        if wrong == 1 << 31:
            self.refused("acquire", now, 0, 1, 0, wrong)
        elif wrong == -1:
            self.refused("cancel", now, 0, wrong)
        else:
            self.refused("advance", wrong)

    def move_configure(self, now, partition, config):
        """Whether the configuration was taken: all cores refuse it or none does."""
        self.call("advance", now, before=[])
        try:
            own = self.cores[0].configure(now, partition, config)
        except ValueError:
            self.refused("configure", now, partition, config)
            return False
        self.monitor.configured(partition, config)
        self.note(own)
        self.monitor.settled()
        for core in self.cores[1:]:
            assert canonical(core.configure(now, partition, config)) == canonical(own)
        self.configs[partition] = config
        self.compare()
        return True

    def move_remove(self, now, partition):
        if partition in self.configs:
            del self.configs[partition]
            self.call("remove_partition", now, partition, prepare=lambda: self.monitor.removed(partition))
        else:
            self.refused("remove_partition", now, partition)

    def move_drain(self, now, partition, draining):
        if partition not in self.configs:
            self.refused("drain" if draining else "undrain", now, partition)
            return

        def prepare():
            self.monitor.places[partition].draining = draining

        self.call("drain" if draining else "undrain", now, partition, prepare=prepare)

    def move_restart(self, now):
        """All cores are replaced by new ones that are configured alike and take over the leases."""
        self.call("advance", now, before=[])
        records = self.cores[0].leases()
        self.stepped = []
        self.generation = max([self.generation, *(lease >> SLOT_BITS for lease in self.monitor.used)]) + 1
        self.cores = [factory(self.limits, self.generation) for factory in self.factories]
        self.monitor = Monitor(self.limits)
        self.monitor.time(now)
        for partition, config in self.configs.items():
            self.move_configure(now, partition, config)
        self.call("restore", now, records, prepare=lambda: self.monitor.restored(records))
        if records:
            self.refused("restore", now, records)
        assert self.cores[0].leases() == records
