# Arrivals: checked, granted at once, refused, or let in to wait, if need be in the place of another one.


cdef inline void model_loose(const Core* core, uint32_t index, uint32_t* loose) noexcept nogil:
    """Entries by class that are not entitled: all but the first guarantee - run ones."""
    cdef const Model* model = &core.models[index]
    cdef uint32_t left = model.guarantee - model.run if model.guarantee > model.run else 0
    cdef uint32_t klass, taken
    for klass in range(CLASSES):
        taken = min(core.lanes[index * CLASSES + klass].count, left)
        loose[klass] = core.lanes[index * CLASSES + klass].count - taken
        left -= taken


cdef inline uint32_t waiting_after(const Partition* partition, uint32_t start) noexcept nogil:
    """The least model from `start` on that has entries, or NONE."""
    return min(
        set_after(&partition.lanes[0], start), set_after(&partition.lanes[1], start),
        set_after(&partition.lanes[2], start))


cdef void partition_loose(const Core* core, const Partition* partition, uint32_t* loose) noexcept nogil:
    cdef uint32_t own[CLASSES]
    cdef uint32_t index = waiting_after(partition, 0)
    memset(loose, 0, CLASSES * sizeof(uint32_t))
    while index != NONE:
        model_loose(core, index, own)
        loose[0] += own[0]
        loose[1] += own[1]
        loose[2] += own[2]
        index = waiting_after(partition, index + 1)


cdef void shed(Core* core, const Partition* partition) noexcept nogil:
    """End the youngest of the loose entries of the lowest class, of the model with most of them; there is one."""
    cdef uint32_t own[CLASSES]
    cdef uint32_t most = 0
    cdef uint32_t victim = NONE
    cdef uint32_t klass, index
    cdef Lane* lane
    partition_loose(core, partition, own)
    klass = 2 if own[2] else 1 if own[1] else 0
    index = set_after(&partition.lanes[klass], 0)
    while index != NONE:
        model_loose(core, index, own)
        if own[klass] > most or (own[klass] == most and most and core.models[index].id < core.models[victim].id):
            most = own[klass]
            victim = index
        index = set_after(&partition.lanes[klass], index + 1)
    lane = &core.lanes[victim * CLASSES + klass]
    request_end(core, lane_youngest(core, lane, lane.count - most), SHED)


cdef bint would_be_entitled(const Core* core, uint32_t index, uint32_t klass, int64_t start_by) noexcept nogil:
    """Whether an arrival is among the first guarantee - run entries of its model."""
    cdef const Model* model = &core.models[index]
    cdef const Lane* lanes = &core.lanes[index * CLASSES]
    cdef uint32_t left = model.guarantee - model.run if model.guarantee > model.run else 0
    cdef uint32_t higher
    for higher in range(klass):
        left -= min(lanes[higher].count, left)
    return left != 0 and lane_up_to(core, &lanes[klass], start_by, left) < left


cdef bint has_room(Core* core, const Partition* partition, uint32_t index, uint32_t klass,
                   int64_t start_by, bint* shedding) noexcept nogil:
    """Whether the partition's cap lets an arrival wait, and whether another one must be shed for it."""
    cdef uint32_t loose[CLASSES]
    cdef const Model* model = &core.models[index]
    cdef bint entitled
    shedding[0] = False
    if partition.waiting < partition.queue_cap:
        return True                     # the loose ones are not more than all
    partition_loose(core, partition, loose)
    if <uint64_t>loose[0] + loose[1] + loose[2] < partition.queue_cap:
        return True
    entitled = would_be_entitled(core, index, klass, start_by)
    if entitled and model.waiting < model.guarantee - model.run:
        return True                     # nobody becomes loose by it
    if not entitled and klass >= (2 if loose[2] else 1 if loose[1] else 0):
        return False
    shedding[0] = True
    return True


cdef int arrival(Core* core, uint32_t connection, uint64_t number, uint32_t index, uint32_t klass, int64_t start_by,
                 int otherwise) noexcept nogil:
    """Grant, refuse or let wait an arrival of a known model; returns its outcome, or -1 if it waits."""
    cdef Connection* peer = &core.connections[connection]
    cdef Model* model = &core.models[index]
    cdef Partition* partition = &core.partitions[model.partition]
    cdef Counters* counters
    cdef bint green, shedding
    if klass < peer.highest:
        return UNAUTHORISED
    if partition.draining:
        return DRAINING
    if model.denied:
        return MEMORY_OVERRUN
    if start_by <= core.now:
        return DEADLINE_PASSED
    if peer.waiting >= core.bounds.requests_per_connection:
        return QUEUE_FULL_CONN
    if partition.run < partition.capacity and model.run < model.limit:
        # Nothing else is eligible, or it would run: the rule has no choice left but to count.
        green = model.run < model.guarantee
        if green:
            model.waited[klass] = 0
        else:
            partition.waited[klass] = 0
            charge(core, partition, model, klass)
        counters = counters_write(core, index)
        lease_start(core, connection, number, index, klass, core.now, green, counters)
        model_changed(core, index, counters, False)
        return GRANTED
    if otherwise:
        return otherwise
    if model.waiting >= model.queue_cap:
        return QUEUE_FULL_MODEL
    if core.waiting >= core.bounds.requests:
        return QUEUE_FULL_PARTITION
    if not has_room(core, partition, index, klass, start_by, &shedding):
        return QUEUE_FULL_PARTITION
    counters = counters_write(core, index)
    request_add(core, connection, number, index, klass, start_by, counters)
    model_changed(core, index, counters, False)
    if shedding:
        shed(core, partition)
    return -1
