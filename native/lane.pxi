# Lane of one class of one model: those that arrived in order of start_by in a list, the late ones in a heap. With
# equal budgets, the usual case, all are in order, and every operation is a few pointers.

cdef enum:
    SWEEP = 4                   # a removal from the top costs as much as looking at so many nodes

cdef extern from *:
    const int64_t HINT_MOST "(INT64_C(30) * 1000 * 1000 * 1000)"


cdef inline bint request_before(const Core* core, uint32_t a, uint32_t b) noexcept nogil:
    cdef const Request* first = &core.requests[a]
    cdef const Request* second = &core.requests[b]
    return first.timer.when < second.timer.when or (first.timer.when == second.timer.when and first.seq < second.seq)


cdef inline uint32_t lane_head(const Core* core, const Lane* lane) noexcept nogil:
    """The first in order of (start_by, seq); the lane is not empty."""
    cdef uint32_t late
    if lane.late.count == 0:
        return lane.head
    late = heap_node(&lane.late, 0).slot
    return lane.head if lane.head != NONE and request_before(core, lane.head, late) else late


cdef inline void lane_append(Core* core, uint32_t* head, uint32_t* tail, uint32_t index) noexcept nogil:
    cdef Request* request = &core.requests[index]
    request.prev = tail[0]
    request.next = NONE
    if tail[0] == NONE:
        head[0] = index
    else:
        core.requests[tail[0]].next = index
    tail[0] = index


cdef inline void lane_unlink(Core* core, uint32_t* head, uint32_t* tail, uint32_t index) noexcept nogil:
    cdef Request* request = &core.requests[index]
    if request.prev == NONE:
        head[0] = request.next
    else:
        core.requests[request.prev].next = request.next
    if request.next == NONE:
        tail[0] = request.prev
    else:
        core.requests[request.next].prev = request.prev


cdef inline void lane_add(Core* core, Lane* lane, uint32_t index) noexcept nogil:
    """Add the youngest request of all, whose start_by and seq are set."""
    cdef int64_t when = core.requests[index].timer.when
    lane.count += 1
    if lane.tail == NONE or when >= core.requests[lane.tail].timer.when:
        core.late_places[index] = NONE
        lane_append(core, &lane.head, &lane.tail, index)
    else:
        lane_append(core, &lane.late_head, &lane.late_tail, index)
        heap_push(&lane.late, when, index)


cdef inline void lane_remove(Core* core, Lane* lane, uint32_t index) noexcept nogil:
    lane.count -= 1
    if core.late_places[index] == NONE:
        lane_unlink(core, &lane.head, &lane.tail, index)
    else:
        lane_unlink(core, &lane.late_head, &lane.late_tail, index)
        heap_remove(&lane.late, core.late_places[index])


cdef inline void lane_expire(Core* core, Lane* lane, uint32_t index) noexcept nogil:
    """As lane_remove of one that is due; the heap still has it, until lane_sweep."""
    lane.count -= 1
    if core.late_places[index] == NONE:
        lane_unlink(core, &lane.head, &lane.tail, index)
    else:
        lane_unlink(core, &lane.late_head, &lane.late_tail, index)
        lane.swept += 1


cdef inline void lane_sweep(Lane* lane, int64_t now) noexcept nogil:
    """Take out of the heap what is due, which stands at its top: one by one if these are few, else all at once."""
    if lane.swept * SWEEP >= lane.late.count:
        heap_sweep(&lane.late, now)
    else:
        while lane.swept:
            heap_remove(&lane.late, 0)
            lane.swept -= 1
    lane.swept = 0


cdef uint32_t lane_up_to(const Core* core, const Lane* lane, int64_t when, uint32_t most) noexcept nogil:
    """How many have `start_by <= when`, counted up to `most`: O(most)."""
    cdef uint32_t found = 0
    cdef uint32_t index = lane.head
    cdef uint32_t place, child
    while index != NONE and found < most and core.requests[index].timer.when <= when:
        found += 1
        index = core.requests[index].next
    # The heap in depth first order without a stack; what is under a later node is later, too.
    place = 0
    while place < lane.late.count and found < most:
        if heap_node(&lane.late, place).when <= when:
            found += 1
            child = 4 * place + 1
            if child < lane.late.count:
                place = child
                continue
        while place and ((place - 1) & 3 == 3 or place + 1 >= lane.late.count):
            place = (place - 1) >> 2
        if place == 0:
            break
        place += 1
    return found


cdef inline bint frontier_before(const Core* core, const Lane* lane, uint32_t a, uint32_t b) noexcept nogil:
    return heap_before(&lane.late, heap_node(&lane.late, a), heap_node(&lane.late, b))


cdef uint32_t frontier_take(Core* core, const Lane* lane, uint32_t* size) noexcept nogil:
    """The least place of the late heap in the frontier, a binary heap; its children come in instead."""
    cdef uint32_t* frontier = core.frontier
    cdef uint32_t place = frontier[0]
    cdef uint32_t hole = 0
    cdef uint32_t child, last, incoming
    size[0] -= 1
    last = frontier[size[0]]
    while 2 * hole + 1 < size[0]:
        child = 2 * hole + 1
        if child + 1 < size[0] and frontier_before(core, lane, frontier[child + 1], frontier[child]):
            child += 1
        if not frontier_before(core, lane, frontier[child], last):
            break
        frontier[hole] = frontier[child]
        hole = child
    frontier[hole] = last
    for incoming in range(4 * place + 1, 4 * place + 5):
        if incoming >= lane.late.count:
            break
        hole = size[0]
        size[0] += 1
        while hole and frontier_before(core, lane, incoming, frontier[(hole - 1) >> 1]):
            frontier[hole] = frontier[(hole - 1) >> 1]
            hole = (hole - 1) >> 1
        frontier[hole] = incoming
    return place


cdef uint32_t lane_at(Core* core, const Lane* lane, uint32_t rank) noexcept nogil:
    """The request of this rank, from 0, in order of (start_by, seq): O(rank log rank). The lane has so many."""
    cdef uint32_t in_order = lane.head
    cdef uint32_t late = NONE
    cdef uint32_t size = 0
    cdef uint32_t found
    if lane.late.count:
        core.frontier[0] = 0
        size = 1
    while True:
        if late == NONE and size:
            late = heap_node(&lane.late, frontier_take(core, lane, &size)).slot
        if late == NONE or (in_order != NONE and request_before(core, in_order, late)):
            found = in_order
            in_order = core.requests[in_order].next
        else:
            found = late
            late = NONE
        if rank == 0:
            return found
        rank -= 1


cdef uint32_t lane_youngest(Core* core, const Lane* lane, uint32_t entitled) noexcept nogil:
    """The one with the largest seq that is not among the first `entitled`; there is one."""
    cdef uint32_t in_order = lane.tail
    cdef uint32_t late = lane.late_tail
    cdef uint32_t last, chosen
    if late == NONE:
        return in_order                     # last in both orders
    if entitled == 0:
        last = NONE
    else:
        last = lane_at(core, lane, entitled - 1)
    while True:
        if late == NONE or (in_order != NONE and core.requests[in_order].seq > core.requests[late].seq):
            chosen = in_order
            in_order = core.requests[in_order].prev
        else:
            chosen = late
            late = core.requests[late].prev
        if last == NONE or request_before(core, last, chosen):
            return chosen


cdef inline void lane_granted(Lane* lane, int64_t now) noexcept nogil:
    """Keep the pace of grants, for those who are turned away."""
    cdef int64_t interval = now - lane.granted_at
    if lane.grants == 2:
        lane.interval += (interval - lane.interval) >> 3
    else:
        lane.interval = interval if lane.grants else 0
        lane.grants += 1
    lane.granted_at = now


cdef int64_t lane_hint(const Lane* lane) noexcept nogil:
    """When one more would be granted at the pace of late, at most 30 s from now; 0 when that is not known."""
    cdef int64_t interval
    if lane.grants < 2:
        return 0
    interval = min(max(lane.interval, 1), HINT_MOST)
    return min((<int64_t>lane.count + 1) * interval, HINT_MOST)
