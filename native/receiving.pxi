# Frames of a peer, one function per kind: what it may say, and what the core is asked.


cdef enum:
    LAST_READS = 64                 # more than a socket buffers; a child may go on writing


cdef bint all_zero(const uint8_t* at, size_t size) noexcept nogil:
    cdef size_t place
    for place in range(size):
        if at[place]:
            return False
    return True


cdef void on_hello(Server* server, uint32_t number, const Hello* frame) noexcept nogil:
    cdef Peer* peer = &server.peers[number]
    cdef int64_t connection
    cdef char text[MOST_FRAME]
    cdef Welcome welcome
    if frame.head.word != MAGIC:
        snprintf(text, sizeof(text), b"HELLO begins with 0x%08x, expected 0x%08x", frame.head.word, <uint32_t>MAGIC)
        fault(server, number, BAD_MAGIC, text)
        return
    if frame.first > VERSION or frame.last < VERSION:
        snprintf(text, sizeof(text), b"the client speaks versions %u to %u, the daemon speaks %u",
                 <unsigned>frame.first, <unsigned>frame.last, <unsigned>VERSION)
        fault(server, number, BAD_VERSION, text)
        return
    connection = core_open(server.core, peer.caller, 0)
    if connection < 0:
        fault(server, number, TOO_MANY_CONNECTIONS, b"all connections of the dispatch core are taken")
        return
    peer.connection = <uint32_t>connection
    server.peer_of[connection] = number
    memset(&welcome, 0, sizeof(Welcome))
    head(&welcome.head, sizeof(Welcome), WELCOME_FRAME, 0, VERSION)
    welcome.instance = server.instance
    welcome.requests = server.core.bounds.requests_per_connection
    welcome.handles = HANDLES
    peer.state = READY
    put(server, number, &welcome, sizeof(Welcome))


cdef void denied(Server* server, uint32_t number, uint64_t tag, int outcome, const char* text,
                 uint32_t length) noexcept nogil:
    cdef Denied frame
    memset(&frame, 0, sizeof(Denied))
    head(&frame.head, 0, DENIED_FRAME, 0, outcome)
    frame.tag = tag
    frame.bytes = <uint16_t>length
    put_text(server, number, &frame, sizeof(Denied), text, length)


cdef void on_open(Server* server, uint32_t number, const Number* frame) noexcept nogil:
    """Names are Python's: the question is put into the ring, the verdict comes as mail."""
    cdef Peer* peer = &server.peers[number]
    cdef const Caller* caller = &server.callers[peer.caller]
    cdef uint32_t model_bytes = frame.head.word & 0xFFFF
    cdef uint32_t partition_bytes = frame.head.word >> 16
    cdef const uint8_t* names = <const uint8_t*>frame + sizeof(Number)
    cdef Question* question
    cdef char text[MOST_FRAME]
    if (model_bytes == 0 or model_bytes > MOST_MODEL or partition_bytes > MOST_PARTITION
            or frame.head.size != sizeof(Number) + (model_bytes + partition_bytes + 7) // 8 * 8
            or not all_zero(names + model_bytes + partition_bytes,
                            frame.head.size - sizeof(Number) - model_bytes - partition_bytes)):
        snprintf(text, sizeof(text), b"OPEN of %u bytes names a model of %u bytes and a partition of %u: expected 1 to"
                                     b" 253, 0 to 64, and padding by zeros to a multiple of 8",
                 <unsigned>frame.head.size, model_bytes, partition_bytes)
        fault(server, number, BAD_FIELD, text)
        return
    if peer.asking >= OPENS:
        fault(server, number, TOO_MANY_OPENS, b"16 opens are under way: expected the client to wait for answers")
        return
    if server.asked - load(&server.answered) >= QUESTIONS:
        denied(server, number, frame.number, WOULD_BLOCK, b"too many opens are to be answered: try again", 44)
        return
    question = &server.questions[server.asked % QUESTIONS]
    question.peer = number
    question.generation = peer.generation
    question.tag = frame.number
    question.pid = caller.pid
    question.started = caller.started
    question.uid = server.users[peer.user].uid
    question.gid = peer.gid
    question.model_bytes = <uint16_t>model_bytes
    question.partition_bytes = <uint16_t>partition_bytes
    memcpy(question.text, names, model_bytes + partition_bytes)
    peer.asking += 1
    store(&server.asked, server.asked + 1)
    ring(server.question_fd)


cdef inline void ended_here(Server* server, uint32_t number, uint64_t request, int outcome) noexcept nogil:
    """An acquire that the core never sees."""
    cdef Ended frame
    memset(&frame, 0, sizeof(Ended))
    head(&frame.head, sizeof(Ended), ENDED_FRAME, 0, outcome)
    frame.request = request
    put(server, number, &frame, sizeof(Ended))


cdef void on_acquire(Server* server, uint32_t number, const Acquire* frame, int64_t now) noexcept nogil:
    cdef Peer* peer = &server.peers[number]
    cdef uint32_t place = frame.head.word & (HANDLES - 1)
    cdef Handle* handle = &server.handles[number * HANDLES + place]
    cdef int klass = <int>handle.klass if frame.klass == DEFAULT_CLASS else frame.klass
    cdef int otherwise = 0
    cdef char text[MOST_FRAME]
    if (frame.request >> 63 or (frame.klass >= CLASSES and frame.klass != DEFAULT_CLASS)
            or frame.wait < -1 or frame.wait > <int64_t>1 << 62
            or frame.head.flags & ~(NO_WAIT_FLAG | QUIET_FLAG) or not all_zero(frame.reserved, 7)):
        snprintf(text, sizeof(text), b"ACQUIRE has request %llu, wait %lld, class %u, flags %u: expected a request"
                                     b" below 2^63, a wait from -1 to 2^62, a class of 0, 1, 2 or 255, flags of 0 to 3,"
                                     b" zeros at the end", <unsigned long long>frame.request, <long long>frame.wait,
                 <unsigned>frame.klass, <unsigned>frame.head.flags)
        fault(server, number, BAD_FIELD, text)
        return
    if place >= peer.handles:
        snprintf(text, sizeof(text), b"ACQUIRE names handle %u: expected one that OPENED gave", frame.head.word)
        fault(server, number, UNKNOWN_HANDLE, text)
        return
    if handle.number != frame.head.word or handle.epoch != server.epoch:
        ended_here(server, number, frame.request, MODEL_GONE)
        return
    if frame.head.flags & NO_WAIT_FLAG:
        otherwise = WOULD_BLOCK
    elif server.users[peer.user].waiting >= server.most_waiting:
        otherwise = QUEUE_FULL_UID
    server.quiet = frame.head.flags & QUIET_FLAG
    server.core.connections[peer.connection].highest = handle.highest
    if core_acquire(server.core, now, peer.connection, <int64_t>frame.request, handle.partition, handle.model, klass,
                    -1 if frame.wait < 0 else now + frame.wait, otherwise) == BAD_REQUEST:
        snprintf(text, sizeof(text), b"request %llu of this connection is waiting already: expected another number",
                 <unsigned long long>frame.request)
        fault(server, number, DUPLICATE_REQUEST, text)
        return
    tell(server)


cdef void on_number(Server* server, uint32_t number, const Number* frame, int64_t now) noexcept nogil:
    cdef Peer* peer = &server.peers[number]
    cdef int kind = frame.head.kind
    if frame.head.word or frame.head.flags & ~(FAILED_FLAG | QUIET_FLAG if kind == RELEASE_FRAME else 0):
        fault(server, number, BAD_FIELD, b"RELEASE, RENEW, ADOPT and CANCEL have a word of 0 and no flags: expected"
                                         b" those of RELEASE at most")
        return
    server.asker = number
    server.asked_kind = kind
    server.asked_lease = frame.number
    server.quiet = frame.head.flags & QUIET_FLAG
    if kind == RELEASE_FRAME:
        core_release(server.core, now, peer.connection, frame.number, not frame.head.flags & FAILED_FLAG)
    elif kind == RENEW_FRAME:
        core_renew(server.core, now, peer.connection, frame.number)
    elif kind == ADOPT_FRAME:
        core_adopt(server.core, now, peer.connection, frame.number)
    else:
        core_cancel(server.core, now, peer.connection, frame.number)
    tell(server)
    server.asked_lease = 0


cdef inline size_t size_of(int kind) noexcept nogil:
    """Of frames from clients; OPEN: at least. 0: there is no such kind."""
    if kind == ACQUIRE_FRAME:
        return sizeof(Acquire)
    if RELEASE_FRAME <= kind <= CANCEL_FRAME:
        return sizeof(Number)
    if kind == OPEN_FRAME:
        return sizeof(Number) + 8
    return sizeof(Hello) if kind == HELLO_FRAME else 0


cdef void on_frame(Server* server, uint32_t number, const Head* frame, int64_t now) noexcept nogil:
    """A whole frame, its size already within bounds."""
    cdef Peer* peer = &server.peers[number]
    cdef size_t expected = size_of(frame.kind)
    cdef char text[MOST_FRAME]
    server.frames += 1
    if expected == 0:
        snprintf(text, sizeof(text), b"a frame has kind %u: expected 1 to 7", <unsigned>frame.kind)
        fault(server, number, UNKNOWN_KIND, text)
    elif frame.size < expected or (frame.size != expected and frame.kind != OPEN_FRAME):
        snprintf(text, sizeof(text), b"a frame of kind %u has %u bytes: expected %u", <unsigned>frame.kind,
                 <unsigned>frame.size, <unsigned>expected)
        fault(server, number, BAD_SIZE, text)
    elif (frame.kind == HELLO_FRAME) != (peer.state == NEW):
        fault(server, number, OUT_OF_ORDER, b"HELLO comes first and once: expected nothing before it and no second one")
    elif frame.kind <= OPEN_FRAME and (frame.flags or (frame.kind == HELLO_FRAME
                                                       and (<const Hello*>frame).reserved)):
        fault(server, number, BAD_FIELD, b"HELLO and OPEN have no flags, HELLO ends with zeros")
    elif frame.kind == HELLO_FRAME:
        on_hello(server, number, <const Hello*>frame)
    elif frame.kind == OPEN_FRAME:
        on_open(server, number, <const Number*>frame)
    elif frame.kind == ACQUIRE_FRAME:
        on_acquire(server, number, <const Acquire*>frame, now)
    else:
        on_number(server, number, <const Number*>frame, now)


cdef void receive(Server* server, uint32_t number) noexcept nogil:
    """Read once and carry out every whole frame."""
    cdef Peer* peer = &server.peers[number]
    cdef char buffer[MOST_FRAME + READ_BYTES]
    cdef char* at = buffer
    cdef size_t left, size
    cdef char text[MOST_FRAME]
    cdef ssize_t got
    cdef int64_t now
    memcpy(buffer, peer.rest, peer.partial)
    got = recv(peer.fd, buffer + peer.partial, READ_BYTES, MSG_DONTWAIT)
    if got <= 0:
        if got == 0 or (errno != EAGAIN and errno != EINTR):
            peer.failed = 1
            mark_dirty(server, number)
        return
    now = clock_now()
    left = peer.partial + <size_t>got
    peer.partial = 0
    while left >= sizeof(Head) and listens(peer):
        size = (<const Head*>at).size
        if size < sizeof(Number) or size > MOST_FRAME or size % 8:
            snprintf(text, sizeof(text), b"a frame says that it has %u bytes: expected 16 to 512 in steps of 8",
                     <unsigned>size)
            fault(server, number, BAD_SIZE, text)
            return
        if left < size:
            break
        on_frame(server, number, <const Head*>at, now)
        at += size
        left -= size
    if left and listens(peer):
        memcpy(peer.rest, at, left)
        peer.partial = <uint16_t>left


cdef void last_words(Server* server, uint32_t number) noexcept nogil:
    """A client may release, and close or exit at once: what it has released is no orphan and not lost."""
    cdef Peer* peer = &server.peers[number]
    cdef char buffer[MOST_FRAME + READ_BYTES]
    cdef char* at
    cdef size_t left = peer.partial
    cdef size_t size
    cdef ssize_t got
    cdef int count
    if peer.state != READY:
        return
    peer.failed = 1                             # nothing is told to it any more
    memcpy(buffer, peer.rest, left)
    for count in range(LAST_READS):
        got = recv(peer.fd, buffer + left, READ_BYTES, MSG_DONTWAIT)
        if got <= 0:
            break
        at = buffer
        left += <size_t>got
        while left >= sizeof(Head):
            size = (<const Head*>at).size
            if size < sizeof(Number) or size > MOST_FRAME or size % 8:
                return
            if left < size:
                break
            if (<const Head*>at).kind == RELEASE_FRAME and size == sizeof(Number):
                on_number(server, number, <const Number*>at, clock_now())
            at += size
            left -= size
        memmove(buffer, at, left)
