# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The dispatch core: who may use a partition now, in C structures and without the GIL.

The rule and its words are those of aimd/dispatch/face.py, the layout in memory is aimd/_native/core.pxd, why it is so
stands in native/DESIGN.md. Here is what Python sees of it: `RawCore`, the calls of the contract with events as tuples.
aimd.dispatch.core makes the contract's values of it.
"""

cimport cython
from cpython.long cimport PyLong_Check
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
include "histograms.pxi"
include "checks.pxi"

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1
    int PyGC_Disable()              # was it on?
    int PyGC_Enable()

cdef enum:
    MOST_CONFIGURED = 4096          # partitions, models: what a Set holds
    MOST_REQUESTS = 1 << 24
    MOST_LEASES = 1 << SLOT_BITS
    MOST_CONNECTIONS = 1 << 18      # what Numbers holds
    MOST_ID = 0x7FFFFFFF

cdef extern from *:
    const int64_t MOST_GENERATION "((INT64_C(1) << 46) - 1)"


cdef int64_t whole(str name, object value, int64_t least, int64_t most) except? -1:
    """The integer, if it is within its range; runs no code of the value's own."""
    cdef int overflow = 0
    cdef int64_t number
    if PyLong_Check(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow == 0 and least <= number <= most:
            return number
        bits = int.bit_length(value)
        shown = int.__repr__(value) if bits <= 256 else f"an integer of {bits} bits"
    else:
        shown = f"of type {type(value).__name__}"
    raise ValueError(f"{name} is {shown}: an integer from {least} to {most} is expected")


cdef int64_t instant_of(object now) except? -1:
    return whole("now", now, 0, NEVER)


cdef int64_t id_of(str name, object value) except? -1:
    return whole(name, value, 0, MOST_ID)


cdef bint flag_of(str name, object value) except *:
    if value is True or value is False:
        return value is True
    return whole(name, value, 0, 1)


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
        (given.partitions, given.models, given.requests, given.leases, given.connections,
         given.requests_per_connection) = [
            whole(f"{name} of a core's limits", getattr(limits, name), 1, top) for name, top in zip(names, most)]
        self.core = core_new(given, whole("the first generation", generation, 1, MOST_GENERATION))
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

    cdef int enter(self) except -1:
        """Begin a call, arguments are converted already. Until `leave` no Python code runs: tuples are made, and a
        collection of garbage, which could run finalizers that call this core, is put off.
        """
        if not core_enter(self.core):
            raise RuntimeError("the core is inside another call or belongs to a server: expected one call at a time")
        self.collecting = PyGC_Disable()
        return 0

    cdef void leave(self) noexcept:
        if self.collecting:
            PyGC_Enable()
        core_leave(self.core)

    cdef str refusal(self, int code, int64_t now, int64_t one, int64_t request):
        if code == BAD_TIME:
            return f"time {now} ns lies before {self.core.now} ns, the time of an earlier call"
        if code == BAD_CONNECTION:
            return f"connection {one} is not open: expected one that open returned"
        if code == BAD_REQUEST:
            return f"request {request} of connection {one} waits already: expected an id of none that waits"
        if code == BAD_PARTITION:
            return f"there is no partition {one}: expected one that is configured"
        if code == FULL:
            return f"all {self.core.bounds.connections} connections are open: expected a free one"
        name, bound = {
            <int>OVER_PARTITIONS: ("partitions", self.core.bounds.partitions),
            <int>OVER_MODELS: ("models", self.core.bounds.models),
            <int>OVER_REQUESTS: ("requests", self.core.bounds.requests),
            <int>OVER_LEASES: ("leases", self.core.bounds.leases),
        }[code]
        return f"partition {one} brings the {name} to {self.core.needed}: the core has room for {bound}"

    cdef object told(self, int code, int64_t now, int64_t one=-1, int64_t request=-1):
        """The events of the call, which ends by it, or ValueError for what its code means; `one`: connection or
        partition.
        """
        cdef uint64_t number
        cdef list events
        try:
            if code:
                raise ValueError(self.refusal(code, now, one, request))
            events = []
            for number in range(self.core.event_count):
                events.append(event_tuple(&self.core.events[number]))
            return events
        finally:
            self.leave()

    def advance(self, now):
        cdef int64_t at = instant_of(now)
        self.enter()
        return self.told(core_advance(self.core, at), at)

    def open(self, process, highest=0):
        cdef int64_t owner = whole("process", process, -NEVER - 1, NEVER)
        cdef int best = whole("highest", highest, 0, CLASSES - 1)
        cdef int64_t connection
        self.enter()
        connection = core_open(self.core, owner, best)
        self.told(<int>connection if connection < 0 else 0, 0)
        return connection

    def acquire(self, now, connection, request, partition, model, klass=-1, start_by=-1, no_wait=False):
        cdef int64_t at = instant_of(now)
        cdef int64_t peer = id_of("connection", connection)
        cdef int64_t number = whole("request", request, 0, NEVER)
        cdef int64_t place = id_of("partition", partition)
        cdef int64_t what = id_of("model", model)
        cdef int level = whole("klass", klass, -1, CLASSES - 1)
        cdef int64_t last = whole("start_by", start_by, -NEVER - 1, NEVER)
        cdef bint hurry = flag_of("no_wait", no_wait)
        self.enter()
        return self.told(
            core_acquire(self.core, at, <uint32_t>peer, number, <uint32_t>place, <uint32_t>what, level, last,
                         WOULD_BLOCK if hurry else 0), at, peer, number)

    def release(self, now, connection, lease, ok=True):
        cdef int64_t at = instant_of(now)
        cdef int64_t peer = id_of("connection", connection)
        cdef int64_t number = whole("lease", lease, 0, NEVER)
        cdef bint well = flag_of("ok", ok)
        self.enter()
        return self.told(core_release(self.core, at, <uint32_t>peer, <uint64_t>number, well), at, peer)

    def renew(self, now, connection, lease):
        cdef int64_t at = instant_of(now)
        cdef int64_t peer = id_of("connection", connection)
        cdef int64_t number = whole("lease", lease, 0, NEVER)
        self.enter()
        return self.told(core_renew(self.core, at, <uint32_t>peer, <uint64_t>number), at, peer)

    def cancel(self, now, connection, request):
        cdef int64_t at = instant_of(now)
        cdef int64_t peer = id_of("connection", connection)
        cdef int64_t number = whole("request", request, 0, NEVER)
        self.enter()
        return self.told(core_cancel(self.core, at, <uint32_t>peer, <uint64_t>number), at, peer)

    def adopt(self, now, connection, lease):
        cdef int64_t at = instant_of(now)
        cdef int64_t peer = id_of("connection", connection)
        cdef int64_t number = whole("lease", lease, 0, NEVER)
        self.enter()
        return self.told(core_adopt(self.core, at, <uint32_t>peer, <uint64_t>number), at, peer)

    def disconnect(self, now, connection, alive):
        cdef int64_t at = instant_of(now)
        cdef int64_t peer = id_of("connection", connection)
        cdef bint lives = flag_of("alive", alive)
        self.enter()
        return self.told(core_disconnect(self.core, at, <uint32_t>peer, lives), at, peer)

    def exited(self, now, process):
        cdef int64_t at = instant_of(now)
        cdef int64_t owner = whole("process", process, -NEVER - 1, NEVER)
        self.enter()
        return self.told(core_exited(self.core, at, owner), at)

    @cython.boundscheck(True)
    def _configure(self, now, partition, numbers, models):
        """Configure from checked numbers: (capacity, queue_cap, lease_max, orphan_grace), and of each model (id,
        guarantee, limit, weight, queue_cap, default_class, budget, latency_target, denied).
        """
        cdef int64_t at = instant_of(now)
        cdef PartitionSpec spec
        cdef ModelSpec* one
        cdef tuple each = tuple(models)
        cdef uint32_t number
        spec.id = <uint32_t>id_of("partition", partition)
        spec.capacity, spec.queue_cap, spec.lease_max, spec.orphan_grace = numbers
        spec.model_count = <uint32_t>len(each)
        spec.models = <ModelSpec*>calloc(<size_t>spec.model_count + 1, sizeof(ModelSpec))
        if spec.models == NULL:
            raise MemoryError("no memory for a configuration")
        try:
            for number in range(spec.model_count):
                one = &spec.models[number]
                (one.id, one.guarantee, one.limit, one.weight, one.queue_cap, one.default_class, budget,
                 one.latency_target, one.denied) = each[number]
                one.budget[0], one.budget[1], one.budget[2] = budget
            self.enter()
            return self.told(core_configure(self.core, at, &spec), at, spec.id)
        finally:
            free(spec.models)

    def remove_partition(self, now, partition):
        cdef int64_t at = instant_of(now)
        cdef int64_t place = id_of("partition", partition)
        self.enter()
        return self.told(core_remove(self.core, at, <uint32_t>place), at, place)

    def drain(self, now, partition):
        cdef int64_t at = instant_of(now)
        cdef int64_t place = id_of("partition", partition)
        self.enter()
        return self.told(core_drain(self.core, at, <uint32_t>place, True), at, place)

    def undrain(self, now, partition):
        cdef int64_t at = instant_of(now)
        cdef int64_t place = id_of("partition", partition)
        self.enter()
        return self.told(core_drain(self.core, at, <uint32_t>place, False), at, place)

    @cython.boundscheck(True)
    def _restore(self, now, leases):
        """Restore leases, each as (id, partition, model, class, process, started, deadline)."""
        cdef int64_t at = instant_of(now)
        cdef tuple each = tuple([tuple(lease) for lease in leases])
        cdef uint32_t number
        cdef LeaseSpec* one
        cdef LeaseSpec* specs = <LeaseSpec*>calloc(<size_t>len(each) + 1, sizeof(LeaseSpec))
        if specs == NULL:
            raise MemoryError("no memory for the leases to restore")
        try:
            for number in range(len(each)):
                one = &specs[number]
                id, partition, model, klass, process, started, deadline = each[number]
                one.id = <uint64_t>whole("id of a lease", id, 1 << SLOT_BITS, ((MOST_GENERATION + 1) << SLOT_BITS) - 1)
                one.partition = <uint32_t>id_of("partition of a lease", partition)
                one.model = <uint32_t>id_of("model of a lease", model)
                one.klass = <uint8_t>whole("class of a lease", klass, 0, CLASSES - 1)
                one.process = whole("process of a lease", process, -NEVER - 1, NEVER)
                one.started = whole("start of a lease", started, 0, at)
                one.deadline = whole("deadline of a lease", deadline, one.started, NEVER)
            self.enter()
            try:
                if at >= self.core.now:
                    restore_check(self.core, each)
            except ValueError:
                self.leave()
                raise
            return self.told(core_restore(self.core, at, specs, <uint32_t>len(each)), at)
        finally:
            free(specs)

    def _leases(self):
        """The running leases by slot, each as (id, partition, model, class, process, started, deadline)."""
        self.enter()
        try:
            return leases_read(self.core)
        finally:
            self.leave()

    def _snapshot(self):
        """(now, partitions, unrouted, connections) as of now; see native/reading.pxi."""
        self.enter()
        try:
            return snapshot_read(self.core, False)
        finally:
            self.leave()

    def _latencies(self):
        """The sketches as of now, [(partition, model, sketches)]; see native/reading.pxi."""
        self.enter()
        try:
            return latencies_read(self.core, False)
        finally:
            self.leave()

    def _histograms(self, bounds):
        """The latencies as of now, counted up to each of the bounds; see native/histograms.pxi."""
        self.enter()
        try:
            return histograms_read(self.core, tuple(bounds), False)
        finally:
            self.leave()

    def _freeze(self):
        """Begin a snapshot in steps; the number that names it, until the next one begins."""
        self.enter()
        freeze_begin(self.core)
        self.leave()
        return self.core.statistics.epoch

    def _freeze_step(self, epoch, blocks):
        """Copy so many blocks at most; whether some are left."""
        cdef int64_t most = whole("blocks", blocks, 1, MOST_ID)
        self.frozen(epoch)
        self.enter()
        more = freeze_step(self.core, <uint64_t>most)
        self.leave()
        return more

    cdef object frozen(self, epoch):
        if epoch != self.core.statistics.epoch:
            raise ValueError("a later snapshot of the core has begun: expected the latest one")

    def _frozen(self, epoch):
        """What `_snapshot` would have told at `_freeze`. Nobody is kept out of the core meanwhile."""
        return self.read_frozen(epoch, False)

    def _frozen_latencies(self, epoch):
        """As `_frozen`, of `_latencies`."""
        return self.read_frozen(epoch, True)

    cdef object read_frozen(self, epoch, bint latencies):
        self.frozen(epoch)
        if self.core.statistics.freezing:
            raise ValueError("the snapshot is not complete: expected steps until one says that nothing is left")
        collecting = PyGC_Disable()         # a finalizer could begin another snapshot
        try:
            return latencies_read(self.core) if latencies else snapshot_read(self.core)
        finally:
            if collecting:
                PyGC_Enable()

    # ------------------------------------------------------------------------------------ for tests

    def _check(self):
        """Assert all invariants of the structures."""
        check_core(self.core)

    def _raise_tags(self, int64_t amount):
        """Add the same to all tags of all partitions, which nothing may show."""
        tags_raise(self.core, amount)

    def _hint(self):
        """Retry hint of the last event, in nanoseconds; 0 without an event."""
        return self.core.events[self.core.event_count - 1].when if self.core.event_count else 0

    def _occupy(self, bint occupied):
        """Be inside a call, as another thread is, or be so no more."""
        if occupied:
            self.enter()
        else:
            self.leave()
