# What the server needs of Linux beyond Cython's own declarations.

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <poll.h>
    #include <signal.h>
    #include <pthread.h>
    #include <sys/mman.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <sys/timerfd.h>
    #include <sys/uio.h>
    #include <unistd.h>
    #ifndef SO_PEERPIDFD
    #define SO_PEERPIDFD 77                     /* Linux 6.5 */
    #endif
    #ifndef SYS_pidfd_open
    #define SYS_pidfd_open 434                  /* Linux 5.3 */
    #endif
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "the dispatch socket's frames are written in the machine's order, which has to be little-endian"
    #endif
    static inline int aimd_pidfd_open(int64_t pid) { return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0); }
    static inline uint64_t aimd_load(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    static inline void aimd_store(uint64_t *at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); }
    static inline uint64_t aimd_empty(uint64_t *at) { return __atomic_exchange_n(at, 0, __ATOMIC_SEQ_CST); }
    /* Keeps the order of two writes for another process that maps the same file and finds it after a kill. */
    static inline void aimd_then(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
    static inline void aimd_set_errno(int value) { errno = value; }
    static inline void aimd_no_signals(void) {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, NULL);
    }
    """
    int pidfd_open "aimd_pidfd_open"(int64_t pid) noexcept nogil
    uint64_t load "aimd_load"(const uint64_t* at) noexcept nogil
    void store "aimd_store"(uint64_t* at, uint64_t value) noexcept nogil
    uint64_t emptied "aimd_empty"(uint64_t* at) noexcept nogil              # and leave 0
    void then "aimd_then"() noexcept nogil
    void no_signals "aimd_no_signals"() noexcept nogil
    void set_errno "aimd_set_errno"(int value) noexcept nogil

    const int EPOLLIN
    const int EPOLLOUT
    const int EPOLLHUP
    const int EPOLLERR
    const int EPOLL_CTL_ADD
    const int EPOLL_CTL_DEL
    const int EPOLL_CTL_MOD
    const int EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags) noexcept nogil
    int epoll_ctl(int epoll, int operation, int fd, epoll_event* event) noexcept nogil
    int epoll_wait(int epoll, epoll_event* events, int most, int timeout) noexcept nogil

    const int MAP_NORESERVE
    const int EFD_CLOEXEC
    const int EFD_NONBLOCK
    int eventfd(unsigned int value, int flags) noexcept nogil

    struct itimerspec:
        timespec it_interval
        timespec it_value
    const int TFD_CLOEXEC
    const int TFD_NONBLOCK
    const int TFD_TIMER_ABSTIME
    int timerfd_create(int clock, int flags) noexcept nogil
    int timerfd_settime(int fd, int flags, const itimerspec* value, itimerspec* earlier) noexcept nogil

    const int SOL_SOCKET
    const int SO_PEERCRED
    const int SO_PEERPIDFD
    const int SOCK_NONBLOCK
    const int SOCK_CLOEXEC
    const int SHUT_RDWR
    const int MSG_DONTWAIT
    const int MSG_NOSIGNAL
    ctypedef unsigned int socklen_t
    struct ucred:
        int pid
        unsigned int uid
        unsigned int gid
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    int accept4(int fd, void* address, void* length, int flags) noexcept nogil
    int getsockopt(int fd, int level, int option, void* value, socklen_t* size) noexcept nogil
    int shutdown(int fd, int how) noexcept nogil
    ssize_t recv(int fd, void* buffer, size_t size, int flags) noexcept nogil
    ssize_t send(int fd, const void* buffer, size_t size, int flags) noexcept nogil
    ssize_t sendmsg(int fd, const msghdr* message, int flags) noexcept nogil

    const int POLLIN
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd* descriptors, unsigned long count, int timeout) noexcept nogil


cdef inline int64_t clock_now() noexcept nogil:
    """CLOCK_MONOTONIC in nanoseconds."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef inline bint readable(int fd) noexcept nogil:
    cdef pollfd one
    one.fd = fd
    one.events = POLLIN
    one.revents = 0
    return poll(&one, 1, 0) > 0


cdef inline void ring(int fd) noexcept nogil:
    """Make an eventfd readable."""
    cdef uint64_t one = 1
    write_file(fd, &one, 8)


cdef inline bint short_of_something() noexcept nogil:
    """Whether errno says so: then nothing was learnt."""
    return errno == EMFILE or errno == ENFILE or errno == ENOMEM or errno == ENOBUFS or errno == ENOSPC


cdef int64_t start_time_of(int64_t pid) noexcept nogil:
    """Field 22 of /proc/<pid>/stat (clock ticks after boot); 0: there is no such process, -1: nothing was learnt."""
    cdef char text[1024]
    cdef char* at
    cdef ssize_t size
    cdef int field = 2
    cdef int64_t value = 0
    cdef int fd
    snprintf(text, sizeof(text), b"/proc/%lld/stat", <long long>pid)
    fd = open_file(text, O_RDONLY | O_CLOEXEC)
    if fd < 0:
        return -1 if short_of_something() else 0
    size = read_file(fd, text, sizeof(text) - 1)
    close_file(fd)
    if size <= 0:
        return 0
    at = text + size - 1
    while at > text and at[0] != c")":      # a command may hold spaces and parentheses
        at -= 1
    while at < text + size and field < 22:
        if at[0] == c" ":
            field += 1
        at += 1
    while at < text + size and c"0" <= at[0] <= c"9":
        value = value * 10 + (at[0] - c"0")
        at += 1
    return value


cdef void hang_up(int fd) noexcept nogil:
    """Close a client's socket, whoever else has a copy of it.

    What the client has sent and nobody read is taken out first: else it would meet an error instead of the end of file
    behind the last frame.
    """
    cdef char unread[8192]
    cdef int count
    for count in range(32):
        if recv(fd, unread, sizeof(unread), MSG_DONTWAIT) <= 0:
            break
    shutdown(fd, SHUT_RDWR)
    close_file(fd)
