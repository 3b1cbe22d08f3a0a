# Latencies in the few buckets of a metrics page. The sketches of a core are tens of MiB: they are counted without the GIL,
# all in one go (to get the GIL back may take 5 ms each time), and only those of classes that were used.

cdef enum:
    MOST_BOUNDS = 32
    HISTOGRAMS = 7              # of a model: queue time by class, end to end by class, reclaim


cdef inline uint32_t histogram_sketch(uint32_t number) noexcept nogil:
    """Which sketch of the model it is made of: all but those of the service time."""
    return number if number < CLASSES else number + CLASSES


cdef inline bint histogram_used(const Counters* counters, uint32_t number) noexcept nogil:
    """Whether the sketch may have counted something: a latency begins or ends with a lease."""
    cdef uint32_t klass
    if number < 2 * CLASSES:
        klass = number % CLASSES
        return counters.outcomes[klass][<int>GRANTED] + counters.restored[klass] != 0
    for klass in range(CLASSES):
        if counters.outcomes[klass][<int>GRANTED]:
            return True
    return False


cdef void histogram_count(const uint64_t* cells, const uint32_t* edges, uint32_t count, uint64_t* found) noexcept nogil:
    """How many are in the cells below each edge, and as the last number how many there are."""
    cdef uint64_t total = 0
    cdef uint32_t cell = 0
    cdef uint32_t bound
    for bound in range(count):
        while cell < edges[bound]:
            total += cells[cell]
            cell += 1
        found[bound] = total
    while cell < SKETCH_USED:
        total += cells[cell]
        cell += 1
    found[count] = total


cdef void histograms_count(Core* core, const char* source, const uint32_t* edges, uint32_t count,
                           uint64_t* found) noexcept nogil:
    cdef const Counters* counters
    cdef uint32_t model, number
    cdef uint64_t offset
    for model in range(core.bounds.models):
        counters = <const Counters*>(source + <uint64_t>model * BLOCK)
        if not counters.used:
            continue
        for number in range(HISTOGRAMS):
            if histogram_used(counters, number):
                offset = sketch_offset(&core.statistics, model, histogram_sketch(number))
                histogram_count(<const uint64_t*>(source + offset), edges, count,
                                found + (<uint64_t>model * HISTOGRAMS + number) * (count + 1))


@cython.boundscheck(True)
cdef object histograms_read(Core* core, tuple bounds, bint frozen=True):
    """[(partition, model, histograms)], of a model seven: queue time by class, end to end by class, reclaim. Each is None
    if nothing was counted, else (sum in ns, how many of at most each of the bounds (ns, ascending), and how many in all).

    A latency counts as the middle of its cell, which is off by 1/128 of it at most.
    """
    cdef const Statistics* statistics = &core.statistics
    cdef const char* source = statistics.frozen if frozen else statistics.live
    cdef const Counters* counters
    cdef const uint64_t* one
    cdef uint32_t edges[MOST_BOUNDS]
    cdef uint32_t count = len(bounds)
    cdef uint32_t number, model, place
    cdef uint64_t bound
    cdef uint64_t* counted
    cdef list found = []
    cdef list own
    if count > MOST_BOUNDS or list(bounds) != sorted(bounds):
        raise ValueError(f"expected at most {MOST_BOUNDS} bounds in ascending order")
    for number in range(count):
        bound = bounds[number]
        edges[number] = sketch_cell(bound)
        edges[number] += sketch_value(edges[number]) <= bound
    counted = <uint64_t*>calloc(<size_t>core.bounds.models * HISTOGRAMS * (count + 1), sizeof(uint64_t))
    if counted == NULL:
        raise MemoryError("no memory for the histograms")
    try:
        if frozen:
            with nogil:                 # nobody writes to the copy
                histograms_count(core, source, edges, count, counted)
        else:
            histograms_count(core, source, edges, count, counted)
        for model in range(core.bounds.models):
            counters = <const Counters*>(source + <uint64_t>model * BLOCK)
            if not counters.used:
                continue
            own = []
            for number in range(HISTOGRAMS):
                one = counted + (<uint64_t>model * HISTOGRAMS + number) * (count + 1)
                if one[count] == 0:
                    own.append(None)
                    continue
                place = histogram_sketch(number)
                total = (<object>counters.latency_sum[place][1] << 64) | counters.latency_sum[place][0]
                own.append((total, numbers_tuple(one, count + 1)))
            partition = (<const Place*>(source + statistics.places_offset + counters.partition * 64)).id
            found.append((partition, counters.model, own))
    finally:
        free(counted)
    return found
