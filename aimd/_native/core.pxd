# cython: language_level=3
"""Layout of the dispatch core in memory and its C interface, for core.pyx itself and for native code on top of it.

Everything is taken in one go by core_new; no function below allocates after it. None needs the GIL; callers see to it
that one thread at a time is inside a core: who has it for good, or for a while, says so by core_enter and core_leave,
and whoever comes through Python meanwhile is refused. Integers are within their ranges (see face.py). A function that takes `now` leaves its events in `core.events`, from 0 to
`core.event_count`, until the next such call; it returns 0 or, when nothing at all was changed, a negative Trouble
and no events. What the calls mean: aimd/dispatch/face.py. Why it is laid out so: native/DESIGN.md.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #ifndef AIMD_NONE
    #define AIMD_NONE UINT32_MAX
    typedef unsigned __int128 aimd_uint128;
    #endif
    """
    const uint32_t NONE "AIMD_NONE"
    ctypedef unsigned long long uint128_t "aimd_uint128"

cdef enum:
    CLASSES = 3
    OUTCOMES = 17
    ENDS = 4
    SLOT_BITS = 16
    LEVELS = 5                  # of the wheel, 64 buckets each
    BUCKETS = LEVELS * 64 + 1   # the last one: beyond the horizon
    CHUNK_BITS = 8              # nodes of a heap come in chunks of 256
    SKETCH_CELLS = 2560         # 64 per octave up to 2**44 ns; 20 KiB
    BLOCK = 1024                # bytes of statistics that are saved at once for a snapshot
    SKETCHES = 10               # per model: (queue, service, end to end) x class, reclaim

cdef enum Trouble:
    BAD_TIME = -1               # before an earlier call
    BAD_CONNECTION = -2         # not open
    BAD_REQUEST = -3            # negative, waiting already, or a class that is none
    BAD_PARTITION = -4          # there is none
    FULL = -5                   # connections
    OVER_PARTITIONS = -6        # bounds of a configuration; core.needed says how much
    OVER_MODELS = -7
    OVER_REQUESTS = -8
    OVER_LEASES = -9

cdef enum Kind:
    QUEUED = 0
    GRANTED_EVENT = 1
    ENDED = 2
    RELEASED = 3
    REVOKED_EVENT = 4
    LOST_EVENT = 5
    RENEWED = 6
    ORPHANED = 7
    ADOPTED = 8
    REFUSED = 9

cdef enum Outcome:
    GRANTED = 0
    QUEUE_FULL_MODEL = 1
    QUEUE_FULL_PARTITION = 2
    QUEUE_FULL_CONN = 3
    DEADLINE_PASSED = 4
    EXPIRED = 5
    SHED = 6
    CANCELLED = 7
    DRAINING = 8
    UNKNOWN_MODEL = 9
    UNKNOWN_PARTITION = 10
    PARTITION_GONE = 11
    MODEL_GONE = 12
    UNAUTHORISED = 13
    MEMORY_OVERRUN = 14
    QUEUE_FULL_UID = 15
    WOULD_BLOCK = 16

cdef enum End:
    OK = 0
    FAILED = 1
    REVOKED = 2
    LOST = 3

cdef enum Fault:
    NOT_OWNER = 0
    STALE_LEASE = 1
    RECLAIM = 2

# ------------------------------------------------------------------------------------------ structures

cdef struct Event:
    uint8_t kind
    uint8_t detail              # class of GRANTED, outcome of ENDED, ok of RELEASED, fault of REFUSED
    uint8_t green
    uint32_t connection
    uint64_t number             # request; of REFUSED also the lease as it was given
    uint64_t lease
    uint32_t partition
    uint32_t model
    int64_t when                # RENEWED, ORPHANED; of ENDED at a cap: wait so long before the next try, 0: unknown

# Hash table, linear probing, deletion by shifting back; the key is (number, part).
cdef struct Cell:
    uint64_t number
    uint32_t part
    uint32_t index              # plus 1; 0: free

cdef struct Table:
    Cell* cells
    uint64_t mask
    uint64_t seed

# Numbers below `size` of which the lowest free one is taken; a set bit is free. Up to 64 ** 3.
cdef struct Numbers:
    uint64_t* low
    uint64_t* middle
    uint64_t top

# Set of numbers below 4096.
cdef struct Set:
    uint64_t top
    uint64_t* words

cdef struct Node:
    int64_t when
    uint32_t slot
    uint32_t unused

cdef struct Pool:
    Node* nodes
    uint32_t* free_chunks
    uint32_t free_count
    uint32_t chunks

# `places` + slot * `stride` is where a slot's place in the heap is kept; `ties` orders equal times, if there.
cdef struct Heap:
    Pool* pool
    uint32_t* chunks
    char* places
    Request* ties
    uint32_t stride
    uint32_t count

# First in each record that can be in a wheel. `prev`: NONE when in no wheel, IN_DUE (then `next` is the place in the
# heap of the current tick), FIRST | bucket, or the one before.
cdef struct Timer:
    int64_t when
    uint32_t prev
    uint32_t next

cdef struct Wheel:
    char* records
    uint32_t stride
    uint32_t count
    int64_t tick                # everything up to and with this tick is out of the buckets
    int64_t next                # nothing is due before this instant
    uint64_t occupied[LEVELS]
    uint32_t heads[BUCKETS]
    Heap due

# A waiting acquire: one cache line. `prev`, `next` are those of the lane's list in which it is; free: `next`.
cdef struct Request:
    Timer timer
    uint64_t seq
    int64_t submitted
    uint64_t number
    uint32_t lane
    uint32_t connection
    uint32_t prev
    uint32_t next
    uint32_t connection_prev
    uint32_t connection_next

# Those in order of (start_by, seq) from `head` to `tail`; the late ones, which came with an earlier start_by than the
# tail's, in the heap and, in order of arrival, from `late_head` to `late_tail`.
cdef struct Lane:
    uint32_t head
    uint32_t tail
    uint32_t late_head
    uint32_t late_tail
    uint32_t count
    uint32_t grants             # up to 2, which is enough to know an interval
    uint32_t swept              # scratch of due: how many in the heap are to go
    int64_t granted_at          # the last one
    int64_t interval            # between grants, smoothed: the eighth part of each new one
    Heap late

cdef struct Lease:
    Timer timer                 # the earlier one of deadline and lost_at
    uint64_t id                 # of a free slot: the next one
    int64_t submitted
    int64_t started
    int64_t deadline
    int64_t lost_at             # INT64_MAX unless an orphan
    uint32_t model
    uint32_t connection         # NONE: orphan
    uint32_t process
    uint32_t connection_prev
    uint32_t connection_next
    uint32_t process_prev
    uint32_t process_next
    uint8_t klass
    uint8_t live

cdef struct Connection:
    uint32_t process
    uint32_t waiting
    uint32_t requests           # heads of lists
    uint32_t leases
    uint32_t process_prev
    uint32_t process_next
    uint8_t highest
    uint8_t open

# Known while it has a connection or a lease.
cdef struct Process:
    int64_t id
    uint32_t connections
    uint32_t leases

cdef struct Model:
    uint32_t id
    uint32_t partition
    uint32_t run
    uint32_t limit
    uint32_t guarantee
    uint32_t waiting
    uint32_t queue_cap
    uint32_t weight
    uint32_t mask               # what stands in the partition's sets: see rule.pxi
    uint32_t waited[CLASSES]
    uint32_t carry[CLASSES]
    uint32_t rest               # 2**32 % weight
    int64_t step                # 2**32 // weight
    int64_t tags[CLASSES]
    int64_t budget[CLASSES]
    int64_t latency_target
    int64_t hungry_since
    uint8_t default_class
    uint8_t used
    uint8_t removed
    uint8_t named               # scratch of configure
    uint8_t denied              # it holds more memory than it was given: no new lease

cdef struct Partition:
    uint32_t id
    uint32_t rank               # by id
    uint32_t run
    uint32_t capacity           # 0 when removed
    uint32_t waiting
    uint32_t queue_cap
    uint32_t waited[CLASSES]
    uint32_t counts[CLASSES]    # entries by class
    int64_t tags[CLASSES]
    int64_t lease_max
    int64_t orphan_grace
    Set eligible[CLASSES]       # models with entries of the class and below their limit
    Set lanes[CLASSES]          # models with entries of the class
    Set hungry                  # models with entries and below their guarantee
    Set members
    uint8_t used
    uint8_t removed
    uint8_t draining

# What a snapshot shows of a model; one block. Kinds of latency: queue, service, end to end.
cdef struct Counters:
    uint64_t used
    uint64_t model
    uint64_t partition          # index
    uint64_t removed
    uint64_t running[CLASSES]
    uint64_t waiting[CLASSES]
    uint64_t outcomes[CLASSES][OUTCOMES]
    uint64_t ends[CLASSES][ENDS]
    uint64_t restored[CLASSES]
    uint64_t good[CLASSES]
    uint64_t bad[CLASSES]
    uint64_t colour
    int64_t since               # the time-weighted counters are as of this instant
    uint64_t running_ns[2]      # low, high word
    uint64_t backlog_ns
    uint64_t colour_ns[3]
    uint64_t latency_sum[SKETCHES][2]   # low, high word: a total never wraps
    uint64_t latency_max[SKETCHES]

cdef struct Place:
    uint64_t used
    uint64_t id
    uint64_t removed
    uint64_t draining
    uint64_t capacity

# All statistics in one piece of memory: counters of the models, places, unrouted, then the sketches of the models.
cdef struct Statistics:
    char* live
    char* frozen
    uint32_t* saved             # by block: the epoch in which it was last saved or first written
    uint32_t epoch
    uint32_t freezing
    uint64_t blocks
    uint64_t step               # of the freezing: blocks done
    uint64_t places_offset
    uint64_t unrouted_offset
    uint64_t sketches_offset
    int64_t now                 # of the frozen copy
    uint64_t connections

cdef struct Bounds:
    uint32_t partitions
    uint32_t models
    uint32_t requests
    uint32_t leases
    uint32_t connections
    uint32_t requests_per_connection

cdef struct Core:
    int64_t now
    uint64_t seq
    uint64_t event_count
    Event* events
    Request* requests
    uint32_t* late_places       # by request: place in its lane's heap, NONE when in order
    uint32_t latest             # model that was last asked for
    uint32_t free_request
    uint32_t fresh_requests     # those above were never used
    uint32_t waiting
    uint32_t running
    Lease* leases
    Connection* connections
    Process* processes
    uint32_t free_process
    uint32_t fresh_processes
    uint32_t open_connections
    Model* models
    Lane* lanes                 # model * CLASSES + class
    Partition* partitions
    uint32_t* by_rank
    uint32_t partition_count
    Set dirty                   # ranks of partitions in which something may be granted
    Set touched                 # scratch of due: models
    Set free_models
    Set free_partitions
    Numbers free_leases
    Numbers free_connections
    Table waiting_table         # (request, connection)
    Table process_table
    Table model_table           # (model, partition index)
    Table partition_table
    Wheel expiry
    Wheel lease_ends
    Pool pool
    uint32_t* frontier          # scratch of lane_kth
    Statistics statistics
    Bounds bounds
    int64_t needed
    uint8_t begun               # a lease has begun here, granted or restored: nothing is restored any more
    uint8_t entered             # see core_enter
    char* memory
    uint64_t memory_bytes

# --------------------------------------------------------------------------------------- configuration

cdef struct ModelSpec:
    uint32_t id
    uint32_t guarantee
    uint32_t limit
    uint32_t weight
    uint32_t queue_cap
    uint8_t default_class
    uint8_t denied
    int64_t budget[CLASSES]
    int64_t latency_target

cdef struct PartitionSpec:
    uint32_t id
    uint32_t capacity
    uint32_t queue_cap
    int64_t lease_max
    int64_t orphan_grace
    uint32_t model_count
    ModelSpec* models

cdef struct LeaseSpec:
    uint64_t id
    uint32_t partition
    uint32_t model
    uint8_t klass
    int64_t process
    int64_t started
    int64_t deadline

# ------------------------------------------------------------------------------------------- functions

cdef Core* core_new(Bounds bounds, uint64_t generation) noexcept nogil      # NULL: no memory
cdef void core_free(Core* core) noexcept nogil

cdef bint core_enter(Core* core) noexcept nogil     # False: somebody is inside. Atomic; none of the others looks at it
cdef void core_leave(Core* core) noexcept nogil

cdef int core_advance(Core* core, int64_t now) noexcept nogil
cdef int64_t core_open(Core* core, int64_t process, int highest) noexcept nogil
# `otherwise`: the outcome if it cannot run at once (WOULD_BLOCK, QUEUE_FULL_UID); 0: it may wait.
cdef int core_acquire(Core* core, int64_t now, uint32_t connection, int64_t request, uint32_t partition,
                      uint32_t model, int klass, int64_t start_by, int otherwise) noexcept nogil
cdef int core_release(Core* core, int64_t now, uint32_t connection, uint64_t lease, bint ok) noexcept nogil
cdef int core_renew(Core* core, int64_t now, uint32_t connection, uint64_t lease) noexcept nogil
cdef int core_cancel(Core* core, int64_t now, uint32_t connection, uint64_t request) noexcept nogil
cdef int core_adopt(Core* core, int64_t now, uint32_t connection, uint64_t lease) noexcept nogil
cdef int core_disconnect(Core* core, int64_t now, uint32_t connection, bint alive) noexcept nogil
cdef int core_exited(Core* core, int64_t now, int64_t process) noexcept nogil
cdef int64_t core_next(Core* core) noexcept nogil               # nothing is due before this instant

cdef int core_configure(Core* core, int64_t now, const PartitionSpec* spec) noexcept nogil
cdef int core_remove(Core* core, int64_t now, uint32_t partition) noexcept nogil
cdef int core_drain(Core* core, int64_t now, uint32_t partition, bint draining) noexcept nogil
# The caller has seen to it that no lease has begun and nothing waits, and that all fits the bounds.
cdef int core_restore(Core* core, int64_t now, const LeaseSpec* specs, uint32_t count) noexcept nogil

# A snapshot in steps: its instant is that of freeze_begin, and between steps the owner of the core goes on with calls.
# From when freeze_step has returned False until the next freeze_begin nobody writes to the copy: another thread, which
# has the GIL, may read it by the functions that read while the owner is inside the core.
cdef void freeze_begin(Core* core) noexcept nogil
cdef bint freeze_step(Core* core, uint64_t blocks) noexcept nogil           # False when all is copied

cdef object snapshot_read(Core* core, bint frozen=*)    # as tuples: the copy, or (of one's own core) what is now
cdef object latencies_read(Core* core, bint frozen=*)
cdef object histograms_read(Core* core, tuple bounds, bint frozen=*)
cdef object leases_read(Core* core)

cdef class RawCore:
    cdef Core* core
    cdef bint collecting

    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    cdef str refusal(self, int code, int64_t now, int64_t one, int64_t request)
    cdef object told(self, int code, int64_t now, int64_t one=*, int64_t request=*)
    cdef object frozen(self, object epoch)
    cdef object read_frozen(self, object epoch, bint latencies)
