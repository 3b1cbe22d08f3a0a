# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The dispatch socket: one thread, epoll, no GIL, on top of a dispatch core that belongs to this thread alone.

Frames are those of aimd/protocol/DISPATCH.md. What needs names (who may open which model) is asked of Python through a
ring of questions; what Python wants of the core comes as mail. Neither is waited for: see native/SERVER.md.
aimd.dispatch.server makes values of what `RawServer` gives.
"""

from libc.errno cimport (
    EAGAIN, ECONNABORTED, EINTR, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOPROTOOPT, ENOSPC, ESRCH, errno,
)
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset, strlen
from posix.fcntl cimport O_CLOEXEC, O_RDONLY, open as open_file
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close as close_file, read as read_file, write as write_file

from aimd._native.core cimport (
    ADOPTED, CLASSES, ENDED, GRANTED_EVENT, LOST_EVENT, NONE, ORPHANED, QUEUED, QUEUE_FULL_UID, REFUSED, RELEASED,
    RENEWED, REVOKED, LOST, REVOKED_EVENT, SLOT_BITS, WOULD_BLOCK, MODEL_GONE, BAD_REQUEST,
    Bounds, Cell, Core, Event, Lease, LeaseSpec, ModelSpec, Numbers, PartitionSpec, Set, Table,
    core_acquire, core_adopt, core_advance, core_cancel, core_configure, core_disconnect, core_drain, core_exited,
    core_free, core_new, core_next, core_open, core_release, core_remove, core_renew, core_restore,
    freeze_begin, freeze_step, histograms_read, latencies_read, snapshot_read,
)

include "bits.pxi"
include "table.pxi"
include "system.pxi"
include "wire.pxi"
include "parties.pxi"
include "output.pxi"
include "mirror.pxi"
include "telling.pxi"
include "callers.pxi"
include "receiving.pxi"
include "mail.pxi"
include "loop.pxi"


cdef class RawServer:
    """A core within `limits` and the socket that serves it.

    Args:
        limits: an aimd.dispatch.Limits; a peer takes a connection.
        generation: of the first leases; above all of earlier cores.
        listener: descriptor of a listening stream socket; stays the caller's.
        leases: descriptor of the lease file, made by aimd.dispatch.lease_file; may be closed afterwards.
        caps: (connections of a uid, waiting requests of a uid, nanoseconds after which a peer that does not read is
            given up, whether to ask the kernel for the pidfd of a peer, bytes that all peers together may leave
            unread).
        instance: told to clients.
    """

    cdef Server* server

    def __cinit__(self, limits, generation, int listener, int leases, caps, uint64_t instance):
        cdef Bounds given
        for name, most in (("partitions", 4096), ("models", 4096), ("requests", 1 << 24), ("leases", 1 << SLOT_BITS),
                           ("connections", 1 << 17), ("requests_per_connection", 0x7FFFFFFF)):
            if not 1 <= getattr(limits, name) <= most:
                raise ValueError(f"the {name} of a dispatch service are {getattr(limits, name)}: 1 to {most} is"
                                 " expected")
        (given.partitions, given.models, given.requests, given.leases, given.connections,
         given.requests_per_connection) = [getattr(limits, name) for name in (
             "partitions", "models", "requests", "leases", "connections", "requests_per_connection")]
        self.server = server_new(given, generation, listener, leases, instance)
        if self.server == NULL:
            raise OSError(errno, "the dispatch service cannot be set up: descriptors or memory are short")
        (self.server.most_peers, self.server.most_waiting, self.server.patience, self.server.peer_pidfd,
         unread) = caps
        self.server.most_chunks = max(1, min(unread // CHUNK_BYTES, CHUNKS))

    def __dealloc__(self):
        server_free(self.server)

    def serve(self):
        """Serve until `stop`; in a thread of its own, without the GIL. Raises OSError when epoll fails."""
        cdef int failure
        with nogil:
            failure = serve(self.server)
        if failure:
            raise OSError(failure, "the dispatch thread has ended: epoll failed")

    def serving(self):
        """Whether a thread is in `serve`."""
        return bool(load(&self.server.serving))

    def ask_beat(self):
        """Wake the dispatch thread, whose turn then counts as a beat; waits for nothing."""
        ring(self.server.mail_fd)

    @property
    def beats(self):
        """Grows as long as the dispatch thread looks into its mailbox when it is asked to."""
        return load(&self.server.beats)

    cdef int post(self, int kind, void* argument, uint32_t number) except -1000:
        """Let the dispatch thread do something and wait for it; by one Python thread at a time."""
        cdef Mail mail
        memset(&mail, 0, sizeof(Mail))
        mail.kind = kind
        mail.argument = argument
        mail.number = number
        with nogil:
            mail_deliver(self.server, &mail)
        return mail.result

    def stop(self):
        """Let `serve` return; leases stay as they are in the lease file."""
        self.post(STOP, NULL, 0)

    # -- configuration: numbers that were checked; 0 or what core.pyx says of a Trouble ------------------------

    def configure(self, uint32_t partition, numbers, models):
        """The Trouble and what was needed; see RawCore._configure for the arguments."""
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
                 one.latency_target, one.denied) = models[number]
                one.budget[0], one.budget[1], one.budget[2] = budget
            return self.post(CONFIGURE, &spec, 0), self.server.core.needed
        finally:
            free(spec.models)

    def remove(self, uint32_t partition):
        return self.post(REMOVE, NULL, partition)

    def drain(self, uint32_t partition):
        return self.post(DRAIN, NULL, partition)

    def undrain(self, uint32_t partition):
        return self.post(UNDRAIN, NULL, partition)

    def busy(self, uint32_t partition):
        """(running, waiting) on the partition now; (0, 0) if there is none."""
        cdef uint32_t counts[2]
        self.post(COUNT, counts, partition)
        return counts[0], counts[1]

    def revalidate(self):
        """Handles that were given so far are of no use any more: acquires on them end as model_gone."""
        self.post(REVALIDATE, NULL, 0)

    def restore(self, leases):
        """Before `serve`: leases as (id, partition, model, class, started, deadline, pid, start time), slots in bounds.

        Those whose process has ended count as lost. Returns how many run, and how many of living processes do not fit
        the bounds and are forgotten. Raises OSError if it cannot be told whether a process lives; then no lease runs.
        """
        cdef Restored* given
        cdef uint32_t number
        cdef int running
        if load(&self.server.serving) or self.server.core.begun or self.server.core.waiting:
            raise ValueError("leases are restored once, before anyone is served")
        given = <Restored*>calloc(len(leases) + 1, sizeof(Restored))
        if given == NULL:
            raise MemoryError("no memory for the leases to restore")
        try:
            for number in range(len(leases)):
                (given[number].spec.id, given[number].spec.partition, given[number].spec.model,
                 given[number].spec.klass, given[number].spec.started, given[number].spec.deadline,
                 given[number].pid, given[number].started) = leases[number]
            running = self.post(RESTORE, given, len(leases))
            if running < 0:
                raise OSError(-running, "it cannot be told which leases of the earlier daemon go on: descriptors or"
                                        " memory are short")
            return running, self.server.unfit
        finally:
            free(given)

    # -- questions -----------------------------------------------------------------------------------------

    @property
    def question_fd(self):
        """Readable while there may be questions."""
        return self.server.question_fd

    def questions(self):
        """[(peer, its generation, tag, pid, start time, uid, gid, model, partition)], names as bytes."""
        cdef uint64_t ignored
        cdef uint64_t last
        cdef Question* one
        cdef list found = []
        read_file(self.server.question_fd, &ignored, 8)
        last = load(&self.server.asked)
        while self.server.answered < last:
            one = &self.server.questions[self.server.answered % QUESTIONS]
            found.append((one.peer, one.generation, one.tag, one.pid, one.started, one.uid, one.gid,
                          one.text[:one.model_bytes],
                          one.text[one.model_bytes:one.model_bytes + one.partition_bytes]))
            store(&self.server.answered, self.server.answered + 1)
        return found

    def admit(self, uint32_t peer, uint32_t generation, uint64_t tag, uint32_t partition, uint32_t model, int highest,
              int klass, uint32_t slots, int64_t lease_ns, bytes text):
        """Answer a question: this caller may use the model there, up to this class."""
        cdef Verdict verdict
        verdict.peer, verdict.generation, verdict.tag = peer, generation, tag
        verdict.outcome = 0
        verdict.partition, verdict.model = partition, model
        verdict.highest, verdict.klass = <uint8_t>highest, <uint8_t>klass
        verdict.slots, verdict.lease_ns = slots, lease_ns
        verdict.text = text
        verdict.bytes = <uint16_t>min(len(text), MOST_TEXT)
        self.post(VERDICT, &verdict, 0)

    def deny(self, uint32_t peer, uint32_t generation, uint64_t tag, int outcome, bytes text):
        """Answer a question: no, and why."""
        cdef Verdict verdict
        memset(&verdict, 0, sizeof(Verdict))
        verdict.peer, verdict.generation, verdict.tag = peer, generation, tag
        verdict.outcome = outcome
        verdict.text = text
        verdict.bytes = <uint16_t>min(len(text), MOST_TEXT)
        self.post(VERDICT, &verdict, 0)

    # -- reading -------------------------------------------------------------------------------------------

    def snapshot(self):
        """As RawCore._snapshot, of one instant; dispatching goes on meanwhile."""
        self.post(FREEZE, NULL, 0)
        return snapshot_read(self.server.core)

    def latencies(self):
        """As RawCore._latencies, of one instant; dispatching goes on meanwhile."""
        self.post(FREEZE, NULL, 0)
        return latencies_read(self.server.core)

    def metered(self, bounds):
        """Snapshot and histograms of one instant (RawCore._snapshot, _histograms); dispatching goes on meanwhile."""
        self.post(FREEZE, NULL, 0)
        return snapshot_read(self.server.core), histograms_read(self.server.core, tuple(bounds))

    def statistics(self):
        """{name: number} of the socket itself."""
        cdef uint64_t numbers[STATISTICS]
        self.post(REPORT, numbers, 0)
        return {"connections": numbers[0], "callers": numbers[1], "accepted": numbers[2], "refused": numbers[3],
                "faults": numbers[4], "frames": numbers[5], "given_up": numbers[6], "undelivered": numbers[7],
                "mirrored": numbers[8]}
