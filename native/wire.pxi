# Frames of aimd/protocol/DISPATCH.md as bytes; the machine is little-endian.

cdef enum:
    MAGIC = 0x444D4941
    VERSION = 1
    MOST_FRAME = 512
    MOST_MODEL = 253
    MOST_PARTITION = 64
    MOST_TEXT = 460
    DEFAULT_CLASS = 255

cdef enum FrameKind:
    HELLO_FRAME = 1
    OPEN_FRAME = 2
    ACQUIRE_FRAME = 3
    RELEASE_FRAME = 4
    RENEW_FRAME = 5
    ADOPT_FRAME = 6
    CANCEL_FRAME = 7
    WELCOME_FRAME = 65
    OPENED_FRAME = 66
    GRANTED_FRAME = 67
    QUEUED_FRAME = 68
    ENDED_FRAME = 69
    RELEASED_FRAME = 70
    RENEWED_FRAME = 71
    ADOPTED_FRAME = 72
    REFUSED_FRAME = 73
    TAKEN_FRAME = 74
    DENIED_FRAME = 75
    ERROR_FRAME = 127

cdef enum FrameFault:
    BAD_SIZE = 1
    UNKNOWN_KIND = 2
    BAD_MAGIC = 3
    BAD_VERSION = 4
    OUT_OF_ORDER = 5
    BAD_FIELD = 6
    DUPLICATE_REQUEST = 7
    UNKNOWN_HANDLE = 8
    TOO_MANY_CONNECTIONS = 9
    TOO_SLOW = 10
    NOT_VISIBLE = 11
    TOO_MANY_OPENS = 12

cdef enum:
    NO_WAIT_FLAG = 1                # ACQUIRE
    FAILED_FLAG = 1                 # RELEASE
    QUIET_FLAG = 2                  # both

cdef packed struct Head:
    uint16_t size
    uint8_t kind
    uint8_t flags
    uint32_t word

cdef packed struct Hello:
    Head head
    uint16_t first
    uint16_t last
    uint32_t features
    uint64_t reserved

cdef packed struct Acquire:
    Head head
    uint64_t request
    int64_t wait
    uint8_t klass
    uint8_t reserved[7]

# RELEASE, RENEW, ADOPT, CANCEL; QUEUED, RELEASED, TAKEN. Also the beginning of OPEN.
cdef packed struct Number:
    Head head
    uint64_t number

cdef packed struct Welcome:
    Head head
    uint64_t instance
    uint32_t features
    uint32_t requests
    uint32_t handles
    uint32_t reserved

cdef packed struct Opened:
    Head head
    uint64_t tag
    uint8_t highest
    uint8_t klass
    uint16_t bytes
    uint32_t slots
    int64_t lease_ns

cdef packed struct Granted:
    Head head
    uint64_t request
    uint64_t lease
    int64_t lease_ns

cdef packed struct Ended:
    Head head
    uint64_t request
    int64_t retry_after
    uint64_t reserved

cdef packed struct Until:
    Head head
    uint64_t lease
    int64_t lease_ns

cdef packed struct Refused:
    Head head
    uint64_t number
    uint8_t asked
    uint8_t reserved[7]

cdef packed struct Denied:
    Head head
    uint64_t tag
    uint16_t bytes
    uint8_t reserved[6]

cdef packed struct Error:
    Head head
    uint16_t bytes
    uint8_t reserved[6]


cdef inline void head(Head* at, size_t size, int kind, int flags, uint32_t word) noexcept nogil:
    at.size = <uint16_t>size
    at.kind = <uint8_t>kind
    at.flags = <uint8_t>flags
    at.word = word
