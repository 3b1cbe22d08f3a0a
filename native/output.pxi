# What peers are sent: bytes in chunks of a common pool, written to the socket once at the end of a turn.


cdef inline bint listens(const Peer* peer) noexcept nogil:
    """Whether frames can be added to what the peer is sent."""
    return (peer.state == READY or peer.state == NEW) and not peer.failed


cdef inline bint is_peer(const Server* server, uint32_t number) noexcept nogil:
    """Whether the place in the table is taken by an open connection."""
    return NEW <= server.peers[number].state <= ENDING


cdef inline uint64_t unsent(const Peer* peer) noexcept nogil:
    return peer.written - peer.sent


cdef inline uint32_t chunk_take(Server* server) noexcept nogil:
    cdef uint32_t chunk = server.free_chunk
    if chunk != NONE:
        server.free_chunk = server.chunks[chunk].next
    elif server.fresh_chunks < server.most_chunks:
        chunk = server.fresh_chunks
        server.fresh_chunks += 1
    else:
        return NONE
    server.chunks[chunk].next = NONE
    server.chunks[chunk].used = 0
    return chunk


cdef inline void chunk_give(Server* server, uint32_t chunk) noexcept nogil:
    server.chunks[chunk].next = server.free_chunk
    server.free_chunk = chunk


cdef inline void mark_dirty(Server* server, uint32_t number) noexcept nogil:
    """Look at the peer at the end of the turn."""
    cdef Peer* peer = &server.peers[number]
    if not peer.dirty:
        peer.dirty = 1
        peer.dirty_next = server.dirty
        server.dirty = number


cdef uint32_t chunk_squeeze(Server* server) noexcept nogil:
    """A chunk when there is none left: the peer with most unread output, which is no honest one, is given up."""
    cdef uint64_t most = 0
    cdef uint32_t number
    cdef uint32_t victim = NONE
    for number in range(server.core.bounds.connections):
        if server.peers[number].first != NONE and is_peer(server, number) and unsent(&server.peers[number]) > most:
            most = unsent(&server.peers[number])
            victim = number
    if victim == NONE:
        return NONE
    output_drop(server, &server.peers[victim])
    server.peers[victim].failed = 1
    server.given_up += 1
    mark_dirty(server, victim)
    return chunk_take(server)


cdef void put(Server* server, uint32_t number, const void* data, uint32_t size) noexcept nogil:
    """Append to what the peer is sent, if it is sent anything any more."""
    cdef Peer* peer = &server.peers[number]
    cdef const char* at = <const char*>data
    cdef Chunk* chunk
    cdef uint32_t fresh, part
    if not listens(peer):
        return
    peer.written += size
    mark_dirty(server, number)
    while size:
        if peer.last == NONE or server.chunks[peer.last].used == CHUNK_BYTES:
            fresh = chunk_take(server)
            if fresh == NONE:
                fresh = chunk_squeeze(server)
            if fresh == NONE:
                peer.failed = 1
            if peer.failed:                     # it was this one that had most
                if fresh != NONE:
                    chunk_give(server, fresh)
                return
            if peer.last == NONE:
                peer.first = fresh
                peer.offset = 0
            else:
                server.chunks[peer.last].next = fresh
            peer.last = fresh
        chunk = &server.chunks[peer.last]
        part = min(size, CHUNK_BYTES - chunk.used)
        memcpy(chunk.data + chunk.used, at, part)
        chunk.used += part
        at += part
        size -= part


cdef inline char* put_room(Server* server, uint32_t number, uint32_t size) noexcept nogil:
    """Append to what the peer is sent in place, where there is a chunk with room for it; NULL: see `put`."""
    cdef Peer* peer = &server.peers[number]
    cdef Chunk* chunk
    if not listens(peer) or peer.last == NONE:
        return NULL
    chunk = &server.chunks[peer.last]
    if chunk.used + size > CHUNK_BYTES:
        return NULL
    peer.written += size
    mark_dirty(server, number)
    chunk.used += size
    return chunk.data + chunk.used - size


cdef void put_text(Server* server, uint32_t number, void* frame, uint32_t size, const char* text,
                   uint32_t length) noexcept nogil:
    """A frame whose fixed part is followed by a text; its size is set here."""
    cdef char padded[MOST_FRAME]
    cdef uint32_t whole = (size + length + 7) // 8 * 8
    memset(padded, 0, whole)
    (<Head*>frame).size = <uint16_t>whole
    memcpy(padded, frame, size)
    memcpy(padded + size, text, length)
    put(server, number, padded, whole)


cdef void fault(Server* server, uint32_t number, int code, const char* text) noexcept nogil:
    """The last frame of a peer; it is closed at the end of the turn."""
    cdef Error error
    if not listens(&server.peers[number]):
        return
    memset(&error, 0, sizeof(Error))
    head(&error.head, 0, ERROR_FRAME, 0, code)
    error.bytes = <uint16_t>min(strlen(text), MOST_TEXT)
    put_text(server, number, &error, sizeof(Error), text, error.bytes)
    server.peers[number].state = ENDING
    server.faults += 1
    mark_dirty(server, number)


cdef void watch(Server* server, uint32_t number) noexcept nogil:
    """Tell epoll what the peer is looked at for: what it sends unless paused, room for more when it is stuck."""
    cdef Peer* peer = &server.peers[number]
    cdef epoll_event wanted
    wanted.events = (0 if peer.paused else EPOLLIN) | (EPOLLOUT if peer.stuck_since else 0)
    wanted.data.u64 = (<uint64_t>PEER << 32) | number
    epoll_ctl(server.epoll, EPOLL_CTL_MOD, peer.fd, &wanted)


cdef void peer_flush(Server* server, uint32_t number) noexcept nogil:
    """Write what can be written; mark the peer as failed when its socket is broken."""
    cdef Peer* peer = &server.peers[number]
    cdef iovec parts[64]
    cdef msghdr message
    cdef uint32_t chunk, count
    cdef ssize_t sent = 0
    cdef bint paused = peer.paused
    cdef bint stuck = peer.stuck_since != 0
    while peer.first != NONE:
        count = 0
        chunk = peer.first
        while chunk != NONE and count < 64:
            parts[count].iov_base = server.chunks[chunk].data
            parts[count].iov_len = server.chunks[chunk].used
            count += 1
            chunk = server.chunks[chunk].next
        parts[0].iov_base = server.chunks[peer.first].data + peer.offset
        parts[0].iov_len -= peer.offset
        if count == 1:
            sent = send(peer.fd, parts[0].iov_base, parts[0].iov_len, MSG_DONTWAIT | MSG_NOSIGNAL)
        else:
            memset(&message, 0, sizeof(msghdr))
            message.msg_iov = parts
            message.msg_iovlen = count
            sent = sendmsg(peer.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent < 0:
            if errno == EINTR:
                continue
            if errno != EAGAIN and errno != ENOBUFS and errno != ENOMEM:
                peer.failed = 1
            break
        peer.sent += <uint64_t>sent
        sent += peer.offset
        while peer.first != NONE and <uint32_t>sent >= server.chunks[peer.first].used:
            sent -= server.chunks[peer.first].used
            chunk = peer.first
            peer.first = server.chunks[chunk].next
            chunk_give(server, chunk)
        peer.offset = <uint32_t>sent
        if peer.first == NONE:
            peer.last = NONE
    if peer.failed or peer.state == ENDING:
        return
    if peer.first == NONE:
        peer.stuck_since = 0
    elif not stuck:
        peer.stuck_since = clock_now()
    server.stuck += (peer.stuck_since != 0) - <int>stuck
    peer.paused = unsent(peer) > PAUSE_BYTES
    if <bint>peer.paused != paused or (peer.stuck_since != 0) != stuck:
        watch(server, number)


cdef void output_drop(Server* server, Peer* peer) noexcept nogil:
    cdef uint32_t chunk = peer.first
    cdef uint32_t following
    while chunk != NONE:
        following = server.chunks[chunk].next
        chunk_give(server, chunk)
        chunk = following
    peer.first = peer.last = NONE
