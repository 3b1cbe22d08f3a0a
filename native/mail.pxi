# What Python wants of the core: carried out by the dispatch thread between two turns, one at a time.

cdef enum MailKind:
    STOP = 1
    CONFIGURE = 2
    REMOVE = 3
    DRAIN = 4
    UNDRAIN = 5
    COUNT = 6
    RESTORE = 7
    VERDICT = 8
    FREEZE = 9
    REVALIDATE = 10
    REPORT = 11

cdef enum:
    STEP_BLOCKS = 4                 # copied at once for a snapshot: less than a microsecond


cdef uint32_t handle_take(Server* server, uint32_t number, uint32_t partition, uint32_t model) noexcept nogil:
    """The place of a handle: that of the same model there, a fresh one, or one of what is gone; NONE when all are used.

    Handle numbers are place + 256 * age, so that an acquire that is under way never meets a successor.
    """
    cdef Peer* peer = &server.peers[number]
    cdef Handle* handles = &server.handles[number * HANDLES]
    cdef uint32_t place, known
    for place in range(peer.handles):
        if handles[place].partition == partition and handles[place].model == model:
            return place
    if peer.handles < HANDLES:
        place = peer.handles
        peer.handles += 1
        handles[place].number = place
        return place
    for place in range(HANDLES):
        known = table_find(&server.core.partition_table, handles[place].partition, 0)
        if known == NONE or table_find(&server.core.model_table, handles[place].model, known) == NONE:
            handles[place].number += HANDLES
            return place
    return NONE


cdef void verdict_tell(Server* server, const Verdict* verdict) noexcept nogil:
    cdef Peer* peer = &server.peers[verdict.peer]
    cdef uint32_t place
    cdef Handle* handle
    cdef Opened frame
    if peer.generation != verdict.generation or peer.state != READY or peer.asking == 0:
        return                                  # it is gone, or was answered already
    peer.asking -= 1
    if verdict.outcome:
        denied(server, verdict.peer, verdict.tag, verdict.outcome, verdict.text, verdict.bytes)
        return
    place = handle_take(server, verdict.peer, verdict.partition, verdict.model)
    if place == NONE:
        denied(server, verdict.peer, verdict.tag, WOULD_BLOCK,
               b"this connection has opened 256 models, which is the most", 56)
        return
    handle = &server.handles[verdict.peer * HANDLES + place]
    handle.partition = verdict.partition
    handle.model = verdict.model
    handle.epoch = server.epoch
    handle.highest = verdict.highest
    handle.klass = verdict.klass
    memset(&frame, 0, sizeof(Opened))
    head(&frame.head, 0, OPENED_FRAME, 0, handle.number)
    frame.tag = verdict.tag
    frame.highest = verdict.highest
    frame.klass = verdict.klass
    frame.bytes = verdict.bytes
    frame.slots = verdict.slots
    frame.lease_ns = verdict.lease_ns
    put_text(server, verdict.peer, &frame, sizeof(Opened), verdict.text, verdict.bytes)


cdef int restored_caller(Server* server, const Restored* one, uint32_t* found) noexcept nogil:
    """The process of a lease of an earlier daemon, or NONE if it has ended; -errno if that cannot be told."""
    cdef uint32_t known = table_find(&server.caller_table, <uint64_t>one.pid, 0)
    cdef int64_t started
    cdef int pidfd
    found[0] = NONE
    if known != NONE:
        found[0] = known if server.callers[known].started == one.started else NONE
        return 0
    pidfd = pidfd_open(one.pid)
    if pidfd < 0:
        return 0 if errno == ESRCH or errno == EINVAL else -errno
    started = start_time_of(one.pid)
    if started > 0 and <uint64_t>started == one.started and not readable(pidfd):
        found[0] = caller_enter(server, one.pid, one.started, pidfd)
        started = -1 if found[0] == NONE else started
    if found[0] == NONE:
        close_file(pidfd)
    return -EMFILE if started < 0 else 0


cdef bint lease_fits(const Core* core, const LeaseSpec* spec) noexcept nogil:
    """Whether the core's bounds let this lease be restored beside what is there."""
    cdef uint32_t place = table_find(&core.partition_table, spec.partition, 0)
    cdef uint32_t other
    cdef uint64_t leases = 0
    if place == NONE and core.free_partitions.top == 0:
        return False
    if place == NONE or table_find(&core.model_table, spec.model, place) == NONE:
        if core.free_models.top == 0:
            return False
    if place != NONE and core.partitions[place].run < core.partitions[place].capacity:
        return True                             # within what was promised to the partition
    for other in range(core.bounds.partitions):
        if core.partitions[other].used:
            leases += max(core.partitions[other].capacity, core.partitions[other].run)
    return leases < core.bounds.leases


cdef int lease_restore(Server* server, const Restored* one, uint32_t caller, int64_t now) noexcept nogil:
    """1, or 0 if there is no room for it."""
    cdef LeaseSpec spec = one.spec
    cdef uint32_t slot = <uint32_t>(spec.id & ((1 << SLOT_BITS) - 1))
    if not lease_fits(server.core, &spec):
        return 0
    # Dead ones belong to a process of their own, which ends at once: so they are counted as lost.
    spec.process = -1 if caller == NONE else <int64_t>caller
    server.bonds[slot].caller = caller
    server.bonds[slot].peer = NONE
    if caller != NONE:
        server.callers[caller].leases += 1
        mirror_grant(server, slot, spec.id, caller, spec.partition, spec.model, spec.klass, spec.started,
                     spec.deadline)
    core_restore(server.core, now, &spec, 1)
    return 1


cdef int restore_all(Server* server, const Restored* all, uint32_t count, int64_t now) noexcept nogil:
    """How many run, server.unfit of living processes do not fit; -errno if that cannot be told: then none runs."""
    cdef uint32_t number
    cdef int trouble
    cdef int alive = 0
    cdef uint32_t* callers = <uint32_t*>calloc(count + 1, sizeof(uint32_t))
    if callers == NULL:
        return -ENOMEM
    for number in range(count):
        trouble = restored_caller(server, &all[number], &callers[number])
        if trouble:
            free(callers)
            return trouble
    for number in range(count):                 # the living first: there may not be room for all
        if callers[number] != NONE:
            if lease_restore(server, &all[number], callers[number], now):
                alive += 1
            else:
                server.unfit += 1
    for number in range(count):
        if callers[number] == NONE:
            lease_restore(server, &all[number], NONE, now)
        else:
            caller_settle(server, callers[number])
    free(callers)
    core_exited(server.core, now, -1)
    tell(server)
    return alive


cdef void report(const Server* server, uint64_t* numbers) noexcept nogil:
    numbers[0] = server.open_peers
    numbers[1] = server.open_callers
    numbers[2] = server.accepted
    numbers[3] = server.refused
    numbers[4] = server.faults
    numbers[5] = server.frames
    numbers[6] = server.given_up
    numbers[7] = server.undelivered
    numbers[8] = server.core.running


cdef void mail_execute(Server* server, Mail* mail) noexcept nogil:
    cdef int64_t now = clock_now()
    cdef uint32_t place
    server.asker = NONE
    server.asked_lease = 0
    if mail.kind == STOP:
        server.running = False
    elif mail.kind == CONFIGURE:
        mail.result = core_configure(server.core, now, <const PartitionSpec*>mail.argument)
        tell(server)
    elif mail.kind == REMOVE:
        mail.result = core_remove(server.core, now, mail.number)
        tell(server)
    elif mail.kind == DRAIN or mail.kind == UNDRAIN:
        mail.result = core_drain(server.core, now, mail.number, mail.kind == DRAIN)
        tell(server)
    elif mail.kind == COUNT:
        place = table_find(&server.core.partition_table, mail.number, 0)
        (<uint32_t*>mail.argument)[0] = 0 if place == NONE else server.core.partitions[place].run
        (<uint32_t*>mail.argument)[1] = 0 if place == NONE else server.core.partitions[place].waiting
    elif mail.kind == RESTORE:
        mail.result = restore_all(server, <Restored*>mail.argument, mail.number, now)
    elif mail.kind == VERDICT:
        verdict_tell(server, <const Verdict*>mail.argument)
    elif mail.kind == REVALIDATE:
        server.epoch += 1
    elif mail.kind == REPORT:
        report(server, <uint64_t*>mail.argument)
    elif mail.kind == FREEZE:
        core_advance(server.core, now)
        tell(server)
        freeze_begin(server.core)
        server.freezing = mail


cdef inline void freeze_some(Server* server) noexcept nogil:
    """Copy a little more of a snapshot; the one who waits for it is told when it is whole."""
    if not freeze_step(server.core, STEP_BLOCKS):
        server.freezing = NULL
        ring(server.done_fd)


cdef bint mail_open(Server* server) noexcept nogil:
    """In the dispatch thread: carry out what there is, if there is something."""
    cdef Mail* mail = <Mail*>emptied(&server.mail)
    if mail == NULL:
        return False
    mail_execute(server, mail)
    if server.freezing == NULL:
        ring(server.done_fd)
    return True


cdef void mail_finish(Server* server) noexcept nogil:
    """At the end of the dispatch thread. From when `serving` is 0, mail that is not taken here is carried out by the
    one who brings it, in a thread of its own: then nothing of the core may be touched here.
    """
    while server.freezing != NULL:
        freeze_some(server)
    store(&server.serving, 0)
    if mail_open(server):
        while server.freezing != NULL:
            freeze_some(server)


cdef void mail_deliver(Server* server, Mail* mail) noexcept nogil:
    """In a Python thread: hand it over and wait; carry it out here when nobody serves."""
    cdef uint64_t ignored
    store(&server.mail, <uint64_t>mail)
    if not load(&server.serving) and emptied(&server.mail):
        mail_execute(server, mail)
        if server.freezing == NULL:
            ring(server.done_fd)
        while server.freezing != NULL:
            freeze_some(server)
    else:
        ring(server.mail_fd)
    while read_file(server.done_fd, &ignored, 8) < 0 and errno == EINTR:
        pass
