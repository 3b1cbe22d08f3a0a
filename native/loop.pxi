# Setting up, and the loop: wait, look at what is ready, let time pass, send, forget what was closed.

cdef enum:
    ACCEPTS = 64                    # at once
    SWEEP = 1000000000              # ns between two looks at peers that do not read
    LATER = 100000000               # ns until connections are accepted again when descriptors were short
    TICK_NS = 1000000               # how exactly the thread is woken
    SECOND_NS = 1000000000

cdef extern from *:
    const int64_t NEVER_AGAIN "INT64_MAX"


# Cuts pieces from a mapping; without one it only counts.
cdef struct Cutter:
    char* memory
    uint64_t at


cdef char* cut(Cutter* cutter, uint64_t size) noexcept nogil:
    """The next piece, at a cache line's start."""
    cdef char* piece = cutter.memory + cutter.at
    cdef uint64_t whole = (size + 63) // 64 * 64 + GUARD
    if cutter.memory != NULL:
        guard(piece + size, whole - size)
    cutter.at += whole
    return piece


cdef void cut_numbers(Cutter* cutter, Numbers* numbers, uint64_t size) noexcept nogil:
    numbers.low = <uint64_t*>cut(cutter, (size + 63) // 64 * 8)
    numbers.middle = <uint64_t*>cut(cutter, (size + 4095) // 4096 * 8)


cdef void cut_table(Cutter* cutter, Table* table, uint64_t entries) noexcept nogil:
    cdef uint64_t cells = 16
    while cells < 2 * entries:
        cells *= 2
    table.mask = cells - 1
    table.cells = <Cell*>cut(cutter, cells * sizeof(Cell))


cdef uint64_t lay_out_server(Server* server, char* memory) noexcept nogil:
    """Point everything into `memory`, which is only counted when NULL; returns the size."""
    cdef const Bounds* bounds = &server.core.bounds
    cdef uint64_t peers = bounds.connections
    cdef uint64_t callers = server.most_callers
    cdef Cutter cutter
    cutter.memory = memory
    cutter.at = 0
    server.peers = <Peer*>cut(&cutter, peers * sizeof(Peer))
    server.handles = <Handle*>cut(&cutter, peers * HANDLES * sizeof(Handle))
    server.peer_of = <uint32_t*>cut(&cutter, peers * sizeof(uint32_t))
    server.users = <User*>cut(&cutter, peers * sizeof(User))
    server.callers = <Caller*>cut(&cutter, callers * sizeof(Caller))
    server.bonds = <Bond*>cut(&cutter, bounds.leases * sizeof(Bond))
    server.questions = <Question*>cut(&cutter, QUESTIONS * sizeof(Question))
    server.chunks = <Chunk*>cut(&cutter, <uint64_t>CHUNKS * sizeof(Chunk))
    cut_numbers(&cutter, &server.free_peers, peers)
    cut_numbers(&cutter, &server.free_users, peers)
    cut_numbers(&cutter, &server.free_callers, callers)
    cut_table(&cutter, &server.caller_table, callers)
    cut_table(&cutter, &server.user_table, peers)
    return cutter.at


cdef bint watch_fd(Server* server, int fd, int tag) noexcept nogil:
    cdef epoll_event wanted
    wanted.events = EPOLLIN
    wanted.data.u64 = <uint64_t>tag << 32
    return epoll_ctl(server.epoll, EPOLL_CTL_ADD, fd, &wanted) == 0


cdef Server* server_new(Bounds bounds, uint64_t generation, int listener, int leases, uint64_t instance) noexcept nogil:
    """A server that serves nothing yet, or NULL with errno."""
    cdef Server* server = <Server*>calloc(1, sizeof(Server))
    cdef uint32_t number
    if server == NULL:
        return NULL
    server.epoll = server.mail_fd = server.done_fd = server.question_fd = server.spare_fd = -1
    server.timer_fd = -1
    server.wakes_at = NEVER_AGAIN
    server.listener = listener
    server.instance = instance
    server.jitter = instance | 1
    server.most_callers = bounds.connections + bounds.leases + 1        # one is known before it has either
    server.core = core_new(bounds, generation)
    if server.core == NULL:
        server_free(server)
        return NULL
    server.memory_bytes = lay_out_server(server, NULL)
    server.memory = <char*>mmap(NULL, server.memory_bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    server.mirror_bytes = MIRROR_HEAD + bounds.leases * sizeof(Mirrored)
    server.mirror_file = <char*>mmap(NULL, server.mirror_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, leases, 0)
    server.epoll = epoll_create1(EPOLL_CLOEXEC)
    server.mail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    server.done_fd = eventfd(0, EFD_CLOEXEC)
    server.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
    server.question_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    server.spare_fd = eventfd(0, EFD_CLOEXEC)
    if server.memory == MAP_FAILED:
        server.memory = NULL
    if server.mirror_file == MAP_FAILED:
        server.mirror_file = NULL
    if (server.memory == NULL or server.mirror_file == NULL or server.epoll < 0 or server.mail_fd < 0
            or server.done_fd < 0 or server.question_fd < 0 or server.spare_fd < 0
            or server.timer_fd < 0 or not watch_fd(server, server.timer_fd, TIMER)
            or not watch_fd(server, server.mail_fd, MAILBOX)):
        server_free(server)
        return NULL
    server.mirror = <Mirrored*>(server.mirror_file + MIRROR_HEAD)
    lay_out_server(server, server.memory)
    server.laid_out = True
    server.caller_table.seed = server.user_table.seed = instance
    for number in range(bounds.connections):
        numbers_give(&server.free_peers, number)
        numbers_give(&server.free_users, number)
    for number in range(server.most_callers):
        numbers_give(&server.free_callers, number)
    server.free_chunk = NONE
    server.dirty = server.closed = server.asker = NONE
    return server


cdef void close_if(int fd) noexcept nogil:
    if fd >= 0:
        close_file(fd)


cdef void server_free(Server* server) noexcept nogil:
    """Close everything but the listener. Leases stay in their file: clients keep them over a restart."""
    cdef uint32_t number
    cdef int why = errno
    if server == NULL:
        return
    if server.laid_out:
        for number in range(server.core.bounds.connections):
            if is_peer(server, number):
                hang_up(server.peers[number].fd)
        for number in range(server.most_callers):
            if server.callers[number].used:
                close_file(server.callers[number].pidfd)
    if server.memory != NULL:
        unguard(server.memory, server.memory_bytes)
        munmap(server.memory, server.memory_bytes)
    if server.mirror_file != NULL:
        munmap(server.mirror_file, server.mirror_bytes)
    close_if(server.epoll)
    close_if(server.mail_fd)
    close_if(server.done_fd)
    close_if(server.question_fd)
    close_if(server.spare_fd)
    close_if(server.timer_fd)
    core_free(server.core)
    free(server)
    set_errno(why)


cdef void listen_again(Server* server, int64_t now) noexcept nogil:
    server.listening = watch_fd(server, server.listener, LISTENER)
    server.accept_at = now + LATER


cdef void listen_later(Server* server, int64_t now) noexcept nogil:
    """Nothing can be accepted: a listener that is ready for ever would keep the thread busy with nothing."""
    epoll_ctl(server.epoll, EPOLL_CTL_DEL, server.listener, NULL)
    server.listening = False
    server.accept_at = now + LATER


cdef void accept_some(Server* server, int64_t now) noexcept nogil:
    cdef int fd, count
    for count in range(ACCEPTS):
        fd = accept4(server.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd >= 0:
            peer_accept(server, fd)
            continue
        if errno == EMFILE or errno == ENFILE:
            # The spare descriptor serves to tell the one at the door why it is not let in.
            close_if(server.spare_fd)
            fd = accept4(server.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                turn_away(server, fd, TOO_MANY_CONNECTIONS, NO_DESCRIPTOR)
            server.spare_fd = eventfd(0, EFD_CLOEXEC)
            listen_later(server, now)
        elif errno != EAGAIN and errno != EINTR and errno != ECONNABORTED:
            listen_later(server, now)
        return


cdef void flush_all(Server* server) noexcept nogil:
    """Send what there is to send, close what is to be closed, until nothing follows from it."""
    cdef uint32_t number
    cdef Peer* peer
    while server.dirty != NONE:
        number = server.dirty
        peer = &server.peers[number]
        server.dirty = peer.dirty_next
        peer.dirty = 0
        if peer.state == CLOSED:
            peer.dirty_next = server.closed
            server.closed = number
            continue
        if not peer.failed:
            peer_flush(server, number)
        if peer.failed or peer.state == ENDING:
            peer_close(server, number)
    while server.closed != NONE:
        number = server.closed
        server.closed = server.peers[number].dirty_next
        server.peers[number].state = FREE
        numbers_give(&server.free_peers, number)


cdef void sweep(Server* server, int64_t now) noexcept nogil:
    """Give up peers that have not read for too long."""
    cdef uint32_t number
    server.swept_at = now
    for number in range(server.core.bounds.connections):
        if not is_peer(server, number):
            continue
        if server.peers[number].stuck_since and now - server.peers[number].stuck_since >= server.patience:
            server.given_up += 1
            fault(server, number, TOO_SLOW, b"the client does not read: its connection is given up")


cdef inline void wake_at_next(Server* server) noexcept nogil:
    """See to it that the timer wakes epoll when the next thing is due, up to a tick later; it may wake it earlier.

    What is due sooner than the timer wakes is rare, since requests and leases come with about the same waits in order:
    it is set again when it has woken, or for something that is due earlier, and not once per turn.
    """
    cdef int64_t due = core_next(server.core)
    cdef itimerspec until
    if not server.listening:
        due = min(due, server.accept_at)
    if server.stuck:
        due = min(due, server.swept_at + SWEEP)
    if due >= server.wakes_at:
        return
    server.wakes_at = due
    due = (max(due, 1) - 1) // TICK_NS + 1      # in ticks, rounded up
    until.it_interval.tv_sec = until.it_interval.tv_nsec = 0
    until.it_value.tv_sec = due // (SECOND_NS // TICK_NS)
    until.it_value.tv_nsec = due % (SECOND_NS // TICK_NS) * TICK_NS
    timerfd_settime(server.timer_fd, TFD_TIMER_ABSTIME, &until, NULL)


cdef void on_time(Server* server) noexcept nogil:
    """The timer has woken the thread: do what is due by now."""
    cdef int64_t now = clock_now()
    cdef uint64_t ignored
    read_file(server.timer_fd, &ignored, 8)
    server.wakes_at = NEVER_AGAIN
    if core_next(server.core) <= now:
        server.asker = NONE
        core_advance(server.core, now)
        tell(server)
    if not server.listening and now >= server.accept_at:
        listen_again(server, now)
    if server.stuck and now - server.swept_at >= SWEEP:
        sweep(server, now)


cdef void look(Server* server, const epoll_event* event) noexcept nogil:
    cdef uint64_t ignored
    cdef int tag = <int>(event.data.u64 >> 32)
    cdef uint32_t number = <uint32_t>event.data.u64
    if tag == PEER:
        if not listens(&server.peers[number]):
            return
        if event.events & EPOLLOUT:
            mark_dirty(server, number)
        if event.events & EPOLLIN or (event.events & (EPOLLHUP | EPOLLERR) and not server.peers[number].paused):
            receive(server, number)
        elif event.events & (EPOLLHUP | EPOLLERR):
            server.peers[number].failed = 1
            mark_dirty(server, number)
    elif tag == CALLER:
        if server.callers[number].used and readable(server.callers[number].pidfd):
            caller_gone(server, number)
    elif tag == LISTENER:
        accept_some(server, clock_now())
    elif tag == TIMER:
        on_time(server)
    else:
        read_file(server.mail_fd, &ignored, 8)
        store(&server.beats, server.beats + 1)
        mail_open(server)


cdef int serve(Server* server) noexcept nogil:
    """Until STOP; 0, or errno of epoll."""
    cdef epoll_event events[SPREAD]
    cdef int count, number
    cdef int failure = 0
    no_signals()
    server.running = True
    listen_again(server, clock_now())
    store(&server.serving, 1)
    while server.running:
        wake_at_next(server)
        count = epoll_wait(server.epoll, events, SPREAD, -1 if server.freezing == NULL else 0)
        if count < 0 and errno != EINTR:
            failure = errno
            break
        for number in range(count):
            look(server, &events[number])
        flush_all(server)
        if server.freezing != NULL:
            freeze_some(server)
    mail_finish(server)
    return failure
