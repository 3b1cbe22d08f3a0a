# Invariants of the structures, asserted one by one: for tests, after every step.


cdef set check_heap(const Heap* heap, str name):
    """Order and back-indexes; the slots in it."""
    cdef uint32_t place
    cdef set slots = set()
    for place in range(heap.count):
        node = heap_node(heap, place)
        if place:
            assert not heap_before(heap, node, heap_node(heap, (place - 1) >> 2)), f"{name}: heap order"
        at = (<uint32_t*>(heap.places + <size_t>node.slot * heap.stride))[0]
        assert at == place, f"{name}: back-index {at} of place {place}"
        slots.add(node.slot)
    assert len(slots) == heap.count, f"{name}: a slot twice"
    return slots


cdef set check_wheel(const Wheel* wheel, str name):
    """All timers are where they belong for the wheel's tick; the indexes of those in it."""
    cdef uint32_t bucket, index, before
    cdef int64_t tick
    cdef uint64_t differs
    cdef set found = check_heap(&wheel.due, name)
    for index in found:
        timer = wheel_timer(wheel, index)
        assert timer.prev == IN_DUE, f"{name}: mark of a due timer"
        assert timer.when // TICK <= wheel.tick, f"{name}: too early in the heap"
        assert timer.when == heap_node(&wheel.due, timer.next).when
        assert wheel.next <= timer.when, f"{name}: would be late"
    for bucket in range(BUCKETS):
        index = wheel.heads[bucket]
        before = FIRST | bucket
        if bucket != BEYOND:
            assert ((wheel.occupied[bucket >> 6] >> (bucket & 63)) & 1) == (index != NONE), f"{name}: occupancy"
        while index != NONE:
            timer = wheel_timer(wheel, index)
            assert timer.prev == before, f"{name}: back link"
            assert index not in found, f"{name}: twice"
            found.add(index)
            tick = timer.when // TICK
            differs = <uint64_t>(tick ^ wheel.tick)
            assert tick > wheel.tick, f"{name}: a past tick in a bucket"
            if bucket == BEYOND:
                assert differs >> HORIZON_BITS, f"{name}: not beyond"
            else:
                assert differs >> (6 * (bucket >> 6)) and not differs >> (6 * (bucket >> 6) + 6), f"{name}: level"
                assert ((tick >> (6 * (bucket >> 6))) & 63) == (bucket & 63), f"{name}: bucket"
            assert wheel.next <= timer.when, f"{name}: would be late"
            before = index
            index = timer.next
    assert len(found) == wheel.count, f"{name}: count"
    return found


cdef list check_list(const Core* core, uint32_t head, uint32_t tail, str name):
    """The requests of a lane's list from head to tail, in order of arrival."""
    cdef list found = []
    cdef uint32_t index = head
    cdef uint32_t before = NONE
    while index != NONE:
        assert core.requests[index].prev == before, f"{name}: back link"
        if before != NONE:
            assert core.requests[index].seq > core.requests[before].seq, f"{name}: order of arrival"
        found.append(index)
        before = index
        index = core.requests[index].next
    assert before == tail, f"{name}: tail"
    return found


cdef set check_lane(const Core* core, uint32_t number):
    cdef const Lane* lane = &core.lanes[number]
    cdef list in_order = check_list(core, lane.head, lane.tail, f"lane {number}")
    cdef list late = check_list(core, lane.late_head, lane.late_tail, f"late of lane {number}")
    cdef uint32_t index
    cdef uint32_t a, b
    for index in in_order + late:
        assert core.requests[index].lane == number, "entry in another's lane"
    for index in in_order:
        assert core.late_places[index] == NONE
    for a, b in zip(in_order, in_order[1:]):
        assert core.requests[a].timer.when <= core.requests[b].timer.when, f"lane {number}: not in order"
    assert check_heap(&lane.late, f"heap of lane {number}") == set(late), f"lane {number}: heap and list differ"
    assert lane.count == len(in_order) + len(late), f"lane {number}: count"
    assert lane.swept == 0
    return set(in_order) | set(late)


cdef set check_model(const Core* core, uint32_t index):
    """Its lanes, counters and marks in the partition's sets; the requests in its lanes."""
    cdef const Model* model = &core.models[index]
    cdef const Partition* partition = &core.partitions[model.partition]
    cdef const Counters* counters = <const Counters*>(core.statistics.live + <uint64_t>index * BLOCK)
    cdef set waiting = set()
    cdef set own
    cdef uint32_t klass
    assert set_has(&partition.members, index)
    assert table_find(&core.model_table, model.id, model.partition) == index
    assert counters.used and counters.model == model.id and counters.partition == model.partition
    assert bool(counters.removed) == bool(model.removed)
    assert counters.running[0] + counters.running[1] + counters.running[2] == model.run, "T7: running"
    for klass in range(CLASSES):
        own = check_lane(core, index * CLASSES + klass)
        waiting |= own
        assert counters.waiting[klass] == len(own), "T7: waiting"
        granted = counters.outcomes[klass][<int>GRANTED] + counters.restored[klass]
        ends = sum([counters.ends[klass][how] for how in range(ENDS)])
        assert granted == ends + counters.running[klass], "T7: grants = ended + running"
        assert set_has(&partition.lanes[klass], index) == bool(own), "set of lanes"
        able = bool(own) and model.run < model.limit
        assert set_has(&partition.eligible[klass], index) == able, "set of eligible"
        assert not (able and partition.run < partition.capacity), "T2: something eligible waits"
        assert model.carry[klass] < model.weight
        assert own or model.waited[klass] == 0, "credit without entries"
    assert model.waiting == len(waiting)
    assert set_has(&partition.hungry, index) == (bool(waiting) and model.run < model.guarantee), "set of hungry"
    assert model.removed == 0 or not waiting
    return waiting


cdef set check_partition(const Core* core, uint32_t place):
    cdef const Partition* partition = &core.partitions[place]
    cdef set waiting = set()
    cdef uint32_t klass, run = 0
    cdef uint32_t index = set_after(&partition.members, 0)
    while index != NONE:
        assert core.models[index].used and core.models[index].partition == place
        waiting |= check_model(core, index)
        run += core.models[index].run
        index = set_after(&partition.members, index + 1)
    assert partition.run == run and partition.waiting == len(waiting)
    assert core.by_rank[partition.rank] == place
    assert table_find(&core.partition_table, partition.id, 0) == place
    for klass in range(CLASSES):
        own = sum([core.requests[request].lane % CLASSES == klass for request in waiting])
        assert partition.counts[klass] == own
        assert own or partition.waited[klass] == 0, "credit without entries"
    return waiting


cdef object check_connections(const Core* core, set waiting, set running):
    """Lists of connections and processes hold all that waits and runs, and nothing else."""
    cdef uint32_t number, index
    cdef set seen = set()
    cdef set bound = set()
    cdef set processes = set()
    for number in range(core.bounds.connections):
        peer = &core.connections[number]
        assert numbers_free(&core.free_connections, number) != peer.open, "free list of connections"
        if not peer.open:
            continue
        own = 0
        index = peer.requests
        while index != NONE:
            assert core.requests[index].connection == number and index not in seen
            assert table_find(&core.waiting_table, core.requests[index].number, number) == index
            seen.add(index)
            own += 1
            index = core.requests[index].connection_next
        assert own == peer.waiting
        index = peer.leases
        while index != NONE:
            assert core.leases[index].connection == number and core.leases[index].lost_at == NEVER
            bound.add(index)
            index = core.leases[index].connection_next
        processes.add(peer.process)
    assert seen == waiting, "requests of connections"
    for index in running:
        assert (core.leases[index].connection == NONE) != (index in bound), "orphans are bound to nothing"
        processes.add(core.leases[index].process)
    assert core.open_connections == sum([core.connections[n].open for n in range(core.bounds.connections)])
    check_processes(core, processes, running)


cdef object check_processes(const Core* core, set processes, set running):
    cdef uint32_t index, number
    cdef uint64_t cell
    cdef set owned = set()
    for number in processes:
        assert table_find(&core.process_table, <uint64_t>core.processes[number].id, 0) == number
        index = core.processes[number].leases
        while index != NONE:
            assert core.leases[index].process == number
            owned.add(index)
            index = core.leases[index].process_next
        index = core.processes[number].connections
        while index != NONE:
            assert core.connections[index].open and core.connections[index].process == number
            index = core.connections[index].process_next
    assert owned == running, "leases of processes"
    known = 0
    for cell in range(core.process_table.mask + 1):
        known += core.process_table.cells[cell].index != 0
    assert known == len(processes), "a process is remembered for nothing"


cdef object check_core(const Core* core):
    cdef uint32_t number, slot
    cdef uint64_t cell
    cdef set waiting = set()
    cdef set running = set()
    cdef set vacant = set()
    assert sizeof(Request) == 64 and sizeof(Counters) <= BLOCK and sizeof(Place) <= 64 and sizeof(Lease) == 88
    for number in range(core.bounds.partitions):
        assert core.partitions[number].used != set_has(&core.free_partitions, number), "free list of partitions"
        if core.partitions[number].used:
            waiting |= check_partition(core, number)
    for number in range(core.bounds.models):
        assert core.models[number].used != set_has(&core.free_models, number), "free list of models"
    for slot in range(core.bounds.leases):
        assert core.leases[slot].live != numbers_free(&core.free_leases, slot), "free list of leases"
        if core.leases[slot].live:
            running.add(slot)
            assert core.leases[slot].timer.when == min(core.leases[slot].deadline, core.leases[slot].lost_at)
    assert core.waiting == len(waiting) and core.running == len(running)
    assert check_wheel(&core.expiry, "expiry") == waiting, "wheel membership = queued set"
    assert check_wheel(&core.lease_ends, "lease ends") == running, "wheel membership = running set"
    for slot in waiting:
        assert core.requests[slot].timer.when > core.now, "T6: expired and still there"
    for slot in running:
        assert core.leases[slot].timer.when > core.now, "due and still running"
    number = core.free_request
    while number != NONE:
        assert number not in vacant and number not in waiting, "free list of requests: a ring, or a live one"
        vacant.add(number)
        number = core.requests[number].next
    assert len(vacant) + len(waiting) == core.fresh_requests <= core.bounds.requests, "a request is lost"
    known = 0
    for cell in range(core.waiting_table.mask + 1):
        known += core.waiting_table.cells[cell].index != 0
    assert known == len(waiting), "table of waiting requests"
    check_pool(core)
    check_connections(core, waiting, running)
    assert core.dirty.top == 0, "the rule has not run to its end"
    assert core.touched.top == 0


cdef object check_pool(const Core* core):
    """Each chunk is free or in exactly one heap."""
    cdef uint32_t number, chunk
    cdef list chunks = [core.pool.free_chunks[number] for number in range(core.pool.free_count)]
    cdef list heaps = []
    for number in range(core.bounds.models * CLASSES):
        heap_chunks(&core.lanes[number].late, chunks)
    heap_chunks(&core.expiry.due, chunks)
    heap_chunks(&core.lease_ends.due, chunks)
    assert sorted(chunks) == list(range(core.pool.chunks)), "chunks"


cdef object heap_chunks(const Heap* heap, list chunks):
    cdef uint32_t chunk
    if heap.count:
        for chunk in range(((heap.count - 1 + 3) >> CHUNK_BITS) + 1):
            chunks.append(heap.chunks[chunk])


cdef void tags_raise(Core* core, int64_t amount) noexcept nogil:
    cdef uint32_t place, index, klass
    cdef Partition* partition
    for place in range(core.bounds.partitions):
        partition = &core.partitions[place]
        if not partition.used:
            continue
        for klass in range(CLASSES):
            partition.tags[klass] += amount
            index = set_after(&partition.members, 0)
            while index != NONE:
                core.models[index].tags[klass] += amount
                index = set_after(&partition.members, index + 1)
