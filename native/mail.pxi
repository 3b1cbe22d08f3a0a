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
    if peer.generation != verdict.generation or peer.state != READY:
        return
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


cdef uint32_t restored_caller(Server* server, const Restored* one) noexcept nogil:
    """The process of a lease of an earlier daemon, or NONE if it has ended."""
    cdef uint32_t known = table_find(&server.caller_table, <uint64_t>one.pid, 0)
    cdef int pidfd
    if known != NONE:
        return known if server.callers[known].started == one.started else NONE
    pidfd = pidfd_open(one.pid)
    if pidfd < 0:
        return NONE
    if start_time_of(one.pid) == one.started and not readable(pidfd):
        known = caller_enter(server, one.pid, one.started, pidfd)
    if known == NONE:
        close_file(pidfd)
    return known


cdef int restore_all(Server* server, Restored* all, uint32_t count, int64_t now) noexcept nogil:
    cdef uint32_t number, slot, caller
    cdef LeaseSpec* specs = <LeaseSpec*>calloc(count + 1, sizeof(LeaseSpec))
    cdef int alive = 0
    if specs == NULL:
        return -1
    for number in range(count):
        slot = <uint32_t>(all[number].spec.id & ((1 << SLOT_BITS) - 1))
        caller = restored_caller(server, &all[number])
        specs[number] = all[number].spec
        # The dead are one process of their own, which ends at once: so they are counted as lost.
        specs[number].process = -1 if caller == NONE else <int64_t>caller
        server.bonds[slot].caller = caller
        server.bonds[slot].peer = NONE
        if caller != NONE:
            alive += 1
            server.callers[caller].leases += 1
            mirror_grant(server, slot, specs[number].id, caller, specs[number].partition, specs[number].model,
                         specs[number].klass, specs[number].started, specs[number].deadline)
    core_restore(server.core, now, specs, count)
    free(specs)
    tell(server)
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


cdef void mail_open(Server* server) noexcept nogil:
    """In the dispatch thread: carry out what there is."""
    cdef Mail* mail = <Mail*>emptied(&server.mail)
    if mail == NULL:
        return
    mail_execute(server, mail)
    if server.freezing == NULL:
        ring(server.done_fd)


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
