# The calls: check, let the time pass, do it, run the rule.


cdef enum:
    AHEAD = 8                   # requests: 2 to 16 come to the same


cdef inline void request_prefetch(const Core* core, const Request* entry) noexcept nogil:
    """Ask for what the end of this request will touch: an index of NONE gives an address that is not read."""
    cdef const Table* table = &core.waiting_table
    prefetch(&core.late_places[<size_t>(entry - core.requests)])
    prefetch(&table.cells[table_home(table, entry.number, entry.connection)])
    prefetch(core.requests + entry.prev)
    prefetch(core.requests + entry.next)
    prefetch(core.requests + entry.connection_prev)
    prefetch(core.requests + entry.connection_next)


cdef void expire(Core* core, uint32_t first) noexcept nogil:
    """End the requests that are due, a list by `timer.next`. As request_end does, but what is found out anew of a lane
    or a model is so once and not for each, and memory is asked for some requests ahead.
    """
    cdef uint32_t index = first
    cdef uint32_t ahead = first
    cdef uint32_t following, model, klass
    cdef Request* entry
    cdef Counters* counters
    for following in range(AHEAD):
        if ahead != NONE:
            request_prefetch(core, &core.requests[ahead])
            ahead = core.requests[ahead].timer.next
    while index != NONE:
        if ahead != NONE:
            request_prefetch(core, &core.requests[ahead])
            ahead = core.requests[ahead].timer.next
        entry = &core.requests[index]
        following = entry.timer.next
        model = entry.lane // CLASSES
        counters = counters_write(core, model)
        outcome_count(counters, entry.lane % CLASSES, EXPIRED)
        ended(core, entry.connection, entry.number, EXPIRED)
        lane_expire(core, &core.lanes[entry.lane], index)
        request_forget(core, index, counters)
        set_add(&core.touched, model)
        index = following
    model = set_after(&core.touched, 0)
    while model != NONE:
        set_discard(&core.touched, model)
        for klass in range(CLASSES):
            if core.lanes[model * CLASSES + klass].swept:
                lane_sweep(&core.lanes[model * CLASSES + klass], core.now)
        model_changed(core, model, counters_write(core, model), False)
        model = set_after(&core.touched, model + 1)


cdef void due(Core* core) noexcept nogil:
    """End what is due now, then run the rule."""
    cdef uint32_t index = wheel_collect(&core.lease_ends, core.now)
    cdef uint32_t following
    while index != NONE:
        following = core.leases[index].timer.next
        lease_end(core, index, REVOKED if core.leases[index].deadline <= core.now else LOST)
        index = following
    expire(core, wheel_collect(&core.expiry, core.now))
    grant_all(core)


cdef inline void pass_time(Core* core, int64_t now) noexcept nogil:
    core.now = now
    if now >= core.lease_ends.next or now >= core.expiry.next:
        due(core)


cdef inline bint is_open(const Core* core, uint32_t connection) noexcept nogil:
    return connection < core.bounds.connections and core.connections[connection].open


cdef bint core_enter(Core* core) noexcept nogil:
    return flag_take(&core.entered)


cdef void core_leave(Core* core) noexcept nogil:
    flag_give(&core.entered)


cdef int core_advance(Core* core, int64_t now) noexcept nogil:
    core.event_count = 0
    if now < core.now:
        return BAD_TIME
    pass_time(core, now)
    return 0


cdef int64_t core_next(Core* core) noexcept nogil:
    return min(core.lease_ends.next, core.expiry.next)


cdef int core_acquire(Core* core, int64_t now, uint32_t connection, int64_t request, uint32_t partition,
                      uint32_t model, int klass, int64_t start_by, int otherwise) noexcept nogil:
    cdef uint32_t place, index
    cdef int outcome
    cdef Event* event
    core.event_count = 0
    if now < core.now:
        return BAD_TIME
    if not is_open(core, connection):
        return BAD_CONNECTION
    if request < 0 or klass < -1 or klass >= CLASSES or (
            core.connections[connection].waiting
            and table_find(&core.waiting_table, <uint64_t>request, connection) != NONE):
        return BAD_REQUEST
    pass_time(core, now)
    # Mostly it is the model that the last one was for: two look-ups less, if its record still says so.
    index = core.latest
    place = core.models[index].partition
    if not core.models[index].used or core.models[index].id != model or core.partitions[place].id != partition:
        index = NONE
        place = table_find(&core.partition_table, partition, 0)
    if place == NONE or core.partitions[place].removed:
        outcome = UNKNOWN_PARTITION
    else:
        if index == NONE:
            index = table_find(&core.model_table, model, place)
            if index != NONE:
                core.latest = index
        if index == NONE or core.models[index].removed:
            outcome = UNKNOWN_MODEL
        else:
            if klass < 0:
                klass = core.models[index].default_class
            if start_by < 0:
                start_by = later(now, core.models[index].budget[klass])
            outcome = arrival(core, connection, <uint64_t>request, index, <uint32_t>klass, start_by, otherwise)
            if outcome > GRANTED:
                outcome_count(counters_write(core, index), <uint32_t>klass, outcome)
                ended(core, connection, <uint64_t>request, outcome)
                if outcome <= QUEUE_FULL_CONN:
                    core.events[core.event_count - 1].when = lane_hint(&core.lanes[index * CLASSES + klass])
            elif outcome < 0:
                event = event_new(core, QUEUED)
                event.connection = connection
                event.number = <uint64_t>request
            return 0
    unrouted_write(core)[outcome] += 1
    ended(core, connection, <uint64_t>request, outcome)
    return 0


cdef inline void refused(Core* core, uint32_t connection, uint64_t number, int fault) noexcept nogil:
    cdef Event* event = event_new(core, REFUSED)
    event.connection = connection
    event.number = number
    event.detail = <uint8_t>fault


cdef inline uint32_t owned(Core* core, uint32_t connection, uint64_t lease) noexcept nogil:
    """The slot of a lease of the connection's process; else this is said and NONE returned."""
    cdef uint32_t slot = lease_find(core, lease)
    if slot == NONE:
        refused(core, connection, lease, STALE_LEASE)
    elif core.leases[slot].process != core.connections[connection].process:
        refused(core, connection, lease, NOT_OWNER)
        slot = NONE
    return slot


cdef int core_release(Core* core, int64_t now, uint32_t connection, uint64_t lease, bint ok) noexcept nogil:
    cdef uint32_t slot
    core.event_count = 0
    if now < core.now:
        return BAD_TIME
    if not is_open(core, connection):
        return BAD_CONNECTION
    pass_time(core, now)
    slot = owned(core, connection, lease)
    if slot != NONE:
        lease_end(core, slot, OK if ok else FAILED)
        grant_all(core)
    return 0


cdef int core_renew(Core* core, int64_t now, uint32_t connection, uint64_t lease) noexcept nogil:
    cdef uint32_t slot
    cdef const Model* model
    cdef const Partition* partition
    cdef Event* event
    core.event_count = 0
    if now < core.now:
        return BAD_TIME
    if not is_open(core, connection):
        return BAD_CONNECTION
    pass_time(core, now)
    slot = owned(core, connection, lease)
    if slot == NONE:
        return 0
    model = &core.models[core.leases[slot].model]
    partition = &core.partitions[model.partition]
    if partition.hungry.top and model.run > model.guarantee:
        refused(core, connection, lease, RECLAIM)
        return 0
    core.leases[slot].deadline = later(now, partition.lease_max)
    wheel_remove(&core.lease_ends, slot)
    lease_arm(core, slot)
    event = event_new(core, RENEWED)
    event.lease = lease
    event.when = core.leases[slot].deadline
    return 0


cdef int core_cancel(Core* core, int64_t now, uint32_t connection, uint64_t request) noexcept nogil:
    cdef uint32_t index
    core.event_count = 0
    if now < core.now:
        return BAD_TIME
    if not is_open(core, connection):
        return BAD_CONNECTION
    pass_time(core, now)
    index = table_find(&core.waiting_table, request, connection)
    if index == NONE:
        refused(core, connection, request, STALE_LEASE)
    else:
        request_end(core, index, CANCELLED)
    return 0


cdef int core_adopt(Core* core, int64_t now, uint32_t connection, uint64_t lease) noexcept nogil:
    cdef uint32_t slot
    cdef Event* event
    core.event_count = 0
    if now < core.now:
        return BAD_TIME
    if not is_open(core, connection):
        return BAD_CONNECTION
    pass_time(core, now)
    slot = owned(core, connection, lease)
    if slot == NONE:
        return 0
    lease_unbind(core, slot)
    lease_bind(core, slot, connection)
    core.leases[slot].lost_at = NEVER
    wheel_remove(&core.lease_ends, slot)
    lease_arm(core, slot)
    event = event_new(core, ADOPTED)
    event.connection = connection
    event.lease = lease
    return 0


cdef int64_t core_open(Core* core, int64_t process, int highest) noexcept nogil:
    """The connection, or FULL."""
    cdef uint32_t connection = numbers_take(&core.free_connections)
    cdef uint32_t known
    cdef Connection* peer
    core.event_count = 0
    if connection == NONE:
        return FULL
    known = process_enter(core, process)
    peer = &core.connections[connection]
    peer.process = known
    peer.waiting = 0
    peer.requests = NONE
    peer.leases = NONE
    peer.process_prev = NONE
    peer.process_next = core.processes[known].connections
    if peer.process_next != NONE:
        core.connections[peer.process_next].process_prev = connection
    core.processes[known].connections = connection
    peer.highest = <uint8_t>highest
    peer.open = 1
    core.open_connections += 1
    return connection


cdef void close(Core* core, uint32_t connection) noexcept nogil:
    """End what waits and give the number back; leases that depended on it depend on nothing now."""
    cdef Connection* peer = &core.connections[connection]
    while peer.requests != NONE:
        request_end(core, peer.requests, CANCELLED)
    while peer.leases != NONE:
        lease_unbind(core, peer.leases)
    if peer.process_next != NONE:
        core.connections[peer.process_next].process_prev = peer.process_prev
    if peer.process_prev != NONE:
        core.connections[peer.process_prev].process_next = peer.process_next
    else:
        core.processes[peer.process].connections = peer.process_next
        process_leave(core, peer.process)
    peer.open = 0
    core.open_connections -= 1
    numbers_give(&core.free_connections, connection)


cdef void orphan(Core* core, uint32_t slot) noexcept nogil:
    cdef Lease* lease = &core.leases[slot]
    cdef Event* event = event_new(core, ORPHANED)
    lease_unbind(core, slot)
    lease.lost_at = later(core.now, core.partitions[core.models[lease.model].partition].orphan_grace)
    wheel_remove(&core.lease_ends, slot)
    lease_arm(core, slot)
    event.lease = lease.id
    event.when = lease.lost_at


cdef int core_disconnect(Core* core, int64_t now, uint32_t connection, bint alive) noexcept nogil:
    cdef uint32_t slot
    core.event_count = 0
    if now < core.now:
        return BAD_TIME
    if not is_open(core, connection):
        return BAD_CONNECTION
    pass_time(core, now)
    while True:
        slot = core.connections[connection].leases
        if slot == NONE:
            break
        if alive:
            orphan(core, slot)
        else:
            lease_end(core, slot, LOST)
    close(core, connection)
    grant_all(core)
    return 0


cdef int core_exited(Core* core, int64_t now, int64_t process) noexcept nogil:
    cdef uint32_t known
    core.event_count = 0
    if now < core.now:
        return BAD_TIME
    pass_time(core, now)
    while True:
        # Asked anew each time: the record goes with the last connection or lease.
        known = table_find(&core.process_table, <uint64_t>process, 0)
        if known == NONE:
            break
        if core.processes[known].connections != NONE:
            close(core, core.processes[known].connections)
        else:
            lease_end(core, core.processes[known].leases, LOST)
    grant_all(core)
    return 0
