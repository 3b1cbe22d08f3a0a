# From events of the core to the lease file and to frames.


cdef extern from *:
    const uint64_t NEVER_SENT "UINT64_MAX"


cdef inline void recount(Server* server, uint32_t number) noexcept nogil:
    """Charge the peer's user with what waits on its connection now."""
    cdef Peer* peer = &server.peers[number]
    cdef uint32_t waiting = server.core.connections[peer.connection].waiting if peer.connection != NONE else 0
    server.users[peer.user].waiting += waiting - peer.counted
    peer.counted = waiting


cdef inline void tell_number(Server* server, uint32_t peer, int kind, uint32_t word, uint64_t number) noexcept nogil:
    cdef Number frame
    head(&frame.head, sizeof(Number), kind, 0, word)
    frame.number = number
    put(server, peer, &frame, sizeof(Number))


cdef inline void tell_until(Server* server, uint32_t peer, int kind, uint64_t lease, int64_t lease_ns) noexcept nogil:
    cdef Until frame
    head(&frame.head, sizeof(Until), kind, 0, 0)
    frame.lease = lease
    frame.lease_ns = lease_ns
    put(server, peer, &frame, sizeof(Until))


cdef inline void tell_granted(Server* server, const Event* event) noexcept nogil:
    cdef uint32_t slot = <uint32_t>(event.lease & ((1 << SLOT_BITS) - 1))
    cdef const Lease* lease = &server.core.leases[slot]
    cdef uint32_t number = server.peer_of[event.connection]
    cdef Peer* peer = &server.peers[number]
    cdef Bond* bond = &server.bonds[slot]
    cdef Granted alone
    cdef Granted* frame
    mirror_grant(server, slot, event.lease, peer.caller, event.partition, event.model, event.detail, lease.started,
                 lease.deadline)
    frame = <Granted*>put_room(server, number, sizeof(Granted))
    if frame == NULL:
        frame = &alone
    head(&frame.head, sizeof(Granted), GRANTED_FRAME, event.green, event.detail)
    frame.request = event.number
    frame.lease = event.lease
    frame.lease_ns = lease.deadline - lease.started
    if frame == &alone:
        put(server, number, frame, sizeof(Granted))
    bond.peer = number
    bond.generation = peer.generation
    bond.caller = peer.caller
    bond.position = peer.written if listens(peer) else NEVER_SENT
    server.callers[peer.caller].leases += 1
    recount(server, number)


cdef inline uint64_t dice(Server* server) noexcept nogil:
    """The next of a sequence that looks like chance (xorshift64)."""
    server.jitter ^= server.jitter << 13
    server.jitter ^= server.jitter >> 7
    server.jitter ^= server.jitter << 17
    return server.jitter


cdef inline void tell_ended(Server* server, const Event* event) noexcept nogil:
    cdef uint32_t number = server.peer_of[event.connection]
    cdef Ended frame
    head(&frame.head, sizeof(Ended), ENDED_FRAME, 0, event.detail)
    frame.request = event.number
    frame.reserved = 0
    # A tenth more or less, so that those who were refused together do not come back together.
    frame.retry_after = event.when // 1000 * <int64_t>(900 + dice(server) % 201)
    put(server, number, &frame, sizeof(Ended))
    recount(server, number)


cdef void lease_over(Server* server, const Event* event) noexcept nogil:
    """RELEASED, REVOKED or LOST: out of the lease file; whoever thinks that it holds the lease is told."""
    cdef uint32_t slot = <uint32_t>(event.lease & ((1 << SLOT_BITS) - 1))
    cdef Bond* bond = &server.bonds[slot]
    cdef uint32_t caller = bond.caller
    mirror_end(server, slot)
    if event.kind == RELEASED:
        if event.lease == server.asked_lease and not server.quiet:
            tell_number(server, server.asker, RELEASED_FRAME, 0, event.lease)
    elif bond.peer != NONE and server.peers[bond.peer].generation == bond.generation:
        tell_number(server, bond.peer, TAKEN_FRAME, REVOKED if event.kind == REVOKED_EVENT else LOST, event.lease)
    if caller != NONE:                          # one that had ended before it was restored
        server.callers[caller].leases -= 1
        caller_settle(server, caller)


cdef void tell(Server* server) noexcept nogil:
    """All that the last call of the core has brought about."""
    cdef Core* core = server.core
    cdef const Event* event
    cdef Refused refusal
    cdef uint64_t number
    cdef uint32_t slot
    for number in range(core.event_count):
        event = &core.events[number]
        if event.kind == GRANTED_EVENT:
            tell_granted(server, event)
        elif event.kind == ENDED:
            tell_ended(server, event)
        elif event.kind == QUEUED:
            if not server.quiet:
                tell_number(server, server.peer_of[event.connection], QUEUED_FRAME, 0, event.number)
            recount(server, server.peer_of[event.connection])
        elif event.kind == RELEASED or event.kind == REVOKED_EVENT or event.kind == LOST_EVENT:
            lease_over(server, event)
        elif event.kind == RENEWED:
            server.mirror[event.lease & ((1 << SLOT_BITS) - 1)].deadline = event.when
            tell_until(server, server.asker, RENEWED_FRAME, event.lease, event.when - core.now)
        elif event.kind == ADOPTED:
            slot = <uint32_t>(event.lease & ((1 << SLOT_BITS) - 1))
            server.bonds[slot].peer = server.asker
            server.bonds[slot].generation = server.peers[server.asker].generation
            server.bonds[slot].position = 0
            tell_until(server, server.asker, ADOPTED_FRAME, event.lease, core.leases[slot].deadline - core.now)
        elif event.kind == ORPHANED:
            server.bonds[event.lease & ((1 << SLOT_BITS) - 1)].peer = NONE
        elif event.kind == REFUSED and server.asker != NONE:
            memset(&refusal, 0, sizeof(Refused))
            head(&refusal.head, sizeof(Refused), REFUSED_FRAME, 0, event.detail)
            refusal.number = event.number
            refusal.asked = <uint8_t>server.asked_kind
            put(server, server.asker, &refusal, sizeof(Refused))
    core.event_count = 0
