# What Python reads of a core, as plain tuples: the frozen statistics, the running leases.


cdef tuple numbers_tuple(const uint64_t* numbers, uint32_t count):
    return tuple([numbers[place] for place in range(count)])


cdef tuple model_read(const Counters* counters, int64_t now):
    """In the order of aimd.dispatch.ModelSnapshot."""
    cdef Counters present = counters[0]
    counters_accrue(&present, now)
    return (
        present.model,
        bool(present.removed),
        numbers_tuple(present.running, CLASSES),
        numbers_tuple(present.waiting, CLASSES),
        tuple([numbers_tuple(present.outcomes[klass], OUTCOMES) for klass in range(CLASSES)]),
        tuple([numbers_tuple(present.ends[klass], ENDS) for klass in range(CLASSES)]),
        numbers_tuple(present.restored, CLASSES),
        numbers_tuple(present.good, CLASSES),
        numbers_tuple(present.bad, CLASSES),
        (<object>present.running_ns[1] << 64) | present.running_ns[0],
        present.backlog_ns,
        numbers_tuple(present.colour_ns, 3),
    )


cdef object snapshot_read(Core* core, bint frozen=True):
    """(now, partitions, unrouted, connections); a partition is in the order of aimd.dispatch.PartitionSnapshot."""
    cdef const Statistics* statistics = &core.statistics
    cdef const char* source = statistics.frozen if frozen else statistics.live
    cdef int64_t now = statistics.now if frozen else core.now
    cdef uint64_t connections = statistics.connections if frozen else core.open_connections
    cdef const Counters* counters
    cdef const Place* place
    cdef uint32_t number
    cdef dict models = {}
    cdef list partitions = []
    cdef list own
    for number in range(core.bounds.models):
        counters = <const Counters*>(source + <uint64_t>number * BLOCK)
        if counters.used:
            models.setdefault(counters.partition, []).append(model_read(counters, now))
    for number in range(core.bounds.partitions):
        place = <const Place*>(source + statistics.places_offset + <uint64_t>number * 64)
        if place.used:
            own = sorted(models.get(number, ()))
            partitions.append((place.id, bool(place.removed), bool(place.draining), place.capacity,
                               sum([sum(model[2]) for model in own]), sum([sum(model[3]) for model in own]),
                               tuple(own)))
    unrouted = numbers_tuple(<const uint64_t*>(source + statistics.unrouted_offset), OUTCOMES)
    return now, tuple(sorted(partitions)), unrouted, connections


cdef extern from "sched.h":
    int sched_yield() noexcept nogil


cdef object latencies_read(Core* core, bint frozen=True):
    """[(partition, model, sketches)]; a sketch is (sum, largest, {cell: count}), ten of a model: queue time by class,
    service time by class, end to end by class, reclaim.
    """
    cdef const Statistics* statistics = &core.statistics
    cdef const char* source = statistics.frozen if frozen else statistics.live
    cdef const Counters* counters
    cdef const uint64_t* cells
    cdef uint32_t number, sketch, cell
    cdef list found = []
    cdef list own
    for number in range(core.bounds.models):
        counters = <const Counters*>(source + <uint64_t>number * BLOCK)
        if not counters.used:
            continue
        own = []
        for sketch in range(SKETCHES):
            cells = <const uint64_t*>(source + sketch_offset(statistics, number, sketch))
            total = (<object>counters.latency_sum[sketch][1] << 64) | counters.latency_sum[sketch][0]
            own.append((total, counters.latency_max[sketch],
                        {cell: cells[cell] for cell in range(SKETCH_USED) if cells[cell]}))
        partition = (<const Place*>(source + statistics.places_offset + counters.partition * 64)).id
        found.append((partition, counters.model, own))
        if frozen:
            with nogil:                 # nobody writes to the copy: other threads of Python may have their turn
                sched_yield()
    found.sort(key=lambda one: one[:2])
    return found


cdef object leases_read(Core* core):
    cdef uint32_t slot
    cdef const Lease* lease
    cdef list found = []
    for slot in range(core.bounds.leases):
        lease = &core.leases[slot]
        if lease.live:
            found.append((lease.id, core.partitions[core.models[lease.model].partition].id,
                          core.models[lease.model].id, <int>lease.klass, core.processes[lease.process].id,
                          lease.started, lease.deadline))
    return found


@cython.boundscheck(True)
cdef object restore_check(Core* core, tuple leases):
    """Raise ValueError for leases that core_restore could not take; each is a tuple of seven integers."""
    cdef uint32_t place, index
    if core.begun or core.waiting:
        raise ValueError("leases cannot be restored any more: expected a core in which nothing has waited or run yet")
    slots = {lease[0] & ((1 << SLOT_BITS) - 1) for lease in leases}
    if len(slots) < len(leases):
        raise ValueError("two leases to restore are in one slot: expected each slot once")
    if slots and max(slots) >= core.bounds.leases:
        raise ValueError(f"a lease to restore is in slot {max(slots)}: expected one below {core.bounds.leases}")
    runs = {}
    models = {(lease[1], lease[2]) for lease in leases}
    for lease in leases:
        runs[lease[1]] = runs.get(lease[1], 0) + 1
    for place in range(core.bounds.partitions):
        if not core.partitions[place].used:
            continue
        id = core.partitions[place].id
        runs[id] = max(core.partitions[place].capacity, runs.get(id, 0))
        index = set_after(&core.partitions[place].members, 0)
        while index != NONE:
            models.add((id, core.models[index].id))
            index = set_after(&core.partitions[place].members, index + 1)
    for name, need, bound in (("partitions", len(runs), core.bounds.partitions),
                              ("models", len(models), core.bounds.models),
                              ("leases", sum(runs.values()), core.bounds.leases)):
        if need > bound:
            raise ValueError(f"the leases to restore bring the {name} to {need}: the core has room for {bound}")
