"""Families of what goes through the models: requests, latencies, queues, slots, service level. Pure.

Everything of a model on a partition is read of the dispatch core at one instant; a partition that goes takes its series
along, and one that comes begins at 0. What is told of a model alone goes on across its partitions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from aimd.adapters.metrics.family import Descriptor, Family
from aimd.adapters.metrics.labels import ModelLabels
from aimd.domain.claim import QosClass
from aimd.domain.metering import BUCKETS_SECONDS, ClassMeter, DispatchReading, ModelMeter
from aimd.domain.node import NodeSnapshot

PLACED = ("model", "gpu_id", "partition_id")
CLASSED = (*PLACED, "class")
PLACE = ("gpu_id", "partition_id")

LATENCY = Descriptor(
    "aim_model_request_latency_seconds",
    "histogram",
    "Seconds from acquire to release, of every lease that was given back, well or not; from the dispatch core, true to 1/128."
    " Absent: nobody has used the class there.",
    CLASSED,
    BUCKETS_SECONDS,
)
REQUESTS = Descriptor(
    "aim_model_requests",
    "counter",
    "Requests that have ended, each counted once: released (well, in time), late, failed, revoked, lost (of leases), or why"
    " there was no lease (aimd/protocol/DISPATCH.md). Exact, from the dispatch core. Absent: it has not happened.",
    (*CLASSED, "outcome"),
)
QUEUE_DEPTH = Descriptor(
    "aim_scheduler_queue_depth",
    "gauge",
    "Requests that wait for a lease now. Absent: the model is not on the partition, or its class was not used.",
    (*PLACE, "model", "class"),
)
IN_FLIGHT = Descriptor(
    "aim_model_requests_in_flight",
    "gauge",
    "Leases that run now: requests that the model serves. Absent as with aim_scheduler_queue_depth.",
    CLASSED,
)
QUEUE_WAIT = Descriptor(
    "aim_model_request_queue_wait_seconds",
    "histogram",
    "Seconds from acquire to grant, of every request that got a lease; from the dispatch core, true to 1/128. From the dispatch core. Absent: it does not run, or could not be read.",
    CLASSED,
    BUCKETS_SECONDS,
)
REJECTED = Descriptor(
    "aim_model_requests_rejected",
    "counter",
    "Requests of the model that ended without a lease against their client's will, on all its partitions since the daemon"
    " began, those that are gone included. Absent: it has not happened.",
    ("model", "reason"),
)
SLOTS = Descriptor(
    "aim_scheduler_slots",
    "gauge",
    "Leases that may run on the partition at a time (slots_per_partition). From the dispatch core. Absent: it does not run, or could not be read.",
    PLACE,
)
SLOTS_IN_USE = Descriptor(
    "aim_scheduler_slots_in_use",
    "gauge",
    "Leases that run on the partition now. From the dispatch core. Absent: it does not run, or could not be read.",
    PLACE,
)
QUEUE_CAP = Descriptor(
    "aim_scheduler_queue_limit",
    "gauge",
    "Requests that may wait on the partition (dispatch.queue_cap); those within a guarantee do not count. From the dispatch core. Absent: it does not run, or could not be read.",
    PLACE,
)
CLOSED = Descriptor(
    "aim_scheduler_partition_closed",
    "gauge",
    "1 while the partition lets no request in: its GPU is switched. From the dispatch core. Absent: it does not run, or could not be read.",
    PLACE,
)
GUARANTEE = Descriptor(
    "aim_scheduler_guarantee_slots",
    "gauge",
    "Slots that the model gets there before others get more than theirs. From the dispatch core. Absent: it does not run, or could not be read.",
    PLACED,
)
SLOT_SECONDS = Descriptor(
    "aim_scheduler_slot_seconds",
    "counter",
    "Sum over time of the model's running leases there: its rate is the mean of slots in use. Exact. From the dispatch core. Absent: it does not run, or could not be read.",
    PLACED,
)
BACKLOG = Descriptor(
    "aim_scheduler_backlog_seconds",
    "counter",
    "Time in which a request of the model was waiting there. Exact. From the dispatch core. Absent: it does not run, or could not be read.",
    PLACED,
)
RECLAIM = Descriptor(
    "aim_scheduler_guarantee_reclaim_seconds",
    "histogram",
    "Seconds from when the model waits below its guarantee to the grant that ends this. Absent without a guarantee.",
    PLACED,
    BUCKETS_SECONDS,
)
CONNECTIONS = Descriptor(
    "aim_dispatch_connections",
    "gauge",
    "Open connections of the dispatch socket. From the dispatch core. Absent: it does not run, or could not be read.",
)
ACCEPTED = Descriptor(
    "aim_dispatch_connections_accepted",
    "counter",
    "Connections that the dispatch socket has taken. From the dispatch core. Absent: it does not run, or could not be read.",
)
REFUSED = Descriptor(
    "aim_dispatch_connections_refused",
    "counter",
    "Connections that were refused: the user or the socket has too many. From the dispatch core. Absent: it does not run, or could not be read.",
)
GIVEN_UP = Descriptor(
    "aim_dispatch_connections_given_up",
    "counter",
    "Connections that were ended since their client did not read. From the dispatch core. Absent: it does not run, or could not be read.",
)
FRAMES = Descriptor(
    "aim_dispatch_frames",
    "counter",
    "Frames that clients have sent to the dispatch socket. From the dispatch core. Absent: it does not run, or could not be read.",
)
FAULTS = Descriptor(
    "aim_dispatch_faults",
    "counter",
    "Connections that were ended by an error of their protocol. From the dispatch core. Absent: it does not run, or could not be read.",
)
DENIED = Descriptor(
    "aim_dispatch_denied",
    "counter",
    "Clients that asked the dispatch socket for a model and were told no, by outcome. The requests behind the question end"
    " with it, and are counted nowhere else. From the dispatch core. Absent: it does not run, or could not be read.",
    ("outcome",),
)
SOCKET = ((ACCEPTED, "accepted"), (REFUSED, "refused"), (GIVEN_UP, "given_up"), (FRAMES, "frames"), (FAULTS, "faults"))

Key = tuple[str, str, str]  # model, GPU, partition
NOTHING = DispatchReading()


def required(meters: Mapping[Key, ModelMeter]) -> Iterator[Family]:
    """The names that everybody asks for first."""
    classes = list(_classes(meters))
    yield LATENCY.histograms([(labels, one.total) for labels, one in classes])
    yield REQUESTS.of([((*labels, how), count) for labels, one in classes for how, count in one.ended.items()])
    yield QUEUE_DEPTH.of([((gpu, index, model, qos), one.waiting) for (model, gpu, index, qos), one in classes])


def families(
    reading: DispatchReading, meters: Mapping[Key, ModelMeter], snapshot: NodeSnapshot, labels: ModelLabels
) -> Iterator[Family]:
    """All others of the dispatch service."""
    classes = list(_classes(meters))
    guarantees = _guarantees(snapshot, labels)
    yield IN_FLIGHT.of([(key, one.running) for key, one in classes])
    yield QUEUE_WAIT.histograms([(key, one.queue) for key, one in classes])
    yield REJECTED.of(list(_rejected(reading, labels).items()))
    partitions = [((one.key.gpu, str(one.key.index)), one) for one in reading.partitions]
    yield SLOTS.of([(place, one.slots) for place, one in partitions])
    yield SLOTS_IN_USE.of([(place, one.running) for place, one in partitions])
    yield QUEUE_CAP.of([(place, one.queue_cap) for place, one in partitions])
    yield CLOSED.of([(place, int(one.closed)) for place, one in partitions])
    yield GUARANTEE.of(list(guarantees.items()))
    yield SLOT_SECONDS.of([(key, one.slot_seconds) for key, one in meters.items()])
    yield BACKLOG.of([(key, one.backlog_seconds) for key, one in meters.items()])
    yield RECLAIM.histograms([(key, one.reclaim) for key, one in meters.items() if guarantees[key]])
    yield CONNECTIONS.of([((), reading.socket["connections"])] if reading.socket else [])
    for descriptor, name in SOCKET:
        yield descriptor.of([((), reading.socket[name])] if reading.socket else [])
    yield DENIED.of([((outcome,), count) for outcome, count in reading.denied.items()])


def _classes(meters: Mapping[Key, ModelMeter]) -> Iterator[tuple[tuple[str, str, str, str], ClassMeter]]:
    for (model, gpu, index), meter in meters.items():
        for qos, one in meter.classes.items():
            yield (model, gpu, index, qos.value), one


def _guarantees(snapshot: NodeSnapshot, labels: ModelLabels) -> Counter[Key]:
    """Of replicas that are where the partitions are those that they were placed on."""
    epochs = {status.gpu.pci_address: status.mode_epoch for status in snapshot.gpus}
    slots: Counter[Key] = Counter()
    for claim in snapshot.claims:
        for one in claim.assignments:
            if epochs.get(one.gpu) == one.mode_epoch:
                slots[labels.of(claim.name), one.gpu, str(one.index)] += one.guarantee
    return slots


def _rejected(reading: DispatchReading, labels: ModelLabels) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for model, reasons in reading.rejected.items():
        for reason, count in reasons.items():
            counts[labels.of(model), reason] += count
    return counts


def folded(models: Iterable[ModelMeter], labels: ModelLabels) -> dict[Key, ModelMeter]:
    """The meters by what their series are called; models that share a name on a partition are added up."""
    found: dict[Key, ModelMeter] = {}
    for meter in models:
        key = (labels.of(meter.model), meter.key.gpu, str(meter.key.index))
        found[key] = _together(found[key], meter) if key in found else meter
    return found


def _together(one: ModelMeter, other: ModelMeter) -> ModelMeter:
    classes: dict[QosClass, ClassMeter] = dict(one.classes)
    for qos, meter in other.classes.items():
        classes[qos] = _sum(classes[qos], meter) if qos in classes else meter
    return ModelMeter(
        one.key,
        one.model,
        classes,
        one.slot_seconds + other.slot_seconds,
        one.backlog_seconds + other.backlog_seconds,
        one.reclaim + other.reclaim,
    )


def _sum(one: ClassMeter, other: ClassMeter) -> ClassMeter:
    ended = Counter(one.ended)
    for how, count in other.ended.items():
        ended[how] += count
    return ClassMeter(
        one.running + other.running,
        one.waiting + other.waiting,
        ended,
        one.queue + other.queue,
        one.total + other.total,
    )
