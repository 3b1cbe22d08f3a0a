"""Deliberate faults: variants of the reference that are wrong in one point each. The checks must catch all of them."""

from bisect import insort

from aimd.dispatch.face import SLOT_BITS, TAG_SCALE, Class, Outcome
from aimd.dispatch.reference import Reference
from tests.dispatch.player import play, play_comebacks, play_rivals, play_saturated


class Eager(Reference):
    """No fault: `max(v, V)` when a model begins to compete, as dispatch.md words it, not at the choice."""

    def __init__(self, *args):
        super().__init__(*args)
        self.red = set()

    def tag(self, partition, model, klass):
        return model.tags[klass]

    def catch_up(self, partition, model, klass):
        model.tags[klass] = max(model.tags[klass], partition.tags[klass])

    def lane_begins(self, entry):
        self.catch_up(entry.partition, entry.model, entry.klass)

    def leaves_red(self, partition, model):
        for klass in Class:
            self.catch_up(partition, model, klass)

    def enqueue(self, entry):
        if not entry.model.lanes[entry.klass]:
            self.lane_begins(entry)
        super().enqueue(entry)

    def grant_all(self):
        for partition in self.partitions.values():
            for model in partition.models.values():
                if model in self.red and model.run < model.limit:
                    self.leaves_red(partition, model)
        self.note_red()
        super().grant_all()

    def grant(self, entry, green):
        super().grant(entry, green)
        self.note_red()

    def note_red(self):
        models = [model for partition in self.partitions.values() for model in partition.models.values()]
        self.red = {model for model in models if model.run >= model.limit}


class BanksIdleTime(Eager):
    def lane_begins(self, entry):
        pass


class BanksRedTime(Eager):
    def leaves_red(self, partition, model):
        pass


class DropsGreenTier(Reference):
    def green(self, eligible):
        return []


class IgnoresLimits(Reference):
    def eligible(self, partition):
        return [model for model in partition.models.values() if model.classes]


class ServesFirstComeFirst(Reference):
    """FIFO instead of EDF."""

    def enqueue(self, entry):
        self.waiting[entry.connection, entry.request] = entry
        insort(entry.model.lanes[entry.klass], entry, key=lambda entry: entry.seq)


class CreditOneLate(Reference):
    def credit(self, lanes, waited):
        lent = [max(0, passes - 1) for passes in waited]
        chosen = super().credit(lanes, lent)
        for klass in lanes:
            waited[klass] = 0 if klass == chosen else waited[klass] + 1
        return chosen


class CreditOneEarly(Reference):
    def credit(self, lanes, waited):
        chosen = super().credit(lanes, [passes + 1 for passes in waited])
        for klass in lanes:
            waited[klass] = 0 if klass == chosen else waited[klass] + 1
        return chosen


class CreditDueTogether(Reference):
    """LOW and MEDIUM may both be due: MEDIUM can be made to find LOW due whenever it comes back."""

    def credit(self, lanes, waited):
        seen = list(waited)
        seen[1] = min(seen[1], 7)
        chosen = super().credit(lanes, seen)
        for klass in lanes:
            waited[klass] = 0 if klass == chosen else waited[klass] + 1
        return chosen


class CreditModulo16(Reference):
    """The sixteenth grant is LOW's, each eighth MEDIUM's, if they are there at that moment."""

    def __init__(self, *args):
        super().__init__(*args)
        self.count = 0

    def credit(self, lanes, waited):
        self.count += 1
        if self.count % 16 == 0 and Class.LOW in lanes:
            return Class.LOW
        return Class.MEDIUM if self.count % 8 == 0 and Class.MEDIUM in lanes else lanes[0]


class CreditOutlivesTheLane(Reference):
    """A class keeps its passes although its last entry has left."""

    def forget(self, entry):
        waited = list(entry.partition.waited)
        super().forget(entry)
        entry.partition.waited[:] = waited


class GuaranteesByClassAlone(Reference):
    """No credit within the guarantee of a model."""

    def credit(self, lanes, waited):
        chosen = super().credit(lanes, waited)
        within_a_model = any(
            model.waited is waited for place in self.partitions.values() for model in place.models.values()
        )
        return lanes[0] if within_a_model else chosen


class ForgetsWeightRule(Reference):
    def __init__(self, *args):
        super().__init__(*args)
        self.old = {}

    def configure(self, now, partition, config):
        self.advance(now)
        place = self.partitions.get(partition)
        old = {} if place is None else {model: list(model.tags) for model in place.models.values()}
        self.old = {model: tags for model, tags in old.items() if not model.removed}
        return super().configure(now, partition, config)

    def grant_all(self):
        for model, tags in self.old.items():
            model.tags = list(tags)
        super().grant_all()

    def acquire(self, *args):
        self.old = {}
        return super().acquire(*args)

    def release(self, *args, **keywords):
        self.old = {}
        return super().release(*args, **keywords)


class IgnoresWeights(Reference):
    def least_tag(self, partition, klass, models):
        model = super().least_tag(partition, klass, models)
        model.tags[klass] = partition.tags[klass] + TAG_SCALE
        return model


class RoundsTags(Reference):
    """Steps of `floor(2**20 / weight)`: the remainders add up."""

    def least_tag(self, partition, klass, models):
        model = super().least_tag(partition, klass, models)
        model.tags[klass] = partition.tags[klass] + (1 << 20) // model.config.weight
        return model


class ForgetsExpiry(Reference):
    def expire(self):
        pass


class ExpiresOneLate(Reference):
    def expire(self):
        for entry in [entry for entry in self.waiting.values() if entry.start_by < self.now]:
            self.end(entry, Outcome.EXPIRED)


class ReleasesTwice(Reference):
    """The generation is not looked at: a second release ends whoever has the slot now."""

    def owned(self, connection, lease):
        slot = lease & ((1 << SLOT_BITS) - 1)
        return self.running.get(slot) or super().owned(connection, lease)


class ReusesLeaseIds(Reference):
    def finish(self, lease, end):
        super().finish(lease, end)
        self.generations[lease.id & ((1 << SLOT_BITS) - 1)] -= 1


class LeaksOnDisconnect(Reference):
    def disconnect(self, now, connection, alive):
        self.check(now, connection)
        self.to(now)
        self.close(connection)
        return self.log


class LeaksOnDeath(Reference):
    """A dead process's leases wait for the grace as if it were alive."""

    def disconnect(self, now, connection, alive):
        return super().disconnect(now, connection, alive=True)


class ForgetsOrphanGrace(Reference):
    def adopt(self, now, connection, lease):
        events = super().adopt(now, connection, lease)
        for other in self.running.values():
            if other.id == lease and other.connection == connection:
                other.lost_at = now + other.partition.config.orphan_grace_ns
        return events


class ShedsEntitled(Reference):
    def shed(self, partition, klass):
        models = sorted(partition.models.items(), key=lambda pair: (-len(pair[1].lanes[klass]), pair[0]))
        self.end(max(models[0][1].lanes[klass], key=lambda entry: entry.seq), Outcome.SHED)


class ShedsOldest(Reference):
    def shed(self, partition, klass):
        loose = [(name, model.loose(klass)) for name, model in partition.models.items()]
        _, victims = min(loose, key=lambda pair: (-len(pair[1]), pair[0]))
        self.end(min(victims, key=lambda entry: entry.seq), Outcome.SHED)


class RefusesEntitled(Reference):
    def wait(self, entry):
        if len(entry.partition.loose()) >= entry.partition.config.queue_cap:
            self.end(entry, Outcome.QUEUE_FULL_PARTITION)
        else:
            super().wait(entry)


class ForgetsToLoop(Reference):
    """What time frees is granted to nobody before the next event."""

    def to(self, now):
        self.passing = True
        super().to(now)
        self.passing = False

    def grant_all(self):
        if not self.passing:
            super().grant_all()


class RenewsAgainstReclaim(Reference):
    def renew(self, now, connection, lease):
        self.check(now, connection)
        self.to(now)
        found = self.owned(connection, lease)
        if found is not None:
            found.deadline = now + found.partition.config.lease_max_ns
            self.tell(6, lease, found.deadline)
        return self.log


class CountsCancelledTwice(Reference):
    def cancel(self, now, connection, request):
        entry = self.waiting.get((connection, request))
        events = super().cancel(now, connection, request)
        if entry is not None:
            entry.model.outcomes[entry.klass][Outcome.CANCELLED] += 1
        return events


class OverfillsPartition(Reference):
    """One more than the capacity when nothing else waits."""

    def grant_next(self, partition):
        if len(self.eligible(partition)) == 1 and partition.run == partition.capacity and not partition.removed:
            model = self.eligible(partition)[0]
            self.grant(model.lanes[model.classes[0]][0], green=model.run < model.config.guarantee)
            return True
        return super().grant_next(partition)


# Each with the lives in which it is looked for.
FAULTS = {
    DropsGreenTier: play,
    IgnoresLimits: play,
    ServesFirstComeFirst: play,
    CreditOneLate: play_saturated,
    CreditOneEarly: play_saturated,
    CreditDueTogether: play_comebacks,
    CreditModulo16: play_saturated,
    CreditOutlivesTheLane: play_saturated,
    GuaranteesByClassAlone: play_saturated,
    BanksIdleTime: play_rivals,
    BanksRedTime: play_rivals,
    ForgetsWeightRule: play_rivals,
    IgnoresWeights: play_rivals,
    RoundsTags: play_rivals,
    ForgetsExpiry: play,
    ExpiresOneLate: play,
    ReleasesTwice: play,
    ReusesLeaseIds: play,
    LeaksOnDisconnect: play,
    LeaksOnDeath: play,
    ForgetsOrphanGrace: play,
    ShedsEntitled: play,
    ShedsOldest: play,
    RefusesEntitled: play,
    ForgetsToLoop: play,
    RenewsAgainstReclaim: play,
    CountsCancelledTwice: play,
    OverfillsPartition: play,
}
