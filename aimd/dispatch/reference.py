"""The executable specification of a dispatch core (contract: `aimd.dispatch.face`), as short as it can be.

Tests compare the native core with it. It is no fallback: it scans where the native core has an index, and a daemon
without the native core refuses to start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aimd.dispatch.bounds import check_numbers, later
from aimd.dispatch.face import (
    DEFAULT,
    SLOT_BITS,
    Class,
    CoreSnapshot,
    End,
    Event,
    Fault,
    Kind,
    LeaseRecord,
    ModelConfig,
    Outcome,
    PartitionConfig,
)
from aimd.dispatch.policy import check_partition, check_record
from aimd.dispatch.reference_rule import SLOT_MASK, Rule
from aimd.dispatch.reference_state import Connection, Entry, Lease, Model, Partition, TakenSnapshot


class Reference(Rule):
    """A dispatch core in plain Python; implements `aimd.dispatch.face.DispatchCore`."""

    def check(self, now: int, *connections: int, **numbers: int) -> None:
        """Raises ValueError for a number out of its range, a time before that of the last call, no such connection."""
        check_numbers(now=now)
        for connection in connections:
            check_numbers(connection=connection)
        check_numbers(**numbers)
        if now < self.now:
            raise ValueError(f"time {now} ns lies before {self.now} ns, the time of an earlier call")
        if not self.connections.keys() >= set(connections):
            raise ValueError(f"connection {connections[0]} is not open")

    def advance(self, now: int) -> list[Event]:
        self.check(now)
        self.to(now)
        return self.log

    def open(self, process: int, highest: int = Class.HIGH) -> int:
        check_numbers(process=process, highest=highest)
        free = (index for index in range(self.limits.connections) if index not in self.connections)
        connection = next(free, None)
        if connection is None:
            raise ValueError(f"all {self.limits.connections} connections are open")
        self.connections[connection] = Connection(process, Class(highest))
        return connection

    def acquire(
        self,
        now: int,
        connection: int,
        request: int,
        partition: int,
        model: int,
        klass: int = DEFAULT,
        start_by: int = DEFAULT,
        no_wait: bool = False,
    ) -> list[Event]:
        numbers = {"request": request, "partition": partition, "model": model, "klass": klass}
        self.check(now, connection, **numbers, start_by=start_by, no_wait=no_wait)
        if (connection, request) in self.waiting:
            raise ValueError(f"request {request} of connection {connection} waits already")
        self.to(now)
        place = self.partitions.get(partition)
        if place is None or place.removed:
            return self.refuse_unrouted(connection, request, Outcome.UNKNOWN_PARTITION)
        what = place.models.get(model)
        if what is None or what.removed:
            return self.refuse_unrouted(connection, request, Outcome.UNKNOWN_MODEL)
        klass = what.config.default_class if klass == DEFAULT else klass
        start_by = later(now, what.config.budget_ns[klass]) if start_by < 0 else start_by
        self.seq += 1
        entry = Entry(connection, request, place, what, klass, start_by, self.seq, now)
        outcome = self.refusal(entry, no_wait)
        if outcome is not None:
            self.end(entry, outcome)
        elif place.run < place.capacity and what.run < what.limit:
            self.enqueue(entry)
            self.grant_all()
        else:
            self.wait(entry)
        return self.log

    def owned(self, connection: int, lease: int) -> Lease | None:
        """The lease, if it runs and is of the connection's process; else this is said."""
        found = self.running.get(lease & SLOT_MASK)
        if found is not None and found.id == lease and found.process == self.connections[connection].process:
            return found
        stale = found is None or found.id != lease
        self.tell(Kind.REFUSED, connection, lease, Fault.STALE_LEASE if stale else Fault.NOT_OWNER)
        return None

    def release(self, now: int, connection: int, lease: int, ok: bool = True) -> list[Event]:
        self.check(now, connection, lease=lease, ok=ok)
        self.to(now)
        found = self.owned(connection, lease)
        if found is not None:
            self.finish(found, End.OK if ok else End.FAILED)
            self.grant_all()
        return self.log

    def renew(self, now: int, connection: int, lease: int) -> list[Event]:
        self.check(now, connection, lease=lease)
        self.to(now)
        found = self.owned(connection, lease)
        if found is None:
            return self.log
        starved = any(model.entitled() for model in found.partition.models.values())
        if starved and found.model.run > found.model.config.guarantee:
            self.tell(Kind.REFUSED, connection, lease, Fault.RECLAIM)
        else:
            found.deadline = later(now, found.partition.config.lease_max_ns)
            self.tell(Kind.RENEWED, lease, found.deadline)
        return self.log

    def cancel(self, now: int, connection: int, request: int) -> list[Event]:
        self.check(now, connection, request=request)
        self.to(now)
        entry = self.waiting.get((connection, request))
        if entry is None:
            self.tell(Kind.REFUSED, connection, request, Fault.STALE_LEASE)
        else:
            self.end(entry, Outcome.CANCELLED)
        return self.log

    def adopt(self, now: int, connection: int, lease: int) -> list[Event]:
        self.check(now, connection, lease=lease)
        self.to(now)
        found = self.owned(connection, lease)
        if found is not None:
            found.connection, found.lost_at = connection, None
            self.tell(Kind.ADOPTED, connection, lease)
        return self.log

    def disconnect(self, now: int, connection: int, alive: bool) -> list[Event]:
        self.check(now, connection, alive=alive)
        self.to(now)
        self.close(connection)
        for lease in [lease for lease in self.running.values() if lease.connection == connection]:
            if alive:
                lease.connection, lease.lost_at = None, later(now, lease.partition.config.orphan_grace_ns)
                self.tell(Kind.ORPHANED, lease.id, lease.lost_at)
            else:
                self.finish(lease, End.LOST)
        self.grant_all()
        return self.log

    def close(self, connection: int) -> None:
        for entry in [entry for entry in self.waiting.values() if entry.connection == connection]:
            self.end(entry, Outcome.CANCELLED)
        del self.connections[connection]

    def exited(self, now: int, process: int) -> list[Event]:
        self.check(now, process=process)
        self.to(now)
        for connection in [index for index, peer in self.connections.items() if peer.process == process]:
            self.close(connection)
        for lease in [lease for lease in self.running.values() if lease.process == process]:
            self.finish(lease, End.LOST)
        self.grant_all()
        return self.log

    # Configuration and survival.

    def configure(self, now: int, partition: int, config: PartitionConfig) -> list[Event]:
        self.check(now)
        check_partition(partition, config)
        self.check_bounds(partition, config)
        self.to(now)
        self.drop_records()
        place = self.partitions.setdefault(partition, Partition(partition, config))
        if place.removed:
            place.removed = place.draining = False
        place.config = config
        named = {model.model: model for model in config.models}
        self.retire([model for name, model in place.models.items() if name not in named], Outcome.MODEL_GONE)
        for name, model in named.items():
            limit = config.capacity if model.limit is None else model.limit
            what = place.models.setdefault(name, Model(model, limit))
            what.reconfigure(model, limit, place.tags)
            if model.denied:
                self.empty(what, Outcome.MEMORY_OVERRUN)
        self.grant_all()
        return self.log

    def check_bounds(self, partition: int, config: PartitionConfig) -> None:
        others = [place for place in self.partitions.values() if place.kept and place.id != partition]
        old = self.partitions.get(partition, Partition(partition, config))
        models = {model.config.model for model in old.models.values() if model.kept}
        needs = {
            "partitions": len(others) + 1,
            "models": sum(model.kept for place in others for model in place.models.values())
            + len(models.union(model.model for model in config.models)),
            "requests": sum(place.config.queue_cap + place.capacity for place in others if not place.removed)
            + config.queue_cap
            + config.capacity,
            "leases": sum(max(place.capacity, place.run) for place in others) + max(config.capacity, old.run),
        }
        for bound, need in needs.items():
            if need > getattr(self.limits, bound):
                raise ValueError(f"partition {partition} needs {need} {bound}, the core has {self.limits}")

    def drop_records(self) -> None:
        """Forget removed partitions and models of which nothing runs."""
        for place in list(self.partitions.values()):
            place.models = {name: model for name, model in place.models.items() if model.kept}
            if not place.kept:
                del self.partitions[place.id]

    def retire(self, models: list[Model], outcome: Outcome) -> None:
        for model in models:
            model.config, model.limit, model.removed = replace(model.config, guarantee=0), 0, True
            self.empty(model, outcome)

    def empty(self, model: Model, outcome: Outcome) -> None:
        for entry in [entry for lane in model.lanes for entry in lane]:
            self.end(entry, outcome)

    def present(self, now: int, partition: int) -> Partition:
        self.check(now, partition=partition)
        place = self.partitions.get(partition)
        if place is None or place.removed:
            raise ValueError(f"there is no partition {partition}")
        return place

    def remove_partition(self, now: int, partition: int) -> list[Event]:
        place = self.present(now, partition)
        self.to(now)
        self.drop_records()
        self.retire(list(place.models.values()), Outcome.PARTITION_GONE)
        place.removed = True
        return self.log

    def drain(self, now: int, partition: int) -> list[Event]:
        place = self.present(now, partition)
        self.to(now)
        place.draining = True
        return self.log

    def undrain(self, now: int, partition: int) -> list[Event]:
        place = self.present(now, partition)
        self.to(now)
        place.draining = False
        return self.log

    def restore(self, now: int, leases: Sequence[LeaseRecord]) -> list[Event]:
        self.check(now)
        for record in leases:
            check_record(now, record)
        self.check_records(leases)
        self.to(now)
        for record in leases:
            place = self.partitions.setdefault(
                record.partition, Partition(record.partition, PartitionConfig(), removed=True)
            )
            unknown = Model(ModelConfig(record.model), limit=0, removed=True)
            model = place.models.setdefault(record.model, unknown)
            slot = record.lease & SLOT_MASK
            self.generations[slot] = record.lease >> SLOT_BITS
            lost_at = later(now, place.config.orphan_grace_ns)
            self.running[slot] = Lease(
                record.lease,
                place,
                model,
                record.klass,
                record.process,
                connection=None,
                submitted=record.started,
                started=record.started,
                deadline=record.deadline,
                lost_at=lost_at,
            )
            self.begun = True
            model.running[record.klass] += 1
            model.restored[record.klass] += 1
        return self.log

    def check_records(self, leases: Sequence[LeaseRecord]) -> None:
        slots = {record.lease & SLOT_MASK for record in leases}
        if self.begun or len(slots) < len(leases):
            raise ValueError("leases are restored once, each slot once, before anything has waited or run")
        places = {record.partition: 0 for record in leases} | dict.fromkeys(self.partitions, 0)
        models = {(record.partition, record.model) for record in leases}
        models |= {(place.id, name) for place in self.partitions.values() for name in place.models}
        room = dict.fromkeys(places, 0) | {place.id: place.capacity for place in self.partitions.values()}
        runs = {name: sum(record.partition == name for record in leases) for name in places}
        needed = sum(max(room[name], runs[name]) for name in places)
        limits = self.limits
        if len(places) > limits.partitions or len(models) > limits.models or needed > limits.leases:
            raise ValueError(f"{len(leases)} leases to restore do not fit into {limits}")
        if any(slot >= limits.leases for slot in slots):
            raise ValueError(f"a lease to restore is in slot {max(slots)}, the core has {limits.leases}")

    def leases(self) -> tuple[LeaseRecord, ...]:
        return tuple(
            LeaseRecord(
                lease.id,
                lease.partition.id,
                lease.model.config.model,
                lease.klass,
                lease.process,
                lease.started,
                lease.deadline,
            )
            for _, lease in sorted(self.running.items())
        )

    def snapshot(self) -> CoreSnapshot:
        places = sorted(self.partitions.values(), key=lambda place: place.id)
        return CoreSnapshot(
            self.now, tuple(place.snapshot() for place in places), tuple(self.unrouted), len(self.connections)
        )

    def begin_snapshot(self) -> TakenSnapshot:
        if self.stepped is not None:
            self.stepped.stale = True
        self.stepped = TakenSnapshot(self.snapshot())
        return self.stepped
