# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The dispatch core: who may use a partition now, in C structures and without the GIL.

The rule and its words are those of aimd/dispatch/face.py, the layout in memory is aimd/_native/core.pxd, why it is so
stands in native/DESIGN.md. Here is what Python sees of it: `RawCore`, the calls of the contract with events as tuples.
aimd.dispatch.core makes the contract's values of it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap

include "bits.pxi"
include "table.pxi"
include "heap.pxi"
include "wheel.pxi"
include "lane.pxi"
include "sketch.pxi"
include "statistics.pxi"
include "lease.pxi"
include "rule.pxi"
include "admission.pxi"
include "calls.pxi"
include "configuration.pxi"
include "memory.pxi"
include "reading.pxi"
include "checks.pxi"

cdef enum:
    MOST_CONFIGURED = 4096          # partitions, models: what a Set holds
    MOST_REQUESTS = 1 << 24
    MOST_LEASES = 1 << SLOT_BITS
    MOST_CONNECTIONS = 1 << 18      # what Numbers holds
    MOST_ID = 0x7FFFFFFF
    STEP_BLOCKS = 4                 # copied at once for a snapshot: less than a microsecond


cdef uint32_t number_of(object value) except? 0xFFFFFFFE:
    """An id as the core keeps it; one that cannot be any becomes one that nothing has."""
    return <uint32_t>value if 0 <= value <= MOST_ID else <uint32_t>0xFFFFFFFE


cdef object event_tuple(const Event* event):
    cdef int kind = event.kind
    if kind == QUEUED:
        return (kind, event.connection, event.number)
    if kind == GRANTED_EVENT:
        return (kind, event.connection, event.number, event.lease, event.partition, event.model,
                <int>event.detail, <int>event.green)
    if kind == ENDED:
        return (kind, event.connection, event.number, <int>event.detail)
    if kind == RELEASED:
        return (kind, event.lease, <int>event.detail)
    if kind == RENEWED or kind == ORPHANED:
        return (kind, event.lease, event.when)
    if kind == ADOPTED:
        return (kind, event.connection, event.lease)
    if kind == REFUSED:
        return (kind, event.connection, <int64_t>event.number, <int>event.detail)
    return (kind, event.lease)


cdef class RawCore:
    """A dispatch core within the bounds of `limits`, an aimd.dispatch.Limits.

    Raises ValueError for a bound out of its range, MemoryError when the system has not enough address space.
    """

    def __cinit__(self, limits, generation=1):
        cdef Bounds given
        names = ("partitions", "models", "requests", "leases", "connections", "requests_per_connection")
        most = (MOST_CONFIGURED, MOST_CONFIGURED, MOST_REQUESTS, MOST_LEASES, MOST_CONNECTIONS, MOST_ID)
        bounds = [getattr(limits, name) for name in names]
        for name, value, top in zip(names, bounds, most):
            if not 1 <= value <= top:
                raise ValueError(f"a core's {name} are {value}: 1 to {top} is expected")
        if not 1 <= generation < 1 << 46:
            raise ValueError(f"the first generation is {generation}: 1 to 2**46 - 1 is expected")
        (given.partitions, given.models, given.requests, given.leases, given.connections,
         given.requests_per_connection) = bounds
        self.core = core_new(given, generation)
        if self.core == NULL:
            raise MemoryError("the dispatch core's memory cannot be had: expected address space for its bounds")

    def __dealloc__(self):
        core_free(self.core)

    @property
    def now(self):
        """Time of the last call, in nanoseconds."""
        return self.core.now

    @property
    def next_due(self):
        """Nothing happens by itself before this instant; 2**63 - 1: never."""
        return core_next(self.core)

    @property
    def memory_bytes(self):
        """Address space that was taken; what is used of it is less."""
        return self.core.memory_bytes

    cdef object told(self, int code, int64_t now, object connection, object request=None):
        """The events of the call, or ValueError for what its code means."""
        cdef uint64_t number
        cdef list events
        if code == BAD_TIME:
            raise ValueError(f"time {now} ns lies before {self.core.now} ns, the time of an earlier call")
        if code == BAD_CONNECTION:
            raise ValueError(f"connection {connection} is not open: expected one that open returned")
        if code == BAD_REQUEST:
            raise ValueError(f"request {request} of connection {connection}: expected an id from 0 that does not wait"
                             " yet, and a class from 0 to 2 or -1")
        events = []
        for number in range(self.core.event_count):
            events.append(event_tuple(&self.core.events[number]))
        return events

    def advance(self, int64_t now):
        return self.told(core_advance(self.core, now), now, None)

    def open(self, int64_t process, int highest=0):
        cdef int64_t connection
        if not 0 <= highest < CLASSES:
            raise ValueError(f"the highest class is {highest}: 0, 1 or 2 is expected")
        connection = core_open(self.core, process, highest)
        if connection < 0:
            raise ValueError(f"all {self.core.bounds.connections} connections are open: expected a free one")
        return connection

    def acquire(self, int64_t now, connection, int64_t request, partition, model, int klass=-1, int64_t start_by=-1,
                bint no_wait=False):
        cdef int code = core_acquire(self.core, now, number_of(connection), request, number_of(partition),
                                     number_of(model), klass, start_by, no_wait)
        return self.told(code, now, connection, request)

    def release(self, int64_t now, connection, int64_t lease, bint ok=True):
        return self.told(core_release(self.core, now, number_of(connection), <uint64_t>lease, ok), now, connection)

    def renew(self, int64_t now, connection, int64_t lease):
        return self.told(core_renew(self.core, now, number_of(connection), <uint64_t>lease), now, connection)

    def cancel(self, int64_t now, connection, int64_t request):
        return self.told(core_cancel(self.core, now, number_of(connection), <uint64_t>request), now, connection)

    def adopt(self, int64_t now, connection, int64_t lease):
        return self.told(core_adopt(self.core, now, number_of(connection), <uint64_t>lease), now, connection)

    def disconnect(self, int64_t now, connection, bint alive):
        return self.told(core_disconnect(self.core, now, number_of(connection), alive), now, connection)

    def exited(self, int64_t now, int64_t process):
        return self.told(core_exited(self.core, now, process), now, None)

    cdef object settled(self, int code, int64_t now, partition):
        """As told, for the calls of the control path."""
        if code == BAD_PARTITION:
            raise ValueError(f"there is no partition {partition}")
        for name, trouble in (("partitions", OVER_PARTITIONS), ("models", OVER_MODELS), ("requests", OVER_REQUESTS),
                              ("leases", OVER_LEASES)):
            if code == trouble:
                raise ValueError(f"partition {partition} brings the {name} to {self.core.needed}: the core has room for"
                                 f" {getattr(self, '_bounds')()[name]}")
        return self.told(code, now, None)

    def _bounds(self):
        return self.core.bounds

    def _configure(self, int64_t now, uint32_t partition, numbers, models):
        """Configure from checked numbers: (capacity, queue_cap, lease_max, orphan_grace), and of each model (id,
        guarantee, limit, weight, queue_cap, default_class, budget, latency_target).
        """
        cdef PartitionSpec spec
        cdef ModelSpec* one
        cdef uint32_t number
        spec.id = partition
        spec.capacity, spec.queue_cap, spec.lease_max, spec.orphan_grace = numbers
        spec.model_count = len(models)
        spec.models = <ModelSpec*>calloc(spec.model_count + 1, sizeof(ModelSpec))
        if spec.models == NULL:
            raise MemoryError("no memory for a configuration")
        try:
            for number in range(spec.model_count):
                one = &spec.models[number]
                (one.id, one.guarantee, one.limit, one.weight, one.queue_cap, one.default_class, budget,
                 one.latency_target) = models[number]
                one.budget[0], one.budget[1], one.budget[2] = budget
            return self.settled(core_configure(self.core, now, &spec), now, partition)
        finally:
            free(spec.models)

    def remove_partition(self, int64_t now, partition):
        return self.settled(core_remove(self.core, now, number_of(partition)), now, partition)

    def drain(self, int64_t now, partition):
        return self.settled(core_drain(self.core, now, number_of(partition), True), now, partition)

    def undrain(self, int64_t now, partition):
        return self.settled(core_drain(self.core, now, number_of(partition), False), now, partition)

    def _restore(self, int64_t now, leases):
        """Restore leases, each as (id, partition, model, class, process, started, deadline)."""
        cdef uint32_t number
        cdef uint32_t count = len(leases)
        cdef LeaseSpec* specs
        if now < self.core.now:
            return self.told(BAD_TIME, now, None)
        restore_check(self.core, leases)
        specs = <LeaseSpec*>calloc(count + 1, sizeof(LeaseSpec))
        if specs == NULL:
            raise MemoryError("no memory for the leases to restore")
        try:
            for number in range(count):
                (specs[number].id, specs[number].partition, specs[number].model, specs[number].klass,
                 specs[number].process, specs[number].started, specs[number].deadline) = leases[number]
            return self.told(core_restore(self.core, now, specs, count), now, None)
        finally:
            free(specs)

    def _leases(self):
        """The running leases by slot, each as (id, partition, model, class, process, started, deadline)."""
        return leases_read(self.core)

    def _snapshot(self):
        """(now, partitions, unrouted, connections) of one instant; see native/reading.pxi."""
        freeze_begin(self.core)
        while freeze_step(self.core, STEP_BLOCKS):
            pass
        return snapshot_read(self.core)

    def _latencies(self):
        """The sketches of one instant, [(partition, model, sketches)]; see native/reading.pxi."""
        freeze_begin(self.core)
        while freeze_step(self.core, STEP_BLOCKS):
            pass
        return latencies_read(self.core)

    # ------------------------------------------------------------------------------------ for tests

    def _check(self):
        """Assert all invariants of the structures."""
        check_core(self.core)

    def _raise_tags(self, int64_t amount):
        """Add the same to all tags of all partitions, which nothing may show."""
        tags_raise(self.core, amount)

    def _hint(self):
        """Retry hint of the last event, in nanoseconds."""
        return self.core.events[self.core.event_count - 1].when

    def _freeze(self):
        """Begin a snapshot, to be finished by _frozen_step, while calls go on."""
        freeze_begin(self.core)

    def _freeze_step(self, uint64_t blocks):
        return freeze_step(self.core, blocks)

    def _frozen(self):
        return snapshot_read(self.core)
