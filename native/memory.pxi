# All memory of a core in one piece: laid out twice by the same function, once to count and once for good. It comes
# zeroed from the system and is touched only when used, so that large bounds cost address space and no memory.


cdef inline char* carve(char** at, uint64_t size) noexcept nogil:
    cdef char* piece = at[0]
    at[0] = piece + (size + 63) // 64 * 64
    return piece


cdef uint64_t power_above(uint64_t number) noexcept nogil:
    cdef uint64_t power = 16
    while power < number:
        power *= 2
    return power


cdef void lay_out_table(Table* table, char** at, uint64_t entries) noexcept nogil:
    cdef uint64_t cells = power_above(2 * entries)
    table.mask = cells - 1
    table.cells = <Cell*>carve(at, cells * sizeof(Cell))


cdef void lay_out_numbers(Numbers* numbers, char** at, uint64_t size) noexcept nogil:
    numbers.low = <uint64_t*>carve(at, (size + 63) // 64 * 8)
    numbers.middle = <uint64_t*>carve(at, (size + 4095) // 4096 * 8)


cdef void lay_out_set(Set* numbers, char** at, uint64_t size) noexcept nogil:
    numbers.words = <uint64_t*>carve(at, (size + 63) // 64 * 8)


cdef void lay_out_heap(Heap* heap, char** at, uint64_t slots) noexcept nogil:
    heap.chunks = <uint32_t*>carve(at, ((slots + 2 >> CHUNK_BITS) + 1) * 4)


cdef void lay_out_statistics(Core* core, char** at) noexcept nogil:
    cdef Statistics* statistics = &core.statistics
    cdef uint64_t models = core.bounds.models
    statistics.places_offset = models * BLOCK
    statistics.unrouted_offset = statistics.places_offset + <uint64_t>core.bounds.partitions * 64
    statistics.sketches_offset = (statistics.unrouted_offset + OUTCOMES * 8 + BLOCK - 1) // BLOCK * BLOCK
    statistics.blocks = sketch_offset(statistics, core.bounds.models, 0) // BLOCK
    statistics.saved = <uint32_t*>carve(at, statistics.blocks * 4)
    statistics.live = carve(at, statistics.blocks * BLOCK)
    statistics.frozen = carve(at, statistics.blocks * BLOCK)


cdef uint64_t lay_out(Core* core, char* memory) noexcept nogil:
    """Point everything into `memory`; returns its size."""
    cdef const Bounds* bounds = &core.bounds
    cdef uint64_t requests = bounds.requests
    cdef uint64_t leases = bounds.leases
    cdef uint64_t models = bounds.models
    cdef uint64_t processes = <uint64_t>bounds.connections + leases
    cdef uint32_t number, klass
    cdef char* at = memory
    cdef Partition* partition
    # Each lease and each request ends or begins at most once in a call, and those granted in it may end in it, too.
    core.events = <Event*>carve(&at, (2 * requests + 2 * leases + 16) * sizeof(Event))
    core.requests = <Request*>carve(&at, requests * sizeof(Request))
    core.late_places = <uint32_t*>carve(&at, requests * 4)
    core.leases = <Lease*>carve(&at, leases * sizeof(Lease))
    core.connections = <Connection*>carve(&at, bounds.connections * sizeof(Connection))
    core.processes = <Process*>carve(&at, processes * sizeof(Process))
    core.models = <Model*>carve(&at, models * sizeof(Model))
    core.lanes = <Lane*>carve(&at, models * CLASSES * sizeof(Lane))
    core.partitions = <Partition*>carve(&at, bounds.partitions * sizeof(Partition))
    core.by_rank = <uint32_t*>carve(&at, bounds.partitions * 4)
    core.frontier = <uint32_t*>carve(&at, 4 * (leases + 1) * 4)
    lay_out_set(&core.dirty, &at, bounds.partitions)
    lay_out_set(&core.free_models, &at, models)
    lay_out_set(&core.free_partitions, &at, bounds.partitions)
    lay_out_numbers(&core.free_leases, &at, leases)
    lay_out_numbers(&core.free_connections, &at, bounds.connections)
    lay_out_table(&core.waiting_table, &at, requests)
    lay_out_table(&core.process_table, &at, processes)
    lay_out_table(&core.model_table, &at, models)
    lay_out_table(&core.partition_table, &at, bounds.partitions)
    lay_out_heap(&core.expiry.due, &at, requests)
    lay_out_heap(&core.lease_ends.due, &at, leases)
    # A heap of n takes less than n / 256 + 2 chunks; a request can be in its lane's and in the wheel's.
    core.pool.chunks = <uint32_t>((2 * requests + leases) // (1 << CHUNK_BITS) + 2 * (models * CLASSES + 2))
    core.pool.nodes = <Node*>carve(&at, <uint64_t>core.pool.chunks * sizeof(Node) << CHUNK_BITS)
    core.pool.free_chunks = <uint32_t*>carve(&at, core.pool.chunks * 4)
    lay_out_statistics(core, &at)
    if memory == NULL:
        # The records that hold pointers are not there yet: only count what they will point to.
        at += models * CLASSES * ((((requests + 2 >> CHUNK_BITS) + 1) * 4 + 63) // 64 * 64)
        at += bounds.partitions * (2 * CLASSES + 2) * (((models + 63) // 64 * 8 + 63) // 64 * 64)
        return <uint64_t>(at - memory)
    for number in range(bounds.models):
        for klass in range(CLASSES):
            lay_out_heap(&core.lanes[number * CLASSES + klass].late, &at, requests)
    for number in range(bounds.partitions):
        partition = &core.partitions[number]
        for klass in range(CLASSES):
            lay_out_set(&partition.eligible[klass], &at, models)
            lay_out_set(&partition.lanes[klass], &at, models)
        lay_out_set(&partition.hungry, &at, models)
        lay_out_set(&partition.members, &at, models)
    return <uint64_t>(at - memory)


cdef void wheel_start(Wheel* wheel, Pool* pool, char* records, uint32_t stride) noexcept nogil:
    cdef uint32_t bucket
    wheel.records = records
    wheel.stride = stride
    wheel.next = NEVER
    for bucket in range(BUCKETS):
        wheel.heads[bucket] = NONE
    wheel.due.pool = pool
    wheel.due.places = records + sizeof(int64_t) + sizeof(uint32_t)       # of Timer.next
    wheel.due.stride = stride


cdef Core* core_new(Bounds bounds, uint64_t generation) noexcept nogil:
    """A core without partitions, or NULL when there is no memory. The bounds are in their ranges."""
    cdef Core* core = <Core*>calloc(1, sizeof(Core))
    cdef uint32_t number
    cdef Lane* lane
    if core == NULL:
        return NULL
    core.bounds = bounds
    core.memory_bytes = lay_out(core, NULL) + 64
    core.memory = <char*>calloc(1, core.memory_bytes)
    if core.memory == NULL:
        free(core)
        return NULL
    lay_out(core, <char*>((<size_t>core.memory + 63) // 64 * 64))
    core.free_request = NONE
    core.free_process = NONE
    core.statistics.epoch = 1
    for number in range(core.pool.chunks):
        core.pool.free_chunks[number] = core.pool.chunks - 1 - number
    core.pool.free_count = core.pool.chunks
    wheel_start(&core.expiry, &core.pool, <char*>core.requests, sizeof(Request))
    wheel_start(&core.lease_ends, &core.pool, <char*>core.leases, sizeof(Lease))
    for number in range(bounds.models * CLASSES):
        lane = &core.lanes[number]
        lane.head = lane.tail = lane.late_head = lane.late_tail = NONE
        lane.late.pool = &core.pool
        lane.late.places = <char*>core.late_places
        lane.late.stride = sizeof(uint32_t)
        lane.late.ties = core.requests
    for number in range(bounds.models):
        set_add(&core.free_models, number)
    for number in range(bounds.partitions):
        set_add(&core.free_partitions, number)
    for number in range(bounds.leases):
        core.leases[number].id = (generation << SLOT_BITS) | number
        core.leases[number].timer.prev = NONE
        numbers_give(&core.free_leases, number)
    for number in range(bounds.connections):
        numbers_give(&core.free_connections, number)
    # Where the memory lies is not known to a client: see table.pxi.
    core.waiting_table.seed = <uint64_t><size_t>core.memory * <uint64_t>0x9E3779B97F4A7C15
    core.process_table.seed = core.waiting_table.seed
    return core


cdef void core_free(Core* core) noexcept nogil:
    if core != NULL:
        free(core.memory)
        free(core)
