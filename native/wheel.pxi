# Hierarchical timing wheel: 5 levels of 64 buckets, ticks of 1 ms, intrusive lists, a bit per occupied bucket.
#
# A timer lies on the level of the highest group of six bits in which its tick differs from the wheel's, in the bucket
# of its own bits there: what is on a lower level is due earlier. The wheel's tick moves only when something may be
# due (`next`), in jumps from one occupied bucket to the next. Timers of the wheel's own tick wait in a heap by exact
# nanosecond: a tick with very many of them is neither walked at each call nor late by a fraction.

cdef enum:
    TICK = 1_000_000            # ns
    HORIZON_BITS = LEVELS * 6
    BEYOND = BUCKETS - 1

cdef extern from *:
    """
    #define AIMD_FIRST UINT32_C(0x80000000)
    #define AIMD_IN_DUE UINT32_C(0xFFFFFFFE)
    """
    const uint32_t FIRST "AIMD_FIRST"
    const uint32_t IN_DUE "AIMD_IN_DUE"
    const int64_t NEVER "INT64_MAX"


cdef inline int64_t later(int64_t now, int64_t wait) noexcept nogil:
    """now + wait, at most the end of time: both are not negative."""
    return now + wait if wait <= NEVER - now else NEVER


cdef inline Timer* wheel_timer(const Wheel* wheel, uint32_t index) noexcept nogil:
    return <Timer*>(wheel.records + <size_t>index * wheel.stride)


cdef inline void wheel_place(Wheel* wheel, uint32_t index, Timer* timer) noexcept nogil:
    """Put the timer where it belongs for the wheel's tick."""
    cdef int64_t tick = timer.when // TICK
    cdef uint64_t differs
    cdef uint32_t level, bucket, second
    if tick <= wheel.tick:
        timer.prev = IN_DUE
        heap_push(&wheel.due, timer.when, index)
        return
    differs = <uint64_t>(tick ^ wheel.tick)
    if differs >> HORIZON_BITS:
        bucket = BEYOND
    else:
        level = highest_bit(differs) // 6
        bucket = (level << 6) | <uint32_t>((tick >> (6 * level)) & 63)
        wheel.occupied[level] |= bit(bucket)
    second = wheel.heads[bucket]
    timer.prev = FIRST | bucket
    timer.next = second
    if second != NONE:
        wheel_timer(wheel, second).prev = index
    wheel.heads[bucket] = index


cdef inline void wheel_add(Wheel* wheel, uint32_t index, int64_t when, int64_t now) noexcept nogil:
    cdef Timer* timer = wheel_timer(wheel, index)
    if wheel.count == 0:
        wheel.tick = now // TICK        # an empty wheel may jump: nothing has to be moved
    wheel.count += 1
    timer.when = when
    wheel_place(wheel, index, timer)
    if when < wheel.next:
        wheel.next = when


cdef inline void wheel_remove(Wheel* wheel, uint32_t index) noexcept nogil:
    """Take the timer out; one that wheel_collect returned is out already."""
    cdef Timer* timer = wheel_timer(wheel, index)
    cdef uint32_t bucket
    if timer.prev == NONE:
        return
    wheel.count -= 1
    if timer.prev == IN_DUE:
        heap_remove(&wheel.due, timer.next)
    else:
        if timer.next != NONE:
            wheel_timer(wheel, timer.next).prev = timer.prev
        if timer.prev & FIRST:
            bucket = timer.prev & ~FIRST
            wheel.heads[bucket] = timer.next
            if timer.next == NONE and bucket != BEYOND:
                wheel.occupied[bucket >> 6] &= ~bit(bucket)
        else:
            wheel_timer(wheel, timer.prev).next = timer.next
    timer.prev = NONE


cdef inline bint wheel_first(const Wheel* wheel, int64_t target, uint32_t* bucket, int64_t* start) noexcept nogil:
    """The occupied bucket that begins earliest, and the tick at which it does; False when there is none."""
    cdef uint32_t level, slot
    cdef uint64_t ahead
    for level in range(LEVELS):
        slot = <uint32_t>((wheel.tick >> (6 * level)) & 63)
        ahead = wheel.occupied[level] & ~((<uint64_t>2 << slot) - 1)
        if ahead:
            slot = lowest_bit(ahead)
            bucket[0] = (level << 6) | slot
            start[0] = ((wheel.tick >> (6 * level + 6)) << (6 * level + 6)) | (<int64_t>slot << (6 * level))
            return True
    if wheel.heads[BEYOND] == NONE:
        return False
    bucket[0] = BEYOND
    start[0] = ((wheel.tick >> HORIZON_BITS) + 1) << HORIZON_BITS
    if start[0] < (target >> HORIZON_BITS) << HORIZON_BITS:
        start[0] = (target >> HORIZON_BITS) << HORIZON_BITS         # all horizons between are empty
    return True


cdef uint32_t wheel_collect(Wheel* wheel, int64_t now) noexcept nogil:
    """Take out all timers with `when <= now`; the first of them, the others by `next`, or NONE."""
    cdef uint32_t collected = NONE
    cdef uint32_t bucket, index, following
    cdef int64_t start
    cdef int64_t target = now // TICK
    cdef Timer* timer
    while wheel_first(wheel, target, &bucket, &start) and start <= target:
        wheel.tick = start
        index = wheel.heads[bucket]
        wheel.heads[bucket] = NONE
        if bucket != BEYOND:
            wheel.occupied[bucket >> 6] &= ~bit(bucket)
        while index != NONE:
            timer = wheel_timer(wheel, index)
            following = timer.next
            # Who came one after the other often lies so, too: guess some steps ahead. Any address will do.
            prefetch(wheel.records + <ptrdiff_t>(<int64_t>following + 6 * (<int64_t>following - <int64_t>index))
                     * <ptrdiff_t>wheel.stride)
            if timer.when <= now:
                timer.prev = NONE
                timer.next = collected
                collected = index
                wheel.count -= 1
            else:
                wheel_place(wheel, index, timer)
            index = following
    if target > wheel.tick:
        wheel.tick = target
    while wheel.due.count and heap_node(&wheel.due, 0).when <= now:
        index = heap_node(&wheel.due, 0).slot
        heap_remove(&wheel.due, 0)
        timer = wheel_timer(wheel, index)
        timer.prev = NONE
        timer.next = collected
        collected = index
        wheel.count -= 1
    wheel.next = NEVER
    if wheel_first(wheel, 0, &bucket, &start) and start <= NEVER // TICK:
        wheel.next = start * TICK
    if wheel.due.count and heap_node(&wheel.due, 0).when < wheel.next:
        wheel.next = heap_node(&wheel.due, 0).when
    return collected
