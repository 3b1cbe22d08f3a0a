# Partitions and models come, change and go: the control path. It scans, and takes records from fixed arrays.


cdef bint model_kept(const Core* core, uint32_t index) noexcept nogil:
    return not core.models[index].removed or core.models[index].run != 0


cdef bint partition_kept(const Core* core, uint32_t place) noexcept nogil:
    """Whether the record outlives the next change of the configuration."""
    cdef const Partition* partition = &core.partitions[place]
    return not partition.removed or partition.run != 0


cdef void model_drop(Core* core, uint32_t index) noexcept nogil:
    cdef Model* model = &core.models[index]
    table_remove(&core.model_table, model.id, model.partition)
    set_discard(&core.partitions[model.partition].members, index)
    model.used = 0
    statistics_forget(core, index)
    set_add(&core.free_models, index)


cdef void place_show(Core* core, uint32_t place) noexcept nogil:
    """Bring what a snapshot shows of a partition up to date."""
    cdef const Partition* partition = &core.partitions[place]
    cdef Place* shown = place_write(core, place)
    shown.used = partition.used
    shown.id = partition.id
    shown.removed = partition.removed
    shown.draining = partition.draining
    shown.capacity = partition.capacity


cdef void drop_records(Core* core) noexcept nogil:
    """Forget removed models and partitions of which nothing runs."""
    cdef uint32_t place, index
    cdef Partition* partition
    for place in range(core.bounds.partitions):
        partition = &core.partitions[place]
        if not partition.used:
            continue
        index = set_after(&partition.members, 0)
        while index != NONE:
            if not model_kept(core, index):
                model_drop(core, index)
            index = set_after(&partition.members, index + 1)
        if not partition_kept(core, place):
            table_remove(&core.partition_table, partition.id, 0)
            partition.used = 0
            place_show(core, place)
            set_add(&core.free_partitions, place)


cdef void rank_partitions(Core* core) noexcept nogil:
    """Number the partitions by id. Nothing may be dirty: that is a set of ranks."""
    cdef uint32_t place, rank
    core.partition_count = 0
    for place in range(core.bounds.partitions):
        if not core.partitions[place].used:
            continue
        rank = core.partition_count
        core.partition_count += 1
        while rank and core.partitions[core.by_rank[rank - 1]].id > core.partitions[place].id:
            core.by_rank[rank] = core.by_rank[rank - 1]
            rank -= 1
        core.by_rank[rank] = place
    for rank in range(core.partition_count):
        core.partitions[core.by_rank[rank]].rank = rank


cdef uint32_t partition_add(Core* core, uint32_t id) noexcept nogil:
    """A record with the defaults of a partition that is not configured: removed, without slots."""
    cdef uint32_t place = set_after(&core.free_partitions, 0)
    cdef Partition* partition = &core.partitions[place]
    cdef uint32_t klass
    set_discard(&core.free_partitions, place)
    partition.id = id
    partition.run = 0
    partition.capacity = 0
    partition.waiting = 0
    partition.queue_cap = 0
    for klass in range(CLASSES):
        partition.waited[klass] = 0
        partition.counts[klass] = 0
        partition.tags[klass] = 0
    partition.lease_max = 600 * <int64_t>1_000_000_000
    partition.orphan_grace = 30 * <int64_t>1_000_000_000
    partition.used = 1
    partition.removed = 1
    partition.draining = 0
    table_add(&core.partition_table, id, 0, place)
    rank_partitions(core)
    place_show(core, place)
    return place


cdef uint32_t model_add(Core* core, uint32_t place, uint32_t id) noexcept nogil:
    """A record with the defaults of a model that is not configured: removed, without slots."""
    cdef uint32_t index = set_after(&core.free_models, 0)
    cdef Model* model = &core.models[index]
    cdef Counters* counters = <Counters*>statistics_write(core, <uint64_t>index * BLOCK)
    cdef uint32_t klass
    set_discard(&core.free_models, index)
    memset(model, 0, sizeof(Model))
    model.id = id
    model.partition = place
    model.removed = 1
    model.used = 1
    model_weigh(model, 1)
    for klass in range(CLASSES):
        core.lanes[index * CLASSES + klass].grants = 0
    table_add(&core.model_table, id, place, index)
    set_add(&core.partitions[place].members, index)
    counters.used = 1
    counters.model = id
    counters.partition = place
    counters.removed = 1
    counters.since = core.now
    counters.colour = 2
    return index


cdef void model_weigh(Model* model, uint32_t weight) noexcept nogil:
    model.weight = weight
    model.step = TAG_SCALE // weight
    model.rest = <uint32_t>(TAG_SCALE % weight)


cdef void model_empty(Core* core, uint32_t index, int outcome) noexcept nogil:
    """End all that waits for the model."""
    cdef uint32_t klass
    cdef Lane* lane
    for klass in range(CLASSES):
        lane = &core.lanes[index * CLASSES + klass]
        while lane.count:
            request_end(core, lane_head(core, lane), outcome)


cdef void model_retire(Core* core, uint32_t index, int outcome) noexcept nogil:
    cdef Model* model = &core.models[index]
    cdef Counters* counters = counters_write(core, index)
    model.guarantee = 0
    model.limit = 0
    model.removed = 1
    counters.removed = 1
    model_changed(core, index, counters, False)
    model_empty(core, index, outcome)


cdef void model_set(Core* core, uint32_t index, const ModelSpec* spec) noexcept nogil:
    cdef Model* model = &core.models[index]
    cdef const Partition* partition = &core.partitions[model.partition]
    cdef Counters* counters = counters_write(core, index)
    cdef uint32_t klass
    if spec.weight != model.weight:
        # V <= v <= V + 1/w stays true of every competitor; what lies below V counts as V anyway.
        model_weigh(model, spec.weight)
        for klass in range(CLASSES):
            model.tags[klass] = min(model.tags[klass], partition.tags[klass] + model.step)
            model.carry[klass] = 0
    model.guarantee = spec.guarantee
    model.limit = spec.limit
    model.queue_cap = spec.queue_cap
    model.default_class = spec.default_class
    for klass in range(CLASSES):
        model.budget[klass] = spec.budget[klass]
    model.latency_target = spec.latency_target
    model.denied = spec.denied
    model.removed = 0
    counters.removed = 0
    model_changed(core, index, counters, False)
    if spec.denied:
        model_empty(core, index, MEMORY_OVERRUN)


cdef int check_bounds(Core* core, const PartitionSpec* spec) noexcept nogil:
    cdef uint32_t place, index, kept
    cdef uint32_t number
    cdef const Partition* partition
    cdef uint64_t partitions = 1
    cdef uint64_t models = spec.model_count
    cdef uint64_t requests = <uint64_t>spec.queue_cap + spec.capacity
    cdef uint64_t leases = spec.capacity
    for place in range(core.bounds.partitions):
        partition = &core.partitions[place]
        if not partition.used or not partition_kept(core, place):
            continue
        kept = 0
        index = set_after(&partition.members, 0)
        while index != NONE:
            kept += model_kept(core, index)
            index = set_after(&partition.members, index + 1)
        models += kept
        if partition.id == spec.id:
            leases = max(spec.capacity, partition.run)
            for number in range(spec.model_count):       # those named again were counted twice
                index = table_find(&core.model_table, spec.models[number].id, place)
                models -= index != NONE and model_kept(core, index)
            continue
        partitions += 1
        if not partition.removed:
            requests += <uint64_t>partition.queue_cap + partition.capacity
    for place in range(core.bounds.partitions):
        partition = &core.partitions[place]
        if partition.used and partition.id != spec.id:
            leases += max(partition.capacity, partition.run)
    if partitions > core.bounds.partitions:
        core.needed = partitions
        return OVER_PARTITIONS
    if models > core.bounds.models:
        core.needed = models
        return OVER_MODELS
    if requests > core.bounds.requests:
        core.needed = requests
        return OVER_REQUESTS
    if leases > core.bounds.leases:
        core.needed = leases
        return OVER_LEASES
    return 0


cdef int core_configure(Core* core, int64_t now, const PartitionSpec* spec) noexcept nogil:
    cdef uint32_t place, index, number
    cdef Partition* partition
    cdef int trouble
    core.event_count = 0
    if now < core.now:
        return BAD_TIME
    trouble = check_bounds(core, spec)
    if trouble:
        return trouble
    pass_time(core, now)
    drop_records(core)
    rank_partitions(core)
    place = table_find(&core.partition_table, spec.id, 0)
    if place == NONE:
        place = partition_add(core, spec.id)
    partition = &core.partitions[place]
    if partition.removed:
        partition.removed = 0
        partition.draining = 0
    partition.capacity = spec.capacity
    partition.queue_cap = spec.queue_cap
    partition.lease_max = spec.lease_max
    partition.orphan_grace = spec.orphan_grace
    place_show(core, place)
    index = set_after(&partition.members, 0)
    while index != NONE:
        core.models[index].named = 0
        index = set_after(&partition.members, index + 1)
    for number in range(spec.model_count):
        index = table_find(&core.model_table, spec.models[number].id, place)
        if index != NONE:
            core.models[index].named = 1
    index = set_after(&partition.members, 0)
    while index != NONE:
        if not core.models[index].named:
            model_retire(core, index, MODEL_GONE)
        index = set_after(&partition.members, index + 1)
    for number in range(spec.model_count):
        index = table_find(&core.model_table, spec.models[number].id, place)
        if index == NONE:
            index = model_add(core, place, spec.models[number].id)
        model_set(core, index, &spec.models[number])
    set_add(&core.dirty, partition.rank)
    grant_all(core)
    return 0


cdef uint32_t present(const Core* core, uint32_t partition) noexcept nogil:
    cdef uint32_t place = table_find(&core.partition_table, partition, 0)
    return NONE if place != NONE and core.partitions[place].removed else place


cdef int core_remove(Core* core, int64_t now, uint32_t partition) noexcept nogil:
    cdef uint32_t place, index
    core.event_count = 0
    if now < core.now:
        return BAD_TIME
    place = present(core, partition)
    if place == NONE:
        return BAD_PARTITION
    pass_time(core, now)
    drop_records(core)
    rank_partitions(core)
    index = set_after(&core.partitions[place].members, 0)
    while index != NONE:
        model_retire(core, index, PARTITION_GONE)
        index = set_after(&core.partitions[place].members, index + 1)
    core.partitions[place].removed = 1
    core.partitions[place].capacity = 0
    place_show(core, place)
    return 0


cdef int core_drain(Core* core, int64_t now, uint32_t partition, bint draining) noexcept nogil:
    cdef uint32_t place
    core.event_count = 0
    if now < core.now:
        return BAD_TIME
    place = present(core, partition)
    if place == NONE:
        return BAD_PARTITION
    pass_time(core, now)
    core.partitions[place].draining = draining
    place_show(core, place)
    return 0


cdef int core_restore(Core* core, int64_t now, const LeaseSpec* specs, uint32_t count) noexcept nogil:
    cdef uint32_t number, place, index, slot
    cdef const LeaseSpec* spec
    cdef Lease* lease
    cdef Counters* counters
    core.event_count = 0
    if now < core.now:
        return BAD_TIME
    pass_time(core, now)
    for number in range(count):
        spec = &specs[number]
        place = table_find(&core.partition_table, spec.partition, 0)
        if place == NONE:
            place = partition_add(core, spec.partition)
        index = table_find(&core.model_table, spec.model, place)
        if index == NONE:
            index = model_add(core, place, spec.model)
        slot = <uint32_t>(spec.id & ((1 << SLOT_BITS) - 1))
        numbers_use(&core.free_leases, slot)
        counters = counters_write(core, index)
        lease = &core.leases[slot]
        lease.id = spec.id
        lease.submitted = spec.started
        lease.started = spec.started
        lease.deadline = spec.deadline
        lease.lost_at = later(now, core.partitions[place].orphan_grace)
        lease.connection = NONE
        lease_enter(core, slot, index, spec.klass, process_enter(core, spec.process), counters)
        counters.restored[spec.klass] += 1
        model_changed(core, index, counters, False)
    return 0
