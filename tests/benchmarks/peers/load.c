// One client for all servers, so that a client's own cost does not hide theirs: blocking sockets, CLOCK_MONOTONIC.
//
// Usage: load TARGET...; a target is aimd:PATH, echo:PATH (frames of 32 bytes), http:PATH (aiohttp) or grpc:PATH; all
// are connected at once and stay so. Then commands on the standard input, a line each, N after warming up:
//
//   trips TARGET N            one request at a time; aimd: ACQUIRE to GRANTED, and RELEASE to RELEASED untimed
//   pipeline TARGET DEPTH N   so many under way; aimd: ACQUIRE, GRANTED, RELEASE are one, without an answer to RELEASE
//   handoff TARGET N          aimd: RELEASE of the only slot on one connection to GRANTED on another one
//   processor NUMBER          run there from now on, -1: where the process may; the answer counts nothing
//
// answered by a line: nanoseconds of all, how many, then BUCKET:COUNT. Bucket b holds nanoseconds from
// (128 + b % 128) << (b / 128) on, less than 1 % wide; pipelines have none.
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { TARGETS = 16, FRAME = 32, ROOM = 65536, BUCKETS = 128 * 40, WARM = 200, QUIET = 2 };
enum { HELLO = 1, OPEN = 2, ACQUIRE = 3, RELEASE = 4, OPENED = 66, GRANTED = 67, QUEUED = 68, RELEASED = 70 };

struct head {
    uint16_t size;
    uint8_t kind, flags;
    uint32_t word;
    uint64_t number, more;
    int64_t last;
};

struct wire {
    int fd;
    size_t left;  // received, not used yet
    uint64_t lease;
    char bytes[2 * ROOM];
};

struct target {
    char kind[8];
    const char *path;
    uint32_t wide, narrow, stream;  // handles; the last stream of HTTP/2
    struct wire wires[2];
};

static uint64_t counts[BUCKETS];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static void count(int64_t nanoseconds) {
    const uint64_t value = nanoseconds < 128 ? 128 : (uint64_t)nanoseconds;
    const int shift = 63 - __builtin_clzll(value) - 7;
    counts[shift * 128 + (int)(value >> shift) - 128]++;
}

static void say(struct wire *wire, const void *bytes, size_t size) {
    for (const char *at = bytes; size;) {
        const ssize_t sent = send(wire->fd, at, size, MSG_NOSIGNAL);
        if (sent <= 0) die("send");
        at += sent;
        size -= (size_t)sent;
    }
}

static void more(struct wire *wire) {
    const ssize_t got = recv(wire->fd, wire->bytes + wire->left, ROOM, 0);
    if (got <= 0) die("recv");
    wire->left += (size_t)got;
}

static void used(struct wire *wire, size_t size) {
    wire->left -= size;
    if (wire->left) memmove(wire->bytes, wire->bytes + size, wire->left);
}

// -- frames of aimd and of the echo servers

// The next frame, which has to be of this kind (0: any).
static struct head hear(struct wire *wire, int kind) {
    struct head frame = {0};
    while (wire->left < 8 || (memcpy(&frame, wire->bytes, 8), wire->left < frame.size)) more(wire);
    memcpy(&frame, wire->bytes, frame.size < sizeof frame ? frame.size : sizeof frame);
    if (kind && frame.kind != kind) {
        fprintf(stderr, "expected a frame of kind %d: %d, word %u\n", kind, frame.kind, frame.word);
        exit(1);
    }
    used(wire, frame.size);
    return frame;
}

static struct head acquire(uint32_t handle, uint64_t request, int flags) {
    return (struct head){FRAME, ACQUIRE, (uint8_t)flags, handle, request, UINT64_MAX, 255};
}

static struct head release(uint64_t lease, int flags) {
    return (struct head){.size = 16, .kind = RELEASE, .flags = (uint8_t)flags, .number = lease};
}

static uint32_t open_model(struct wire *wire, const char *model) {
    char frame[24] = {24, 0, OPEN, 0, (char)strlen(model)};
    memcpy(frame + 16, model, strlen(model));
    say(wire, frame, sizeof frame);
    return hear(wire, OPENED).word;
}

// -- HTTP/1.1 and HTTP/2, as much of it as an echo needs

static const char http_request[] = "POST / HTTP/1.1\r\nHost: echo\r\nContent-Length: 32\r\n\r\n01234567890123456789012345678901";

static void http_trip(struct wire *wire) {
    char *end;
    say(wire, http_request, sizeof http_request - 1);
    do more(wire);
    while (!(end = memmem(wire->bytes, wire->left, "\r\n\r\n", 4)) || wire->left < (size_t)(end - wire->bytes) + 4 + FRAME);
    used(wire, wire->left);
}

static size_t http2_head(char *at, size_t size, int type, int flags, uint32_t stream) {
    const char head[9] = {(char)(size >> 16), (char)(size >> 8), (char)size, (char)type, (char)flags, (char)(stream >> 24),
                          (char)(stream >> 16), (char)(stream >> 8), (char)stream};
    memcpy(at, head, 9);
    return 9;
}

static size_t http2_field(char *at, const char *name, const char *value) {
    const size_t names = strlen(name), values = strlen(value);
    at[0] = 0x10;  // never indexed, so that neither side keeps a table
    at[1] = (char)names;
    memcpy(at + 2, name, names);
    at[2 + names] = (char)values;
    memcpy(at + 3 + names, value, values);
    return 3 + names + values;
}

// A unary call: HEADERS and DATA there, HEADERS, DATA and trailers back; windows are opened as they are used.
static void grpc_trip(struct target *target) {
    struct wire *wire = &target->wires[0];
    char out[512], fields[256];
    size_t size = 0, length = 0;
    target->stream += 2;
    length += http2_field(fields + length, ":method", "POST");
    length += http2_field(fields + length, ":scheme", "http");
    length += http2_field(fields + length, ":path", "/echo/Echo");
    length += http2_field(fields + length, ":authority", "echo");
    length += http2_field(fields + length, "te", "trailers");
    length += http2_field(fields + length, "content-type", "application/grpc");
    size += http2_head(out, length, 1, 4, target->stream);
    memcpy(out + size, fields, length);
    size += length;
    size += http2_head(out + size, 5 + FRAME, 0, 1, target->stream);
    memset(out + size, 0, 5 + FRAME);
    out[size + 4] = FRAME;
    say(wire, out, size + 5 + FRAME);
    for (;;) {
        const uint8_t *at = (const uint8_t *)wire->bytes;
        while (wire->left < 9 || wire->left < 9 + (length = (size_t)at[0] << 16 | (size_t)at[1] << 8 | at[2])) more(wire);
        const int type = at[3], flags = at[4];
        const uint32_t stream = (uint32_t)at[5] << 24 | (uint32_t)at[6] << 16 | (uint32_t)at[7] << 8 | at[8];
        size = 0;
        if (type == 4 && !(flags & 1)) size = http2_head(out, 0, 4, 1, 0);
        if (type == 6 && !(flags & 1)) {
            size = http2_head(out, 8, 6, 1, 0);
            memcpy(out + size, at + 9, 8);
            size += 8;
        }
        if (type == 0 && length) {
            size = http2_head(out, 4, 8, 0, 0);
            const char step[4] = {0, 0, (char)(length >> 8), (char)length};
            memcpy(out + size, step, 4);
            size += 4;
        }
        if (type == 3 || type == 7) die("the call was refused");
        used(wire, 9 + length);
        if (size) say(wire, out, size);
        if (type == 1 && stream == target->stream && flags & 1) return;
    }
}

// -- what is measured

static int64_t trip(struct target *target, uint64_t number) {
    struct wire *wire = &target->wires[0];
    const int64_t began = now();
    if (target->kind[0] == 'a') {
        const struct head frame = acquire(target->wide, number, 0);
        say(wire, &frame, FRAME);
        wire->lease = hear(wire, GRANTED).more;
        const int64_t granted = now() - began;
        const struct head back = release(wire->lease, 0);
        say(wire, &back, back.size);
        hear(wire, RELEASED);
        return granted;
    }
    if (target->kind[0] == 'e') {
        const struct head frame = acquire(0, number, 0);
        say(wire, &frame, FRAME);
        hear(wire, ACQUIRE);
    } else if (target->kind[0] == 'h') {
        http_trip(wire);
    } else {
        grpc_trip(target);
    }
    return now() - began;
}

static int64_t trips(struct target *target, uint64_t wanted) {
    int64_t all = 0;
    for (uint64_t number = 0; number < WARM + wanted; number++) {
        const int64_t spent = trip(target, number);
        if (number < WARM) continue;
        count(spent);
        all += spent;
    }
    return all;
}

// `total` requests of which `depth` are under way; what one read brings is answered by one write.
static int64_t pipeline(struct target *target, uint64_t depth, uint64_t total) {
    static char out[4 * ROOM];
    struct wire *wire = &target->wires[0];
    const int own = target->kind[0] == 'a';
    const int64_t began = now();
    uint64_t sent = 0, done = 0;
    size_t size = 0;
    for (;;) {
        for (; sent < total && sent - done < depth; sent++, size += FRAME) {
            const struct head frame = acquire(target->wide, sent, QUIET);
            memcpy(out + size, &frame, FRAME);
        }
        if (size) say(wire, out, size);
        size = 0;
        if (done == total) return now() - began;
        more(wire);
        size_t at = 0;
        for (; wire->left - at >= FRAME; at += FRAME, done++) {
            struct head frame;
            memcpy(&frame, wire->bytes + at, FRAME);
            if (frame.kind != (own ? GRANTED : ACQUIRE)) die("an answer of another kind");
            if (!own) continue;
            const struct head back = release(frame.more, QUIET);
            memcpy(out + size, &back, back.size);
            size += back.size;
        }
        used(wire, at);
    }
}

static int64_t handoff(struct target *target, uint64_t wanted) {
    struct wire *holder = &target->wires[0], *waiter = &target->wires[1];
    int64_t all = 0;
    struct head frame = acquire(target->narrow, 0, 0);
    say(holder, &frame, FRAME);
    holder->lease = hear(holder, GRANTED).more;
    for (uint64_t number = 0; number < WARM + wanted; number++) {
        frame = acquire(target->narrow, number, 0);
        say(waiter, &frame, FRAME);
        hear(waiter, QUEUED);
        frame = release(holder->lease, QUIET);
        const int64_t began = now();
        say(holder, &frame, frame.size);
        waiter->lease = hear(waiter, GRANTED).more;
        const int64_t spent = now() - began;
        struct wire *const other = holder;
        holder = waiter;
        waiter = other;
        if (number < WARM) continue;
        count(spent);
        all += spent;
    }
    frame = release(holder->lease, 0);
    say(holder, &frame, frame.size);
    hear(holder, RELEASED);
    return all;
}

static void settle(int processor, cpu_set_t chosen) {
    if (processor >= 0) {
        CPU_ZERO(&chosen);
        CPU_SET(processor, &chosen);
    }
    if (sched_setaffinity(0, sizeof chosen, &chosen)) die("sched_setaffinity");
}

static void join(struct target *target) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, target->path, sizeof address.sun_path - 1);
    for (int number = 0; number < 2; number++) {
        struct wire *wire = &target->wires[number];
        wire->fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(wire->fd, (struct sockaddr *)&address, sizeof address)) die(target->path);
        if (target->kind[0] == 'a') {
            const char hello[24] = {24, 0, HELLO, 0, 'A', 'I', 'M', 'D', 1, 0, 1};
            say(wire, hello, sizeof hello);
            hear(wire, 0);
            target->wide = open_model(wire, "wide");
            target->narrow = open_model(wire, "narrow");
        }
        if (target->kind[0] == 'g') {
            char empty[9];
            say(wire, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
            say(wire, empty, http2_head(empty, 0, 4, 0, 0));
        }
    }
    target->stream = UINT32_MAX;
}

int main(int argc, char **argv) {
    static struct target targets[TARGETS];
    for (int number = 1; number < argc && number <= TARGETS; number++) {
        struct target *target = &targets[number - 1];
        target->path = strchr(argv[number], ':') + 1;
        snprintf(target->kind, sizeof target->kind, "%s", argv[number]);
        join(target);
    }
    cpu_set_t all;
    sched_getaffinity(0, sizeof all, &all);
    char line[256], what[16];
    int which;
    unsigned long long first = 0, second = 0;
    while (fgets(line, sizeof line, stdin)) {
        const int given = sscanf(line, "%15s %d %llu %llu", what, &which, &first, &second);
        int64_t spent = 0;
        memset(counts, 0, sizeof counts);
        if (given == 2 && !strcmp(what, "processor")) {
            settle(which, all);
            first = 0;
        } else if (given < 3 || which < 0 || which + 1 >= argc) {
            die(line);
        } else if (!strcmp(what, "pipeline")) {
            pipeline(&targets[which], first, 10 * first);
            spent = pipeline(&targets[which], first, second);
            first = second;
        } else {
            spent = !strcmp(what, "handoff") ? handoff(&targets[which], first) : trips(&targets[which], first);
        }
        printf("%lld %llu", (long long)spent, first);
        for (int bucket = 0; bucket < BUCKETS; bucket++)
            if (counts[bucket]) printf(" %d:%llu", bucket, (unsigned long long)counts[bucket]);
        printf("\n");
        fflush(stdout);
    }
}
