# All memory of a core in one piece: laid out twice by the same function, once to count and once for good. It is mapped,
# not allocated: it comes zeroed from the system and is touched only when used, so that large bounds cost address space
# and no memory.

cdef extern from "sys/mman.h":
    const int MAP_NORESERVE

# Cuts pieces from a mapping; while `counting` there is none, and `at` begins at 0.
cdef struct Carver:
    char* at
    bint counting


cdef inline char* carve(Carver* carver, uint64_t size) noexcept nogil:
    """The next piece, at a cache line's start."""
    cdef char* piece = carver.at
    cdef uint64_t whole = (size + 63) // 64 * 64 + GUARD
    if not carver.counting:
        guard(piece + size, whole - size)
    carver.at = piece + whole
    return piece


cdef uint64_t power_above(uint64_t number) noexcept nogil:
    cdef uint64_t power = 16
    while power < number:
        power *= 2
    return power


cdef void lay_out_table(Table* table, Carver* carver, uint64_t entries) noexcept nogil:
    cdef uint64_t cells = power_above(2 * entries)
    table.mask = cells - 1
    table.cells = <Cell*>carve(carver, cells * sizeof(Cell))


cdef void lay_out_numbers(Numbers* numbers, Carver* carver, uint64_t size) noexcept nogil:
    numbers.low = <uint64_t*>carve(carver, (size + 63) // 64 * 8)
    numbers.middle = <uint64_t*>carve(carver, (size + 4095) // 4096 * 8)


cdef void lay_out_set(Set* numbers, Carver* carver, uint64_t size) noexcept nogil:
    numbers.words = <uint64_t*>carve(carver, (size + 63) // 64 * 8)


cdef inline uint64_t chunk_table_bytes(uint64_t slots) noexcept nogil:
    return (((slots + 2) >> CHUNK_BITS) + 1) * sizeof(uint32_t)


cdef void lay_out_heap(Heap* heap, Carver* carver, uint64_t slots) noexcept nogil:
    heap.chunks = <uint32_t*>carve(carver, chunk_table_bytes(slots))


cdef void lay_out_statistics(Core* core, Carver* carver) noexcept nogil:
    cdef Statistics* statistics = &core.statistics
    cdef uint64_t models = core.bounds.models
    statistics.places_offset = models * BLOCK
    statistics.unrouted_offset = statistics.places_offset + <uint64_t>core.bounds.partitions * 64
    statistics.sketches_offset = (statistics.unrouted_offset + OUTCOMES * 8 + BLOCK - 1) // BLOCK * BLOCK
    statistics.blocks = sketch_offset(statistics, core.bounds.models, 0) // BLOCK
    statistics.saved = <uint32_t*>carve(carver, statistics.blocks * 4)
    statistics.live = carve(carver, statistics.blocks * BLOCK)
    statistics.frozen = carve(carver, statistics.blocks * BLOCK)


cdef uint64_t lay_out(Core* core, char* memory) noexcept nogil:
    """Point everything into `memory`; returns its size."""
    cdef const Bounds* bounds = &core.bounds
    cdef uint64_t requests = bounds.requests
    cdef uint64_t leases = bounds.leases
    cdef uint64_t models = bounds.models
    cdef uint64_t processes = <uint64_t>bounds.connections + leases
    cdef uint32_t number, klass
    cdef char* piece
    cdef Carver carver
    carver.at = memory
    carver.counting = memory == NULL
    # Each lease and each request ends or begins at most once in a call, and those granted in it may end in it, too.
    core.events = <Event*>carve(&carver, (2 * requests + 2 * leases + 16) * sizeof(Event))
    core.requests = <Request*>carve(&carver, requests * sizeof(Request))
    core.late_places = <uint32_t*>carve(&carver, requests * 4)
    core.leases = <Lease*>carve(&carver, leases * sizeof(Lease))
    core.connections = <Connection*>carve(&carver, bounds.connections * sizeof(Connection))
    core.processes = <Process*>carve(&carver, processes * sizeof(Process))
    core.models = <Model*>carve(&carver, models * sizeof(Model))
    core.lanes = <Lane*>carve(&carver, models * CLASSES * sizeof(Lane))
    core.partitions = <Partition*>carve(&carver, bounds.partitions * sizeof(Partition))
    core.by_rank = <uint32_t*>carve(&carver, bounds.partitions * 4)
    core.frontier = <uint32_t*>carve(&carver, 4 * (leases + 1) * 4)
    lay_out_set(&core.dirty, &carver, bounds.partitions)
    lay_out_set(&core.touched, &carver, models)
    lay_out_set(&core.free_models, &carver, models)
    lay_out_set(&core.free_partitions, &carver, bounds.partitions)
    lay_out_numbers(&core.free_leases, &carver, leases)
    lay_out_numbers(&core.free_connections, &carver, bounds.connections)
    lay_out_table(&core.waiting_table, &carver, requests)
    lay_out_table(&core.process_table, &carver, processes)
    lay_out_table(&core.model_table, &carver, models)
    lay_out_table(&core.partition_table, &carver, bounds.partitions)
    lay_out_heap(&core.expiry.due, &carver, requests)
    lay_out_heap(&core.lease_ends.due, &carver, leases)
    # A heap of n takes less than n / 256 + 2 chunks; a request can be in its lane's and in the wheel's.
    core.pool.chunks = <uint32_t>((2 * requests + leases) // (1 << CHUNK_BITS) + 2 * (models * CLASSES + 2))
    core.pool.nodes = <Node*>carve(&carver, <uint64_t>core.pool.chunks * sizeof(Node) << CHUNK_BITS)
    core.pool.free_chunks = <uint32_t*>carve(&carver, core.pool.chunks * 4)
    lay_out_statistics(core, &carver)
    for number in range(bounds.models * CLASSES):
        piece = carve(&carver, chunk_table_bytes(requests))
        if not carver.counting:
            core.lanes[number].late.chunks = <uint32_t*>piece
    for number in range(bounds.partitions):
        for klass in range(2 * CLASSES + 2):
            piece = carve(&carver, (models + 63) // 64 * 8)
            if not carver.counting:
                partition_set(&core.partitions[number], klass).words = <uint64_t*>piece
    return <uint64_t>(carver.at - memory)


cdef inline Set* partition_set(Partition* partition, uint32_t number) noexcept nogil:
    if number < CLASSES:
        return &partition.eligible[number]
    if number < 2 * CLASSES:
        return &partition.lanes[number - CLASSES]
    return &partition.hungry if number == 2 * CLASSES else &partition.members


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
    core.memory_bytes = lay_out(core, NULL)
    core.memory = <char*>mmap(NULL, core.memory_bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if core.memory == MAP_FAILED:
        free(core)
        return NULL
    lay_out(core, core.memory)
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
        unguard(core.memory, core.memory_bytes)
        munmap(core.memory, core.memory_bytes)
        free(core)
