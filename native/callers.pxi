# Peers come and go; processes and users are known while they have something here.

cdef extern from *:
    const char* NO_DESCRIPTOR "\"the daemon has no descriptor or memory left: try again later\""


cdef void caller_forget(Server* server, uint32_t number) noexcept nogil:
    cdef Caller* caller = &server.callers[number]
    epoll_ctl(server.epoll, EPOLL_CTL_DEL, caller.pidfd, NULL)
    close_file(caller.pidfd)
    table_remove(&server.caller_table, <uint64_t>caller.pid, 0)
    caller.used = 0
    numbers_give(&server.free_callers, number)
    server.open_callers -= 1


cdef void caller_settle(Server* server, uint32_t number) noexcept nogil:
    """Forget a process that has neither peer nor lease."""
    cdef Caller* caller = &server.callers[number]
    if caller.used and caller.peers == NONE and caller.leases == 0:
        caller_forget(server, number)


cdef uint32_t caller_enter(Server* server, int64_t pid, uint64_t started, int pidfd) noexcept nogil:
    """A process that is not known yet; keeps the descriptor. NONE: neither room nor memory."""
    cdef uint32_t number = numbers_take(&server.free_callers)
    cdef Caller* caller
    cdef epoll_event wanted
    if number == NONE:
        return NONE
    caller = &server.callers[number]
    memset(caller, 0, sizeof(Caller))
    caller.pid = pid
    caller.started = started
    caller.pidfd = pidfd
    caller.peers = NONE
    caller.used = 1
    wanted.events = EPOLLIN
    wanted.data.u64 = (<uint64_t>CALLER << 32) | number
    if epoll_ctl(server.epoll, EPOLL_CTL_ADD, pidfd, &wanted) != 0:
        numbers_give(&server.free_callers, number)
        caller.used = 0
        return NONE
    table_add(&server.caller_table, <uint64_t>pid, 0, number)
    server.open_callers += 1
    return number


cdef void caller_gone(Server* server, uint32_t number) noexcept nogil:
    """The process has ended: all that it had is free, its sockets are closed, whoever else holds them."""
    cdef Caller* caller = &server.callers[number]
    cdef uint32_t peer = caller.peers
    caller.leases += 1                          # so that it is not forgotten under our hands
    while peer != NONE:
        last_words(server, peer)
        peer = server.peers[peer].caller_next
    peer = caller.peers
    while peer != NONE:
        server.peers[peer].connection = NONE    # closed by the core
        server.peers[peer].state = ENDING
        peer = server.peers[peer].caller_next
    server.asker = NONE
    server.asked_lease = 0
    core_exited(server.core, clock_now(), number)
    tell(server)
    while caller.peers != NONE:
        peer_close(server, caller.peers)
    caller.leases -= 1
    caller_settle(server, number)


cdef enum:
    INVISIBLE = -1                  # why it is not known which process has opened a connection
    SHORT = -2


cdef int process_of(Server* server, int fd, int64_t pid, int64_t* started) noexcept nogil:
    """A pidfd of the process that opened a connection, and its start time; else INVISIBLE or SHORT.

    SO_PEERPIDFD names that process and no other. Kernels before 6.5 do not have it: there the pid is looked up, and
    its start time before and after must be equal, so that it is one process that is spoken of. It is another one than
    the peer if the peer has ended, and its pid was used again, between its connect and our accept.
    """
    cdef int pidfd = -1
    cdef socklen_t size = sizeof(int)
    cdef int64_t before = 0
    if pid <= 0:
        return INVISIBLE
    if server.peer_pidfd and getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) != 0:
        if errno != ENOPROTOOPT:                # without a process there is none, as newer kernels say
            return SHORT if short_of_something() else INVISIBLE
        server.peer_pidfd = False
    if not server.peer_pidfd:
        before = start_time_of(pid)
        pidfd = pidfd_open(pid)
        if pidfd < 0:
            return SHORT if short_of_something() else INVISIBLE
    started[0] = start_time_of(pid)
    if started[0] > 0 and not readable(pidfd) and (server.peer_pidfd or before == started[0]):
        return pidfd
    close_file(pidfd)
    return SHORT if started[0] < 0 or before < 0 else INVISIBLE


cdef int caller_of(Server* server, int fd, int64_t pid, uint32_t* number) noexcept nogil:
    """The process behind a new connection; 0, INVISIBLE or SHORT."""
    cdef int64_t started = 0
    cdef int pidfd = process_of(server, fd, pid, &started)
    cdef uint32_t known
    if pidfd < 0:
        return pidfd
    known = table_find(&server.caller_table, <uint64_t>pid, 0)
    if known != NONE and server.callers[known].started == <uint64_t>started:
        close_file(pidfd)
        number[0] = known
        return 0
    if known != NONE:
        caller_gone(server, known)              # its end has not been seen yet, and its pid is another's
    number[0] = caller_enter(server, pid, <uint64_t>started, pidfd)
    if number[0] == NONE:
        close_file(pidfd)
        return SHORT
    return 0


cdef uint32_t user_enter(Server* server, uint32_t uid) noexcept nogil:
    cdef uint32_t number = table_find(&server.user_table, uid, 0)
    if number != NONE:
        return number
    number = numbers_take(&server.free_users)   # there is one: as many as peers
    memset(&server.users[number], 0, sizeof(User))
    server.users[number].uid = uid
    table_add(&server.user_table, uid, 0, number)
    return number


cdef void user_settle(Server* server, uint32_t number) noexcept nogil:
    if server.users[number].peers == 0:
        table_remove(&server.user_table, server.users[number].uid, 0)
        numbers_give(&server.free_users, number)


cdef void turn_away(Server* server, int fd, int code, const char* text) noexcept nogil:
    """Say why on a socket that becomes no peer, and close it."""
    cdef char frame[MOST_FRAME]
    cdef Error* error = <Error*>frame
    cdef size_t length = min(strlen(text), MOST_TEXT)
    cdef size_t whole = (sizeof(Error) + length + 7) // 8 * 8
    memset(frame, 0, MOST_FRAME)
    head(&error.head, whole, ERROR_FRAME, 0, code)
    error.bytes = <uint16_t>length
    memcpy(frame + sizeof(Error), text, length)
    send(fd, frame, whole, MSG_DONTWAIT | MSG_NOSIGNAL)
    hang_up(fd)
    server.refused += 1


cdef void peer_accept(Server* server, int fd) noexcept nogil:
    cdef ucred credentials
    cdef socklen_t size = sizeof(ucred)
    cdef uint32_t caller, user, number
    cdef int unknown
    cdef epoll_event wanted
    cdef Peer* peer
    cdef char text[MOST_FRAME]
    memset(&credentials, 0, sizeof(ucred))
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size)
    user = table_find(&server.user_table, credentials.uid, 0)
    if user != NONE and server.users[user].peers >= server.most_peers:
        snprintf(text, sizeof(text), b"user %u has %u connections already, which is the most that one may have",
                 credentials.uid, server.users[user].peers)
        turn_away(server, fd, TOO_MANY_CONNECTIONS, text)
        return
    unknown = caller_of(server, fd, credentials.pid, &caller)
    if unknown == SHORT:
        turn_away(server, fd, TOO_MANY_CONNECTIONS, NO_DESCRIPTOR)
        return
    if unknown:
        turn_away(server, fd, NOT_VISIBLE, b"the connecting process has ended or is not visible to aimd: expected one"
                                           b" in the same or in a lower pid namespace")
        return
    number = numbers_take(&server.free_peers)
    if number == NONE:
        caller_settle(server, caller)
        turn_away(server, fd, TOO_MANY_CONNECTIONS, b"all connections of the dispatch socket are taken")
        return
    peer = &server.peers[number]
    peer.fd = fd
    peer.generation += 1
    peer.connection = NONE
    peer.caller = caller
    peer.user = user_enter(server, credentials.uid)
    peer.caller_prev = NONE
    peer.caller_next = server.callers[caller].peers
    if peer.caller_next != NONE:
        server.peers[peer.caller_next].caller_prev = number
    server.callers[caller].peers = number
    peer.gid = credentials.gid
    peer.counted = peer.handles = peer.asking = peer.offset = peer.partial = 0
    peer.first = peer.last = NONE
    peer.written = peer.sent = 0
    peer.stuck_since = 0
    peer.state = NEW
    peer.dirty = peer.paused = peer.failed = 0
    server.users[peer.user].peers += 1
    server.open_peers += 1
    server.accepted += 1
    wanted.events = EPOLLIN
    wanted.data.u64 = (<uint64_t>PEER << 32) | number
    if epoll_ctl(server.epoll, EPOLL_CTL_ADD, fd, &wanted) != 0:
        peer_close(server, number)


cdef void waiting_cancel(Server* server, uint32_t number) noexcept nogil:
    """End what waits on the connection, so that nothing is granted to it any more."""
    cdef Peer* peer = &server.peers[number]
    cdef uint32_t request = server.core.connections[peer.connection].requests
    while request != NONE:
        core_cancel(server.core, clock_now(), peer.connection, server.core.requests[request].number)
        tell(server)
        request = server.core.connections[peer.connection].requests


cdef void undelivered_release(Server* server, uint32_t number) noexcept nogil:
    """Give back the leases whose grant never left: the client cannot be using them."""
    cdef Peer* peer = &server.peers[number]
    cdef uint32_t slot = server.core.connections[peer.connection].leases
    while slot != NONE:
        if server.bonds[slot].position <= peer.sent:
            slot = server.core.leases[slot].connection_next
            continue
        server.undelivered += 1
        core_release(server.core, clock_now(), peer.connection, server.core.leases[slot].id, False)
        tell(server)
        slot = server.core.connections[peer.connection].leases      # others may have ended with it


cdef void peer_close(Server* server, uint32_t number) noexcept nogil:
    """End of a connection: what waits is cancelled, its leases go on as orphans while the process lives."""
    cdef Peer* peer = &server.peers[number]
    cdef uint32_t caller = peer.caller
    cdef uint32_t connection
    if not is_peer(server, number):
        return
    last_words(server, number)
    peer.state = CLOSED
    server.stuck -= peer.stuck_since != 0
    server.asker = number                       # who hears nothing any more
    server.asked_lease = 0
    if peer.connection != NONE:
        waiting_cancel(server, number)
        undelivered_release(server, number)
        connection = peer.connection
        core_disconnect(server.core, clock_now(), connection, not readable(server.callers[caller].pidfd))
        tell(server)
        peer.connection = NONE
    server.users[peer.user].peers -= 1
    user_settle(server, peer.user)
    if peer.caller_next != NONE:
        server.peers[peer.caller_next].caller_prev = peer.caller_prev
    if peer.caller_prev != NONE:
        server.peers[peer.caller_prev].caller_next = peer.caller_next
    else:
        server.callers[caller].peers = peer.caller_next
    caller_settle(server, caller)
    output_drop(server, peer)
    # A process that was forked may have a copy, for which epoll would go on to report.
    epoll_ctl(server.epoll, EPOLL_CTL_DEL, peer.fd, NULL)
    hang_up(peer.fd)
    server.open_peers -= 1
    if not peer.dirty:                          # else it is found in the list of dirty ones
        peer.dirty_next = server.closed
        server.closed = number
