# Who and what the server knows: peers (sockets), callers (processes), users (uids), and all of it in one structure.

cdef enum:
    HANDLES = 256                   # of a peer
    OPENS = 16                      # of a peer, under way
    CHUNK_BYTES = 504
    CHUNKS = 1 << 17                # of output that peers have not read, at most
    READ_BYTES = 8192               # of a peer at once: others want their turn
    PAUSE_BYTES = 4096              # unsent: the peer is not read before it reads
    QUESTIONS = 4096
    SPREAD = 256                    # events of one epoll_wait
    STATISTICS = 9

cdef enum PeerState:
    FREE = 0
    NEW = 1                         # before HELLO
    READY = 2
    ENDING = 3                      # nothing is added any more; an ERROR may be its last frame
    CLOSED = 4                      # until the end of the turn, so that events of this turn do not meet its successor

cdef enum Tag:                      # kind of descriptor, in the upper half of what epoll keeps
    LISTENER = 0
    MAILBOX = 1
    PEER = 2
    CALLER = 3
    TIMER = 4

cdef struct Handle:
    uint32_t number
    uint32_t partition
    uint32_t model
    uint32_t epoch
    uint32_t highest
    uint32_t klass                  # of an acquire that names none

cdef struct Peer:
    int fd
    uint32_t generation             # of this place in the table
    uint32_t connection             # of the core; NONE before HELLO
    uint32_t caller
    uint32_t user
    uint32_t gid
    uint32_t caller_prev
    uint32_t caller_next
    uint32_t counted                # waiting requests that its user is charged with
    uint32_t handles
    uint32_t asking                 # opens under way
    uint32_t first                  # chunks of output
    uint32_t last
    uint32_t offset                 # sent of the first chunk
    uint32_t dirty_next
    uint64_t written                # bytes, ever
    uint64_t sent
    int64_t stuck_since             # unsent output; 0: none
    uint16_t partial
    uint8_t state
    uint8_t dirty
    uint8_t paused
    uint8_t failed                  # its socket is broken
    char rest[MOST_FRAME]           # beginning of a frame

# A process with a peer or a lease.
cdef struct Caller:
    int64_t pid
    uint64_t started
    uint32_t peers
    uint32_t leases
    int pidfd
    uint8_t used

cdef struct User:
    uint32_t uid
    uint32_t peers
    uint32_t waiting

cdef struct Chunk:
    uint32_t next
    uint32_t used
    char data[CHUNK_BYTES]

# Of a lease by slot: who is told of its end, and where in that peer's output its grant stands.
cdef struct Bond:
    uint32_t peer
    uint32_t generation
    uint32_t caller
    uint64_t position               # NEVER_SENT: it was never put there

cdef struct Question:
    uint32_t peer
    uint32_t generation
    uint64_t tag
    int64_t pid
    uint64_t started
    uint32_t uid
    uint32_t gid
    uint16_t model_bytes
    uint16_t partition_bytes
    char text[MOST_MODEL + MOST_PARTITION]

cdef struct Verdict:
    uint32_t peer
    uint32_t generation
    uint64_t tag
    int outcome                     # 0: admitted
    uint32_t partition
    uint32_t model
    uint8_t highest
    uint8_t klass
    uint32_t slots
    int64_t lease_ns
    uint16_t bytes
    const char* text

cdef struct Restored:
    LeaseSpec spec
    int64_t pid
    uint64_t started

cdef struct Mail:
    int kind
    int result
    void* argument
    uint32_t number

# One line of the lease file, aimd/dispatch/lease_file.py.
cdef struct Mirrored:
    uint64_t lease
    int64_t pid
    uint64_t started
    int64_t granted
    int64_t deadline
    uint32_t partition
    uint32_t model
    uint8_t klass
    uint8_t live
    uint8_t reserved[14]

cdef struct Server:
    Core* core
    int epoll
    int listener
    int mail_fd
    int done_fd
    int question_fd
    int timer_fd
    int64_t wakes_at                # what is due then has the timer set; the thread is woken up to a tick later
    int spare_fd                    # given up for a moment when descriptors are short
    char* mirror_file               # as mapped
    Mirrored* mirror                # its lines
    uint64_t mirror_bytes
    Peer* peers
    Handle* handles                 # of peer p: from p * HANDLES
    Numbers free_peers
    uint32_t* peer_of               # by connection of the core
    Caller* callers
    Numbers free_callers
    uint32_t most_callers
    Table caller_table              # by pid
    User* users
    Numbers free_users
    Table user_table                # by uid
    Bond* bonds
    Chunk* chunks
    uint32_t free_chunk
    uint32_t fresh_chunks
    uint32_t most_chunks
    uint32_t dirty                  # peers with something to send
    uint32_t closed                 # by dirty_next: free at the end of the turn
    uint32_t stuck                  # how many peers have unsent output
    Question* questions
    uint64_t asked                  # written by the dispatch thread
    uint64_t answered               # written by Python
    uint64_t mail                   # a Mail*, or 0
    uint64_t serving
    uint64_t beats                  # how often the thread has looked into its mailbox
    Mail* freezing
    uint32_t epoch                  # of handles
    bint running
    bint listening
    int64_t accept_at               # when to listen again
    int64_t swept_at
    # The call that is being carried out: who asked, and whether it wants to hear that all went well.
    uint32_t asker
    uint64_t asked_lease
    bint quiet
    int asked_kind
    uint64_t most_peers             # caps of a user
    uint64_t most_waiting
    int64_t patience
    bint peer_pidfd                 # the kernel has SO_PEERPIDFD, as far as is known
    uint64_t instance
    uint64_t jitter
    uint32_t open_peers
    uint32_t open_callers
    uint64_t accepted
    uint64_t refused
    uint64_t faults
    uint64_t frames
    uint64_t given_up
    uint64_t undelivered
    uint32_t unfit                  # leases that were not restored for want of room
    bint laid_out                   # what follows from memory can be used
    char* memory
    uint64_t memory_bytes
