cdef enum:
    MIRROR_HEAD = 4096              # before the lines; see aimd/dispatch/lease_file.py

# The lease file: one line per slot of the core, mapped, written before a grant leaves. It is the page cache's, so that
# it is whole after a kill -9 at any instruction, if the order of writes is kept: `live` is set last and cleared first.


cdef inline void mirror_grant(Server* server, uint32_t slot, uint64_t lease, uint32_t caller, uint32_t partition,
                              uint32_t model, uint8_t klass, int64_t granted, int64_t deadline) noexcept nogil:
    cdef Mirrored* line = &server.mirror[slot]
    cdef const Caller* owner = &server.callers[caller]
    line.lease = lease
    line.pid = owner.pid
    line.started = owner.started
    line.granted = granted
    line.deadline = deadline
    line.partition = partition
    line.model = model
    line.klass = klass
    then()
    line.live = 1


cdef inline void mirror_end(Server* server, uint32_t slot) noexcept nogil:
    server.mirror[slot].live = 0
    then()
