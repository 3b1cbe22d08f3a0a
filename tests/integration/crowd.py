"""A crowd of rude clients as a program of its own: `crowd.py SOCKET IDLE SLOW`.

IDLE connections say nothing, and SLOW ones send a request's head byte by byte. Those that the daemon closes are opened
again, up to REOPENED a second. As root it is a crowd of several users, root among them. A line on stdout when all have
been opened once; ends with its stdin.
"""

from __future__ import annotations

import itertools
import os
import resource
import selectors
import socket
import sys
import time

REOPENED = 200
TICK_SECONDS = 0.02
USERS = (0, 60001, 60002, 60003, 60004, 60005)


class Crowd:
    def __init__(self, path: str, idle: int, slow: int) -> None:
        self._path = path
        self._users = itertools.cycle(USERS if os.geteuid() == 0 else (os.geteuid(),))
        self._selector = selectors.DefaultSelector()
        self._wanted = {"idle": idle, "slow": slow}
        self._open: dict[str, set[socket.socket]] = {"idle": set(), "slow": set()}

    def fill(self, most: int) -> None:
        """Open what is missing, at most so many."""
        for kind, wanted in self._wanted.items():
            while len(self._open[kind]) < wanted and most > 0:
                most -= 1
                connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                try:
                    os.seteuid(next(self._users))  # the kernel notes the effective uid when it connects
                    connection.connect(self._path)
                except OSError:
                    connection.close()
                    return
                finally:
                    os.seteuid(os.getuid())
                connection.setblocking(False)
                self._open[kind].add(connection)
                self._selector.register(connection, selectors.EVENT_READ, kind)

    def trickle(self) -> None:
        for connection in list(self._open["slow"]):
            try:
                connection.send(b"x")
            except OSError:
                self._lose(connection, "slow")

    def notice_ends(self) -> None:
        for key, _ in self._selector.select(0):
            try:
                over = not key.fileobj.recv(4096)
            except BlockingIOError:
                over = False
            except OSError:
                over = True
            if over:
                self._lose(key.fileobj, key.data)

    def _lose(self, connection: socket.socket, kind: str) -> None:
        if connection in self._open[kind]:
            self._selector.unregister(connection)
            self._open[kind].remove(connection)
            connection.close()


def main() -> None:
    path, idle, slow = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd(path, idle, slow)
    for _ in range((idle + slow) // 50):
        crowd.fill(50)
    print("there", flush=True)
    os.set_blocking(0, False)
    while sys.stdin.buffer.read(1) != b"":
        crowd.notice_ends()
        crowd.fill(int(REOPENED * TICK_SECONDS))
        crowd.trickle()
        time.sleep(TICK_SECONDS)


if __name__ == "__main__":
    main()
