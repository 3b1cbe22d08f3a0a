# Counters and latency sketches, and how they are read: a snapshot is of one instant, and yet dispatch is not stopped
# for it. freeze_begin only starts a new epoch; from then on whoever is the first to write to a block in this epoch
# saves the old block before (one copy of 1 KiB), and freeze_step saves some of those that nobody wrote to. What it has
# saved is the state at freeze_begin, and can be read without the core.


cdef inline void statistics_save(Statistics* statistics, uint64_t block) noexcept nogil:
    if statistics.freezing:
        memcpy(statistics.frozen + block * BLOCK, statistics.live + block * BLOCK, BLOCK)
    statistics.saved[block] = statistics.epoch


cdef inline char* statistics_write(Core* core, uint64_t offset) noexcept nogil:
    """Memory of the statistics that may now be written to."""
    if unlikely(core.statistics.saved[offset // BLOCK] != core.statistics.epoch):
        statistics_save(&core.statistics, offset // BLOCK)
    return core.statistics.live + offset


cdef void freeze_begin(Core* core) noexcept nogil:
    cdef Statistics* statistics = &core.statistics
    statistics.epoch += 1
    statistics.freezing = 1
    statistics.step = 0
    statistics.now = core.now
    statistics.connections = core.open_connections


cdef bint freeze_step(Core* core, uint64_t blocks) noexcept nogil:
    """Copy up to `blocks` of 1 KiB; False when all is copied."""
    cdef Statistics* statistics = &core.statistics
    cdef uint64_t looked_at = 64 * blocks
    while statistics.step < statistics.blocks and blocks and looked_at:
        # 0: never written to, and so zero in the copy, too.
        if statistics.saved[statistics.step] != 0 and statistics.saved[statistics.step] != statistics.epoch:
            statistics_save(statistics, statistics.step)
            blocks -= 1
        looked_at -= 1
        statistics.step += 1
    statistics.freezing = statistics.step < statistics.blocks
    return statistics.freezing


cdef inline uint64_t sketch_offset(const Statistics* statistics, uint32_t model, uint32_t sketch) noexcept nogil:
    return statistics.sketches_offset + (<uint64_t>model * SKETCHES + sketch) * (SKETCH_CELLS * sizeof(uint64_t))


cdef inline void counters_accrue(Counters* counters, int64_t now) noexcept nogil:
    """Bring the time-weighted counters up to `now`."""
    cdef uint64_t elapsed = <uint64_t>(now - counters.since)
    cdef uint64_t run = counters.running[0] + counters.running[1] + counters.running[2]
    cdef uint128_t total
    if elapsed == 0:
        return
    total = (<uint128_t>counters.running_ns[1] << 64) + counters.running_ns[0] + <uint128_t>run * elapsed
    counters.running_ns[0] = <uint64_t>total
    counters.running_ns[1] = <uint64_t>(total >> 64)
    if counters.waiting[0] + counters.waiting[1] + counters.waiting[2]:
        counters.backlog_ns += elapsed
    counters.colour_ns[counters.colour] += elapsed
    counters.since = now


cdef inline Counters* counters_write(Core* core, uint32_t model) noexcept nogil:
    """The counters of a model as of now, to be changed."""
    cdef Counters* counters = <Counters*>statistics_write(core, <uint64_t>model * BLOCK)
    counters_accrue(counters, core.now)
    return counters


cdef inline void latency_record(Core* core, Counters* counters, uint32_t model, uint32_t sketch,
                                uint64_t value) noexcept nogil:
    cdef uint64_t offset = sketch_offset(&core.statistics, model, sketch) + sketch_cell(value) * sizeof(uint64_t)
    (<uint64_t*>statistics_write(core, offset))[0] += 1
    counters.latency_sum[sketch][0] += value
    counters.latency_sum[sketch][1] += counters.latency_sum[sketch][0] < value       # the carry
    if value > counters.latency_max[sketch]:
        counters.latency_max[sketch] = value


cdef void statistics_forget(Core* core, uint32_t model) noexcept nogil:
    """Zero all that is kept of a model."""
    cdef uint64_t offset = sketch_offset(&core.statistics, model, 0)
    cdef uint64_t end = sketch_offset(&core.statistics, model, SKETCHES)
    memset(statistics_write(core, <uint64_t>model * BLOCK), 0, BLOCK)
    while offset < end:
        if core.statistics.saved[offset // BLOCK]:
            memset(statistics_write(core, offset), 0, BLOCK)
        offset += BLOCK


cdef inline Place* place_write(Core* core, uint32_t partition) noexcept nogil:
    return <Place*>statistics_write(core, core.statistics.places_offset + <uint64_t>partition * 64)


cdef inline uint64_t* unrouted_write(Core* core) noexcept nogil:
    return <uint64_t*>statistics_write(core, core.statistics.unrouted_offset)
