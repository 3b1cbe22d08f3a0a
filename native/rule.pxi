# The rule: who is granted next. Section 2 of the semantics; every choice reads bitmaps and counters only.

cdef enum:
    HUNGRY = 1 << (2 * CLASSES)     # Model.mask: classes with entries, then those of them eligible, then this
    LOW_CREDIT = 15
    MEDIUM_CREDIT = 7

cdef extern from *:
    const int64_t TAG_SCALE "(INT64_C(1) << 32)"
    const int64_t TAG_LIMIT "(INT64_C(1) << 61)"


cdef inline Event* event_new(Core* core, uint8_t kind) noexcept nogil:
    cdef Event* event = &core.events[core.event_count]
    core.event_count += 1
    event.kind = kind
    return event


cdef void model_changed(Core* core, uint32_t index, Counters* counters, bint granted) noexcept nogil:
    """Put the model where it belongs in its partition's sets, after any change of lanes, run or limits.

    The counters have been brought up to now before the change.
    """
    cdef Model* model = &core.models[index]
    cdef Partition* partition = &core.partitions[model.partition]
    cdef Lane* lanes = &core.lanes[index * CLASSES]
    cdef uint32_t mask = 0
    cdef uint32_t differs
    cdef uint32_t klass
    for klass in range(CLASSES):
        if lanes[klass].count:
            mask |= 1 << klass
    if model.run < model.limit:
        mask |= mask << CLASSES
    if model.run < model.guarantee and model.waiting:
        mask |= HUNGRY
    counters.colour = 2 if model.run >= model.limit else 0 if model.run < model.guarantee else 1
    differs = mask ^ model.mask
    if differs == 0:
        return
    model.mask = mask
    for klass in range(CLASSES):
        if (differs >> klass) & 1:
            if (mask >> klass) & 1:
                set_add(&partition.lanes[klass], index)
            else:
                set_discard(&partition.lanes[klass], index)
        if (differs >> (CLASSES + klass)) & 1:
            if (mask >> (CLASSES + klass)) & 1:
                set_add(&partition.eligible[klass], index)
            else:
                set_discard(&partition.eligible[klass], index)
    if differs & HUNGRY:
        if mask & HUNGRY:
            set_add(&partition.hungry, index)
            model.hungry_since = core.now
        else:
            set_discard(&partition.hungry, index)
            if granted:
                latency_record(core, counters, index, SKETCHES - 1, <uint64_t>(core.now - model.hungry_since))


cdef inline uint32_t credit(uint32_t lanes, uint32_t* waited) noexcept nogil:
    """The class that is served next of those in the mask: strict priority, but nobody is passed over too often."""
    cdef uint32_t chosen, klass
    if (lanes >> 2) & 1 and waited[2] >= LOW_CREDIT:
        chosen = 2
    elif (lanes >> 1) & 1 and waited[1] >= MEDIUM_CREDIT:
        chosen = 1
    elif (lanes >> 2) & 1 and waited[2] == LOW_CREDIT - 1 and waited[1] > MEDIUM_CREDIT:
        chosen = 2  # MEDIUM, passed over while due, must not find LOW due when it comes back
    else:
        chosen = lowest_bit(lanes)
    for klass in range(CLASSES):
        if (lanes >> klass) & 1:
            waited[klass] += 1
    waited[chosen] = 0
    return chosen


cdef inline uint32_t first_of_model(const Core* core, uint32_t index, uint32_t* klass) noexcept nogil:
    """The head of the highest class with entries."""
    klass[0] = lowest_bit(core.models[index].mask)
    return lane_head(core, &core.lanes[index * CLASSES + klass[0]])


cdef inline uint32_t choose_green(const Core* core, const Partition* partition) noexcept nogil:
    """Of the models below their guarantee: highest class, then the largest missing share, then the earliest head."""
    cdef uint32_t best = set_after(&partition.hungry, 0)
    cdef uint32_t index = set_after(&partition.hungry, best + 1)
    cdef uint32_t best_head, best_class, head, klass
    cdef int64_t missing, best_missing
    cdef const Model* model
    cdef const Model* other
    if index == NONE:
        return best
    best_head = first_of_model(core, best, &best_class)
    while index != NONE:
        head = first_of_model(core, index, &klass)
        if klass <= best_class:
            model = &core.models[index]
            other = &core.models[best]
            # (g - run) / g of both, multiplied by both g
            missing = <int64_t>(model.guarantee - model.run) * other.guarantee
            best_missing = <int64_t>(other.guarantee - other.run) * model.guarantee
            if klass < best_class or missing > best_missing or (
                    missing == best_missing and request_before(core, head, best_head)):
                best = index
                best_head = head
                best_class = klass
        index = set_after(&partition.hungry, index + 1)
    return best


cdef inline uint32_t choose_excess(const Core* core, const Partition* partition, uint32_t klass) noexcept nogil:
    """Of the models that compete in the class: the least tag, then the earliest head."""
    cdef const Set* eligible = &partition.eligible[klass]
    cdef uint32_t best = set_after(eligible, 0)
    cdef uint32_t index = set_after(eligible, best + 1)
    cdef int64_t virtual = partition.tags[klass]
    cdef int64_t tag
    cdef int64_t best_tag
    if index == NONE:
        return best
    best_tag = max(core.models[best].tags[klass], virtual)
    while index != NONE:
        tag = max(core.models[index].tags[klass], virtual)
        if tag < best_tag or (tag == best_tag and request_before(
                core, lane_head(core, &core.lanes[index * CLASSES + klass]),
                lane_head(core, &core.lanes[best * CLASSES + klass]))):
            best = index
            best_tag = tag
        index = set_after(eligible, index + 1)
    return best


cdef void tags_lower(Core* core, Partition* partition, uint32_t klass) noexcept nogil:
    """Only differences matter, and of what lies below the partition's tag not even these."""
    cdef int64_t low = partition.tags[klass]
    cdef uint32_t index = set_after(&partition.members, 0)
    while index != NONE:
        core.models[index].tags[klass] = max(core.models[index].tags[klass] - low, 0)
        index = set_after(&partition.members, index + 1)
    partition.tags[klass] = 0


cdef inline void charge(Core* core, Partition* partition, Model* model, uint32_t klass) noexcept nogil:
    """An excess grant: v = max(v, V), V = v, v += 1/w."""
    cdef int64_t tag = max(model.tags[klass], partition.tags[klass])
    partition.tags[klass] = tag
    model.carry[klass] += model.rest
    model.tags[klass] = tag + model.step
    if model.carry[klass] >= model.weight:
        model.carry[klass] -= model.weight
        model.tags[klass] += 1
    if unlikely(tag >= TAG_LIMIT):
        tags_lower(core, partition, klass)


cdef inline bint grant_next(Core* core, Partition* partition) noexcept nogil:
    cdef uint32_t index, klass, request, lanes
    cdef bint green
    cdef Request* entry
    cdef Counters* counters
    if partition.run >= partition.capacity:
        return False
    green = partition.hungry.top != 0
    if green:
        index = choose_green(core, partition)
        klass = credit(core.models[index].mask & ((1 << CLASSES) - 1), core.models[index].waited)
    else:
        lanes = (
            (partition.eligible[0].top != 0) | (partition.eligible[1].top != 0) << 1
            | (partition.eligible[2].top != 0) << 2
        )
        if lanes == 0:
            return False
        klass = credit(lanes, partition.waited)
        index = choose_excess(core, partition, klass)
        charge(core, partition, &core.models[index], klass)
    request = lane_head(core, &core.lanes[index * CLASSES + klass])
    entry = &core.requests[request]
    counters = counters_write(core, index)
    lease_start(core, entry.connection, entry.number, index, klass, entry.submitted, green, counters)
    request_drop(core, request, counters)
    model_changed(core, index, counters, True)
    return True


cdef void grant_all(Core* core) noexcept nogil:
    """Run the rule to its fixed point where something changed, in ascending order of partition id."""
    cdef uint32_t rank = set_after(&core.dirty, 0)
    while rank != NONE:
        while grant_next(core, &core.partitions[core.by_rank[rank]]):
            pass
        set_discard(&core.dirty, rank)
        rank = set_after(&core.dirty, rank + 1)
