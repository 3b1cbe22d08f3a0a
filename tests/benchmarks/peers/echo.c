// The least that a server with frames on a Unix socket does: epoll, one read, a look at each frame of 32 bytes, one
// write. A library, so that the same process can hold it as a thread that holds the dispatch server: serve(PATH) never
// returns. No back-pressure: a client that does not read ends the process.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FRAME = 32, READ = 8192, PEERS = 1024, SPREAD = 256 };

struct peer {
    size_t left;  // bytes of a frame that is not whole
    char bytes[FRAME + READ];
};

static void answer(int epoll, int fd, struct peer *peer) {
    const ssize_t got = recv(fd, peer->bytes + peer->left, READ, MSG_DONTWAIT);
    if (got <= 0) {
        epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
        close(fd);
        peer->left = 0;
        return;
    }
    size_t left = peer->left + (size_t)got, whole = 0;
    for (; left >= FRAME; left -= FRAME, whole += FRAME) {
        uint16_t size;
        memcpy(&size, peer->bytes + whole, sizeof size);
        if (size != FRAME) abort();
    }
    if (whole && send(fd, peer->bytes, whole, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)whole) abort();
    memmove(peer->bytes, peer->bytes + whole, left);
    peer->left = left;
}

int serve(const char *path) {
    static struct peer peers[PEERS];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), epoll = epoll_create1(EPOLL_CLOEXEC);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) return -1;
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listener}, events[SPREAD];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &wanted);
    for (;;) {
        const int count = epoll_wait(epoll, events, SPREAD, -1);
        for (int number = 0; number < count; number++) {
            const int fd = events[number].data.fd;
            if (fd != listener) {
                answer(epoll, fd, &peers[fd]);
                continue;
            }
            const int fresh = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            wanted.data.fd = fresh;
            if (fresh >= PEERS) abort();
            if (fresh >= 0) epoll_ctl(epoll, EPOLL_CTL_ADD, fresh, &wanted);
        }
    }
}
