# Leases and waiting requests: how they begin and end. Whoever changes a model calls model_changed afterwards.


cdef inline void lease_arm(Core* core, uint32_t slot) noexcept nogil:
    cdef Lease* lease = &core.leases[slot]
    wheel_add(&core.lease_ends, slot, min(lease.deadline, lease.lost_at), core.now)


cdef inline void lease_bind(Core* core, uint32_t slot, uint32_t connection) noexcept nogil:
    """Let the lease depend on a connection, or (NONE) on none."""
    cdef Lease* lease = &core.leases[slot]
    cdef uint32_t second
    lease.connection = connection
    if connection == NONE:
        return
    second = core.connections[connection].leases
    lease.connection_prev = NONE
    lease.connection_next = second
    if second != NONE:
        core.leases[second].connection_prev = slot
    core.connections[connection].leases = slot


cdef inline void lease_unbind(Core* core, uint32_t slot) noexcept nogil:
    cdef Lease* lease = &core.leases[slot]
    if lease.connection == NONE:
        return
    if lease.connection_next != NONE:
        core.leases[lease.connection_next].connection_prev = lease.connection_prev
    if lease.connection_prev != NONE:
        core.leases[lease.connection_prev].connection_next = lease.connection_next
    else:
        core.connections[lease.connection].leases = lease.connection_next
    lease.connection = NONE


cdef void lease_enter(Core* core, uint32_t slot, uint32_t index, uint32_t klass, uint32_t process,
                      Counters* counters) noexcept nogil:
    """What a granted and a restored lease have in common; its times are set."""
    cdef Lease* lease = &core.leases[slot]
    cdef uint32_t second = core.processes[process].leases
    lease.model = index
    lease.klass = <uint8_t>klass
    lease.live = 1
    core.begun = 1
    lease.process = process
    lease.process_prev = NONE
    lease.process_next = second
    if second != NONE:
        core.leases[second].process_prev = slot
    core.processes[process].leases = slot
    lease_arm(core, slot)
    core.models[index].run += 1
    core.partitions[core.models[index].partition].run += 1
    core.running += 1
    counters.running[klass] += 1


cdef inline void lease_start(Core* core, uint32_t connection, uint64_t number, uint32_t index, uint32_t klass,
                             int64_t submitted, bint green, Counters* counters) noexcept nogil:
    cdef uint32_t slot = numbers_take(&core.free_leases)     # there is one: the bound of configure
    cdef Lease* lease = &core.leases[slot]
    cdef Model* model = &core.models[index]
    cdef Partition* partition = &core.partitions[model.partition]
    cdef Event* event = event_new(core, GRANTED_EVENT)
    lease.submitted = submitted
    lease.started = core.now
    lease.deadline = later(core.now, partition.lease_max)
    lease.lost_at = NEVER
    lease_enter(core, slot, index, klass, core.connections[connection].process, counters)
    lease_bind(core, slot, connection)
    lane_granted(&core.lanes[index * CLASSES + klass], core.now)
    counters.outcomes[klass][<int>GRANTED] += 1
    latency_record(core, counters, index, klass, <uint64_t>(core.now - submitted))
    event.connection = connection
    event.number = number
    event.lease = lease.id
    event.partition = partition.id
    event.model = model.id
    event.detail = <uint8_t>klass
    event.green = green


cdef void process_leave(Core* core, uint32_t process) noexcept nogil:
    """Forget a process that has neither connection nor lease left."""
    cdef Process* known = &core.processes[process]
    if known.connections == NONE and known.leases == NONE:
        table_remove(&core.process_table, <uint64_t>known.id, 0)
        known.connections = core.free_process
        core.free_process = process


cdef uint32_t process_enter(Core* core, int64_t id) noexcept nogil:
    cdef uint32_t process = table_find(&core.process_table, <uint64_t>id, 0)
    if process != NONE:
        return process
    process = core.free_process
    if process != NONE:
        core.free_process = core.processes[process].connections
    else:
        process = core.fresh_processes
        core.fresh_processes += 1
    core.processes[process].id = id
    core.processes[process].connections = NONE
    core.processes[process].leases = NONE
    table_add(&core.process_table, <uint64_t>id, 0, process)
    return process


cdef void lease_end(Core* core, uint32_t slot, int how) noexcept nogil:
    cdef Lease* lease = &core.leases[slot]
    cdef uint32_t index = lease.model
    cdef uint32_t klass = lease.klass
    cdef Model* model = &core.models[index]
    cdef Partition* partition = &core.partitions[model.partition]
    cdef Counters* counters = counters_write(core, index)
    cdef Event* event
    cdef int64_t whole = core.now - lease.submitted
    counters.ends[klass][how] += 1
    if how == OK and (model.latency_target == 0 or whole <= model.latency_target):
        counters.good[klass] += 1
    else:
        counters.bad[klass] += 1
    if how == OK or how == FAILED:
        # A restored lease may say that it began after now: its clock was another one.
        latency_record(core, counters, index, CLASSES + klass, <uint64_t>max(core.now - lease.started, 0))
        latency_record(core, counters, index, 2 * CLASSES + klass, <uint64_t>max(whole, 0))
        event = event_new(core, RELEASED)
        event.detail = how == OK
    else:
        event = event_new(core, REVOKED_EVENT if how == REVOKED else LOST_EVENT)
    event.lease = lease.id
    wheel_remove(&core.lease_ends, slot)
    lease_unbind(core, slot)
    if lease.process_next != NONE:
        core.leases[lease.process_next].process_prev = lease.process_prev
    if lease.process_prev != NONE:
        core.leases[lease.process_prev].process_next = lease.process_next
    else:
        core.processes[lease.process].leases = lease.process_next
        process_leave(core, lease.process)
    lease.live = 0
    lease.id += 1 << SLOT_BITS
    numbers_give(&core.free_leases, slot)
    core.running -= 1
    partition.run -= 1
    model.run -= 1
    counters.running[klass] -= 1
    set_add(&core.dirty, partition.rank)
    model_changed(core, index, counters, False)


cdef inline uint32_t lease_find(const Core* core, uint64_t lease) noexcept nogil:
    cdef uint32_t slot = <uint32_t>(lease & ((1 << SLOT_BITS) - 1))
    if slot >= core.bounds.leases or not core.leases[slot].live or core.leases[slot].id != lease:
        return NONE
    return slot


cdef inline void request_add(Core* core, uint32_t connection, uint64_t number, uint32_t index, uint32_t klass,
                             int64_t start_by, Counters* counters) noexcept nogil:
    """Let an arrival wait; there is room for it."""
    cdef uint32_t request = core.free_request
    cdef Request* entry
    cdef Connection* peer = &core.connections[connection]
    cdef Model* model = &core.models[index]
    cdef Partition* partition = &core.partitions[model.partition]
    if request != NONE:
        core.free_request = core.requests[request].next
    else:
        request = core.fresh_requests
        core.fresh_requests += 1
    entry = &core.requests[request]
    core.seq += 1
    entry.seq = core.seq
    entry.submitted = core.now
    entry.number = number
    entry.lane = index * CLASSES + klass
    entry.connection = connection
    wheel_add(&core.expiry, request, start_by, core.now)
    lane_add(core, &core.lanes[entry.lane], request)
    table_add(&core.waiting_table, number, connection, request)
    entry.connection_prev = NONE
    entry.connection_next = peer.requests
    if peer.requests != NONE:
        core.requests[peer.requests].connection_prev = request
    peer.requests = request
    peer.waiting += 1
    core.waiting += 1
    model.waiting += 1
    partition.waiting += 1
    partition.counts[klass] += 1
    counters.waiting[klass] += 1


cdef inline void request_drop(Core* core, uint32_t request, Counters* counters) noexcept nogil:
    """Take a request out of all structures."""
    lane_remove(core, &core.lanes[core.requests[request].lane], request)
    wheel_remove(&core.expiry, request)
    request_forget(core, request, counters)


cdef inline void request_forget(Core* core, uint32_t request, Counters* counters) noexcept nogil:
    """Take a request that is in no lane and no wheel any more out of the rest."""
    cdef Request* entry = &core.requests[request]
    cdef Connection* peer = &core.connections[entry.connection]
    cdef uint32_t index = entry.lane // CLASSES
    cdef uint32_t klass = entry.lane % CLASSES
    cdef Model* model = &core.models[index]
    cdef Partition* partition = &core.partitions[model.partition]
    table_remove(&core.waiting_table, entry.number, entry.connection)
    if entry.connection_next != NONE:
        core.requests[entry.connection_next].connection_prev = entry.connection_prev
    if entry.connection_prev != NONE:
        core.requests[entry.connection_prev].connection_next = entry.connection_next
    else:
        peer.requests = entry.connection_next
    peer.waiting -= 1
    core.waiting -= 1
    model.waiting -= 1
    partition.waiting -= 1
    partition.counts[klass] -= 1
    counters.waiting[klass] -= 1
    if core.lanes[entry.lane].count == 0:
        model.waited[klass] = 0
        if partition.counts[klass] == 0:
            partition.waited[klass] = 0
    entry.next = core.free_request
    core.free_request = request


cdef inline void outcome_count(Counters* counters, uint32_t klass, int outcome) noexcept nogil:
    counters.outcomes[klass][outcome] += 1
    if ((outcome >= QUEUE_FULL_MODEL and outcome <= QUEUE_FULL_CONN) or outcome == QUEUE_FULL_UID
            or outcome == EXPIRED or outcome == SHED):
        counters.bad[klass] += 1


cdef inline void ended(Core* core, uint32_t connection, uint64_t number, int outcome) noexcept nogil:
    cdef Event* event = event_new(core, ENDED)
    event.connection = connection
    event.number = number
    event.detail = <uint8_t>outcome
    event.when = 0


cdef void request_end(Core* core, uint32_t request, int outcome) noexcept nogil:
    """End a waiting request without a lease."""
    cdef Request* entry = &core.requests[request]
    cdef uint32_t index = entry.lane // CLASSES
    cdef Counters* counters = counters_write(core, index)
    outcome_count(counters, entry.lane % CLASSES, outcome)
    ended(core, entry.connection, entry.number, outcome)
    request_drop(core, request, counters)
    model_changed(core, index, counters, False)
