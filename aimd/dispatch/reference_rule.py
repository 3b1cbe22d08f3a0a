"""The rule of the executable specification: who is granted next, and how entries and leases end."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

from aimd.dispatch.bounds import check_limits, later
from aimd.dispatch.face import (
    BAD_OUTCOMES,
    LOW_CREDIT,
    MEDIUM_CREDIT,
    SLOT_BITS,
    TAG_SCALE,
    Class,
    End,
    Event,
    Kind,
    Limits,
    Outcome,
)
from aimd.dispatch.reference_state import Connection, Entry, Lease, Model, Partition, TakenSnapshot

SLOT_MASK = (1 << SLOT_BITS) - 1


class Rule:
    """State of a core and what moves it; `Reference` adds the calls."""

    def __init__(self, limits: Limits | None = None, generation: int = 1) -> None:
        self.limits = Limits() if limits is None else limits
        check_limits(self.limits, generation)
        self.now = 0
        self.seq = 0
        self.log: list[Event] = []
        self.partitions: dict[int, Partition] = {}
        self.connections: dict[int, Connection] = {}
        self.waiting: dict[tuple[int, int], Entry] = {}
        self.running: dict[int, Lease] = {}
        self.begun = False  # a lease has begun, granted or restored
        self.generations = [generation] * self.limits.leases
        self.unrouted = [0] * len(Outcome)
        self.stepped: TakenSnapshot | None = None

    # The rule of grants.

    def eligible(self, partition: Partition) -> list[Model]:
        return [model for model in partition.models.values() if model.classes and model.run < model.limit]

    def green(self, eligible: list[Model]) -> list[Model]:
        return [model for model in eligible if model.run < model.config.guarantee]

    def credit(self, lanes: Sequence[int], waited: list[int]) -> int:
        """The class that is served next, of these (the highest first)."""
        chosen = lanes[0]
        if Class.LOW in lanes and waited[Class.LOW] >= LOW_CREDIT:
            chosen = Class.LOW
        elif Class.MEDIUM in lanes and waited[Class.MEDIUM] >= MEDIUM_CREDIT:
            chosen = Class.MEDIUM
        elif Class.LOW in lanes and waited[Class.LOW] == LOW_CREDIT - 1 and waited[Class.MEDIUM] > MEDIUM_CREDIT:
            chosen = Class.LOW  # MEDIUM, passed over while due, must not find LOW due when it comes back
        for klass in lanes:
            waited[klass] = 0 if klass == chosen else waited[klass] + 1
        return chosen

    def urgency(self, model: Model) -> tuple[int, float, int, int]:
        # Exact: two different quotients of integers below 2**26 differ as floats, too.
        share = (model.config.guarantee - model.run) / model.config.guarantee
        return model.classes[0], -share, *model.lanes[model.classes[0]][0].order

    def tag(self, partition: Partition, model: Model, klass: int) -> int:
        return max(model.tags[klass], partition.tags[klass])

    def grant_all(self) -> None:
        for partition in sorted(self.partitions.values(), key=lambda partition: partition.id):
            while self.grant_next(partition):
                pass

    def grant_next(self, partition: Partition) -> bool:
        eligible = self.eligible(partition)
        if not eligible or partition.run >= partition.capacity:
            return False
        green = self.green(eligible)
        if green:
            model = min(green, key=self.urgency)
            klass = self.credit(model.classes, model.waited)
        else:
            klass = self.credit(sorted({klass for model in eligible for klass in model.classes}), partition.waited)
            model = self.least_tag(partition, klass, [model for model in eligible if model.lanes[klass]])
        self.grant(model.lanes[klass][0], bool(green))
        return True

    def least_tag(self, partition: Partition, klass: int, models: list[Model]) -> Model:
        model = min(models, key=lambda model: (self.tag(partition, model, klass), *model.lanes[klass][0].order))
        partition.tags[klass] = self.tag(partition, model, klass)
        step, model.carry[klass] = divmod(TAG_SCALE + model.carry[klass], model.config.weight)
        model.tags[klass] = partition.tags[klass] + step
        return model

    def grant(self, entry: Entry, green: bool) -> None:
        self.forget(entry)
        slot = next(slot for slot in range(self.limits.leases) if slot not in self.running)
        lease = self.generations[slot] << SLOT_BITS | slot
        partition, model, klass, connection = entry.partition, entry.model, entry.klass, entry.connection
        process, deadline = self.connections[connection].process, later(self.now, partition.config.lease_max_ns)
        self.begun = True
        self.running[slot] = Lease(
            lease, partition, model, klass, process, connection, entry.submitted, self.now, deadline
        )
        model.running[klass] += 1
        model.outcomes[klass][Outcome.GRANTED] += 1
        self.tell(Kind.GRANTED, connection, entry.request, lease, partition.id, model.config.model, klass, green)

    # Admission.

    def refusal(self, entry: Entry, no_wait: bool) -> Outcome | None:
        """Why the arrival ends at once, if not for the partition's cap."""
        place, what = entry.partition, entry.model
        if entry.klass < self.connections[entry.connection].highest:
            return Outcome.UNAUTHORISED
        if place.draining:
            return Outcome.DRAINING
        if what.config.denied:
            return Outcome.MEMORY_OVERRUN
        if entry.start_by <= self.now:
            return Outcome.DEADLINE_PASSED
        if sum(other.connection == entry.connection for other in self.waiting.values()) >= (
            self.limits.requests_per_connection
        ):
            return Outcome.QUEUE_FULL_CONN
        if place.run < place.capacity and what.run < what.limit:
            return None
        if no_wait:
            return Outcome.WOULD_BLOCK
        if sum(map(len, what.lanes)) >= what.config.queue_cap:
            return Outcome.QUEUE_FULL_MODEL
        return Outcome.QUEUE_FULL_PARTITION if len(self.waiting) >= self.limits.requests else None

    def enqueue(self, entry: Entry) -> None:
        self.waiting[entry.connection, entry.request] = entry
        insort(entry.model.lanes[entry.klass], entry, key=lambda entry: entry.order)

    def wait(self, entry: Entry) -> None:
        """Let the arrival wait, if need be in the place of another one."""
        before = entry.partition.loose()
        self.enqueue(entry)
        loose = entry.partition.loose()
        if len(loose) > len(before) >= entry.partition.config.queue_cap:
            if entry in loose and entry.klass >= max((other.klass for other in before), default=Class.HIGH):
                self.end(entry, Outcome.QUEUE_FULL_PARTITION)
                return
            self.shed(entry.partition, max(other.klass for other in loose))
        self.tell(Kind.QUEUED, entry.connection, entry.request)

    def shed(self, partition: Partition, klass: int) -> None:
        loose = [(name, model.loose(klass)) for name, model in partition.models.items()]
        _, victims = min(loose, key=lambda pair: (-len(pair[1]), pair[0]))
        self.end(max(victims, key=lambda entry: entry.seq), Outcome.SHED)

    def refuse_unrouted(self, connection: int, request: int, outcome: Outcome) -> list[Event]:
        self.unrouted[outcome] += 1
        self.tell(Kind.ENDED, connection, request, outcome)
        return self.log

    # The ends of entries and leases.

    def tell(self, *event: int) -> None:
        self.log.append(tuple(int(number) for number in event))

    def forget(self, entry: Entry) -> None:
        """Take the entry out of its lane."""
        del self.waiting[entry.connection, entry.request]
        entry.model.lanes[entry.klass].remove(entry)
        if not entry.model.lanes[entry.klass]:
            entry.model.waited[entry.klass] = 0
        if not entry.partition.entries(entry.klass):
            entry.partition.waited[entry.klass] = 0

    def end(self, entry: Entry, outcome: Outcome) -> None:
        if (entry.connection, entry.request) in self.waiting:
            self.forget(entry)
        entry.model.outcomes[entry.klass][outcome] += 1
        entry.model.bad[entry.klass] += outcome in BAD_OUTCOMES
        self.tell(Kind.ENDED, entry.connection, entry.request, outcome)

    def finish(self, lease: Lease, end: End) -> None:
        slot = lease.id & SLOT_MASK
        del self.running[slot]
        self.generations[slot] += 1
        model, klass = lease.model, lease.klass
        model.running[klass] -= 1
        model.ends[klass][end] += 1
        target = model.config.latency_target_ns
        good = end is End.OK and (not target or self.now - lease.submitted <= target)
        model.good[klass] += good
        model.bad[klass] += not good
        if end in (End.OK, End.FAILED):
            self.tell(Kind.RELEASED, lease.id, end is End.OK)
        else:
            self.tell(Kind.REVOKED if end is End.REVOKED else Kind.LOST, lease.id)

    def to(self, now: int) -> None:
        """Let the time pass: begin a new log with what is due."""
        self.count_time(now - self.now)
        self.now, self.log = now, []
        for lease in list(self.running.values()):
            if lease.deadline <= now:
                self.finish(lease, End.REVOKED)
            elif lease.lost_at is not None and lease.lost_at <= now:
                self.finish(lease, End.LOST)
        self.expire()
        self.grant_all()

    def expire(self) -> None:
        for entry in [entry for entry in self.waiting.values() if entry.start_by <= self.now]:
            self.end(entry, Outcome.EXPIRED)

    def count_time(self, elapsed: int) -> None:
        for model in [model for partition in self.partitions.values() for model in partition.models.values()]:
            model.running_ns += elapsed * model.run
            model.backlog_ns += elapsed * bool(model.classes)
            colour = 2 if model.run >= model.limit else 0 if model.run < model.config.guarantee else 1
            model.colour_ns[colour] += elapsed
