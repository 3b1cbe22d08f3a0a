"""The contract of a dispatch core: what the native core does and what `aimd.dispatch.reference` specifies.

Two cores that are given the same calls return equal event logs (after `canonical`) and equal snapshots. The standard
library alone; nothing here computes.

**Numbers.** Everything is an integer (an `int`, no float of the same value). The caller chooses partition ids, model
ids (both 0 .. 2**31 - 1; a model id means something within its partition only), process ids (any int64 that names one
living process, for example the index of its pidfd) and request ids (0 .. 2**63 - 1, unique among the connection's
*waiting* requests). Instants are 0 .. 2**63 - 1 ns, durations at most 2**62 ns; an instant that is computed (a
deadline, a `start_by` by budget, the end of a grace) is at most 2**63 - 1, whatever the sum. Connections are
0 .. 2**31 - 1, leases 0 .. 2**63 - 1, classes as `Class`, flags True or False. An argument of a call that is out of its
range or no integer raises ValueError, which says name, value and range in one sentence (`aimd.dispatch.bounds` is the
table); so do the values of a configuration, of a lease to restore, of Limits, and a first generation outside
1 .. 2**46 - 1. Counters are exact: times that are summed over leases and the sums of latencies have 128 bits. The core
chooses connections (the lowest free index, from 0) and leases. A lease id is `generation << 16 | slot`; the slot is
the lowest free one of the whole core; each slot's generation starts at the core's `generation` argument and grows by
one whenever a lease of the slot ends, so that an id never names two leases.

**Time.** `now` is int64 nanoseconds >= 0 of one clock and never decreases. Every call that takes `now` is the same as
`advance(now)` followed by the call itself at that instant. What was due earlier happens at `now`: a core that is
called late ends and grants late, and its time-weighted counters say so.

**Order within a call.** First `advance`: all leases that are due end (REVOKED when the deadline is <= now, otherwise
LOST when the orphan's time is <= now) and all entries with `start_by <= now` end as EXPIRED; then the loop of
grants runs in every partition, in ascending order of partition id, to its fixed point. Then the call's own event, and
the loop once more. Whether a call raises ValueError is decided before the `advance`; then nothing has changed, not even
the clock.

**One at a time.** A core is in one call at a time. A call that begins while another is under way, in another thread or
because a server has the core, raises RuntimeError and changes nothing. Finalizers never run inside a call.

**Grants** (the loop, while running < capacity). A model is eligible when it has an entry and running < limit.

* *Green*: if an eligible model has running < guarantee, that model is served: among several the one whose head has
  the highest class (its head: the entry of its highest class with the least `(start_by, seq)`; seq numbers the
  arrivals of the core), then the largest `(guarantee - running) / guarantee` (exact), then the least
  `(start_by, seq)` of that head. The class served is chosen by credit among the model's classes with entries, with
  the model's own counters.
* *Excess*: else the class is chosen by credit among the classes in which an eligible model has an entry, with the
  partition's counters. Among the eligible models with an entry of that class the one with the least tag
  `max(v, V)` is served, then the least `(start_by, seq)` of their heads in that class.
* The head of (model, class) by `(start_by, seq)` is granted.
* *Credit* among the classes `lanes`: LOW if it is there and waited >= 15; else MEDIUM if it is there and waited >= 7;
  else LOW if it is there, waited >= 14 and MEDIUM waited >= 8; else the highest. (The third case is for a MEDIUM that
  was passed over for LOW while both were due, and then had no eligible model for a while: without it LOW could be due
  again whenever MEDIUM comes back.) The chosen class's counter becomes 0 and those of the other classes in `lanes` grow
  by 1. A class's counter is 0 whenever it has no entry left (in the partition, respectively in the model; entries of
  models at their limit count).
* *Tags*: v per (model, class), V per (partition, class), all 0 at first, moved by excess grants only:
  `v = max(v, V); V = v; v += step`, where the step is `2**32 / weight` with the remainder carried to the next step:
  `step, carry = divmod(2**32 + carry, weight)`, carry per (model, class), 0 at first. `max(v, V)` at the choice is the
  rule "no credit for absence": V cannot pass a competitor's v. A changed weight sets `v = min(v, V + 2**32 // weight)`
  and `carry = 0` in each class. A core may lower all tags of a class by one amount, which nothing shows.

**Arrivals.** Checks, in this order: unknown_partition (also a removed one), unknown_model (also a removed one),
unauthorised (class above the connection's highest), draining, memory_overrun (the model is denied), deadline_passed
(`start_by <= now`), queue_full_conn (the connection already has `requests_per_connection` waiting, even if the arrival
could run). Then, if running < capacity and the model's running < limit: granted. Else would_block if `no_wait`. Else
queue_full_model if the model has `queue_cap` waiting. Else queue_full_partition if the whole core has `requests`
waiting. Then the partition's cap:

* *Entitled* are, of each model, its first `guarantee - running` entries (if positive) in the order
  `(class, start_by, seq)`. The others are loose; `queue_cap` bounds the loose ones.
* If the arrival is loose, and there are already `queue_cap` or more loose ones: if its class is above the lowest class
  of the loose ones, one of that lowest class is shed and the arrival waits; else queue_full_partition.
* If the arrival is entitled it waits. If this made another entry of its model loose, and there were already
  `queue_cap` or more loose ones, one of the lowest class of the loose ones (that entry included) is shed.
* Shed is, of the model with the most loose entries of that class (among equals the least model id), the loose entry
  of that class with the largest seq.

**Configuration** replaces a partition's whole configuration at once. Lowered limits and capacities end nothing. Entries
of models that are no longer named end as model_gone, those of denied models as memory_overrun; leases of removed models
and partitions run on and count until they end (a removed model has guarantee 0 and limit 0, a removed partition
capacity 0). The record of a removed model or partition stays in the snapshot, marked, so that its last counters can be
read. It is revived with all it holds when it is configured again, and dropped by the first later `configure` or
`remove_partition` (of whatever partition) that finds no lease of it after its `advance`; that call drops it before it
does anything else.

**Events** are plain tuples of integers, the first one a Kind. Within one call, neighbours of the kinds ENDED, REVOKED,
LOST and ORPHANED are a set: `canonical` sorts them. Retry hints, latency sketches and reclaim latency are outside, and so
is how many steps a snapshot takes.

**Where this goes beyond the design's notes.** Credit has a third case, the one above for a MEDIUM that was passed over
while LOW was due, too. Tags are integers scaled by 2**32, and the remainder of the division is carried, without which
the fairness bound between weights fails in the long run. What is due ends before the connection's cap is looked at, not
after it, so that an expired entry takes no place. An arrival that is entitled waits whatever the partition's cap, but
can be refused by the bounds `requests` of the whole core and `queue_cap` of its model.

**A fuzz from outside**, both cores in lock step:

    from random import Random
    from aimd.dispatch import Limits, ModelConfig, NativeCore, PartitionConfig, Reference, canonical

    cores, dice, now = [core(Limits(leases=8)) for core in (NativeCore, Reference)], Random(1), 0
    models = (ModelConfig(0, guarantee=1), ModelConfig(1, weight=3))

    def both(call, *arguments):
        logs = [canonical(getattr(core, call)(*arguments)) for core in cores]
        assert logs[0] == logs[1] and cores[0].snapshot() == cores[1].snapshot(), (call, arguments)

    both("configure", now, 0, PartitionConfig(models, capacity=4, queue_cap=16))
    assert [core.open(process=7) for core in cores] == [0, 0]
    for request in range(500):
        now += dice.randrange(10**9)
        both("acquire", now, 0, request, 0, dice.randrange(2), dice.randrange(3), now + dice.randrange(10**10))
        if cores[0].leases() and dice.random() < 0.9:
            both("release", now, 0, dice.choice(cores[0].leases()).lease)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Protocol

from aimd.dispatch.values import (
    BAD_OUTCOMES,
    DEFAULT,
    LOW_CREDIT,
    MEDIUM_CREDIT,
    SECOND,
    SLOT_BITS,
    TAG_SCALE,
    Class,
    CoreSnapshot,
    End,
    Fault,
    Kind,
    LeaseRecord,
    Limits,
    ModelConfig,
    ModelSnapshot,
    Outcome,
    PartitionConfig,
    PartitionSnapshot,
)

__all__ = [
    "BAD_OUTCOMES",
    "DEFAULT",
    "LOW_CREDIT",
    "MEDIUM_CREDIT",
    "SECOND",
    "SLOT_BITS",
    "TAG_SCALE",
    "Class",
    "CoreSnapshot",
    "DispatchCore",
    "End",
    "Event",
    "Fault",
    "Kind",
    "LeaseRecord",
    "Limits",
    "ModelConfig",
    "ModelSnapshot",
    "Outcome",
    "PartitionConfig",
    "PartitionSnapshot",
    "SteppedSnapshot",
    "canonical",
]

Event = tuple[int, ...]

_SETS = (Kind.ENDED, Kind.REVOKED, Kind.LOST, Kind.ORPHANED)


def canonical(events: Iterable[Event]) -> list[Event]:
    """The events of one call in the form in which two cores are compared: neighbours without an order are sorted."""
    runs = groupby(events, key=lambda event: event[0] in _SETS)
    return [event for unordered, run in runs for event in (sorted(run) if unordered else run)]


class DispatchCore(Protocol):
    """Constructed as `Core(limits, generation=1)`; see the module's docstring for all that the calls have in common.

    All calls raise ValueError when an argument is out of its range, when `now` lies before that of an earlier call, or
    when a connection is not open; and RuntimeError inside another call.
    """

    def configure(self, now: int, partition: int, config: PartitionConfig) -> list[Event]:
        """Create the partition or replace its configuration: ENDED (model_gone) and what may now run.

        Raises:
            ValueError: a value is out of its range, a guarantee is above its limit, the guarantees exceed the
                capacity, a model is named twice, or a bound of Limits would be passed: partitions, models, the
                sum of `queue_cap + capacity` against requests (removed partitions not counted), or the sum of
                `max(capacity, running)` against leases (removed partitions with what runs).
        """
        ...

    def remove_partition(self, now: int, partition: int) -> list[Event]:
        """ENDED (partition_gone) of all its entries; its leases run on.

        Raises:
            ValueError: there is no such partition.
        """
        ...

    def drain(self, now: int, partition: int) -> list[Event]:
        """Refuse arrivals (draining) until `undrain`; what waits is still granted. Again: changes nothing.

        Raises:
            ValueError: there is no such partition.
        """
        ...

    def undrain(self, now: int, partition: int) -> list[Event]:
        """Let arrivals in again; a partition that was removed and is configured anew is not draining either.

        Raises:
            ValueError: there is no such partition.
        """
        ...

    def open(self, process: int, highest: int = Class.HIGH) -> int:
        """A new connection of the process, which may ask for classes up to `highest`; returns its id.

        Raises:
            ValueError: all connections of Limits are open.
        """
        ...

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
        """One of QUEUED, GRANTED and ENDED, after the ENDED (shed) of another one if there is one.

        Args:
            klass: a Class, or DEFAULT for that of the model.
            start_by: the first instant at which a grant is of no use any more; any negative int64: now and the
                model's budget for the class.
            no_wait: end as would_block instead of waiting.

        Raises:
            ValueError: the connection has a waiting request of this id.
        """
        ...

    def release(self, now: int, connection: int, lease: int, ok: bool = True) -> list[Event]:
        """RELEASED and what may now run, or REFUSED: stale_lease if it runs no more, not_owner for another process.

        Any connection of the lease's process may release and renew it.
        """
        ...

    def renew(self, now: int, connection: int, lease: int) -> list[Event]:
        """RENEWED to now + lease_max_ns, or REFUSED: stale_lease, not_owner, or reclaim.

        reclaim: a model of the partition has entries and runs below its guarantee, and the lease's model is above
        its own.
        """
        ...

    def cancel(self, now: int, connection: int, request: int) -> list[Event]:
        """ENDED (cancelled), or REFUSED (stale_lease) when no such request of the connection waits."""
        ...

    def adopt(self, now: int, connection: int, lease: int) -> list[Event]:
        """ADOPTED: the lease now depends on this connection; or REFUSED: stale_lease, not_owner."""
        ...

    def disconnect(self, now: int, connection: int, alive: bool) -> list[Event]:
        """The connection has ended: ENDED (cancelled) of its entries, and of the leases that depend on it ORPHANED if
        its process is still alive, else LOST; then what may now run.
        """
        ...

    def exited(self, now: int, process: int) -> list[Event]:
        """The process has ended: ENDED (cancelled) and LOST of all it had, on whichever connection; these are closed."""
        ...

    def advance(self, now: int) -> list[Event]:
        """What was due."""
        ...

    def restore(self, now: int, leases: Sequence[LeaseRecord]) -> list[Event]:
        """Take over the leases of an earlier core, after the partitions were configured; they run as orphans.

        A lease of a model or partition that is not configured counts as one of a removed one (with the default
        orphan_grace_ns). `started` serves as the time of the acquire. Pass a `generation` to the constructor that is
        above every generation of all earlier cores, so that no id returns.

        Raises:
            ValueError: something has waited or run in this core before, restored leases included (ids could return); a
                lease id or slot occurs twice, or a bound of Limits would be passed; or a record is none that a core
                wrote before `now`: its generation is not within 1 .. 2**46 - 1, an id or the class is out of its
                range, or 0 <= started <= now and started <= deadline < 2**63 does not hold.
        """
        ...

    def leases(self) -> tuple[LeaseRecord, ...]:
        """The running leases by slot; what `restore` takes."""
        ...

    def snapshot(self) -> CoreSnapshot:
        """All counters, as of the last `now`; call `advance` before it for those of the present."""
        ...

    def begin_snapshot(self) -> SteppedSnapshot:
        """The same, of the instant of this call, taken in steps between which calls go on: O(1)."""
        ...


class SteppedSnapshot(Protocol):
    """A snapshot that is taken piece by piece, so that whoever has the core stops for a few microseconds at a time.

    It shows the core as it was at `begin_snapshot`, whatever happens between the steps. A core has one at a time: when
    the next one begins, calls of an earlier one raise ValueError.
    """

    def step(self, blocks: int = 4) -> bool:
        """Go on by `blocks` pieces (1 .. 2**31 - 1) at most; whether something is left."""
        ...

    def read(self) -> CoreSnapshot:
        """What `snapshot` would have returned at the beginning; as often as one likes.

        Raises:
            ValueError: no step has said yet that nothing is left.
        """
        ...
