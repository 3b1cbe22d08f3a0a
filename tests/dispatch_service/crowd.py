"""A crowd of rude clients as a program of its own: `python -m tests.dispatch_service.crowd SOCKET IDLE SLOW`.

IDLE connections say HELLO, every other one not even that; SLOW ones speak a byte per second. A line on stdout when all
are there, with how many of them live still when its stdin ends.
"""

import itertools
import resource
import select
import socket
import sys
import time

from aimd.protocol import frames

SPEECH = frames.hello() + frames.open_model(1, "llama") + frames.cancel(1) * 100


def connected(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.setblocking(False)
    return connection


def main():
    path, idle, slow = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    quiet = [connected(path) for _ in range(idle)]
    for connection in quiet[::2]:
        connection.send(frames.hello())
    speakers = [connected(path) for _ in range(slow)]
    print("there", flush=True)
    began = time.monotonic()
    for turn in itertools.count():
        connection = speakers[turn % slow]
        spoken = turn // slow
        connection.send(SPEECH[spoken : spoken + 1])
        if turn % 20 == 0 and select.select([sys.stdin], [], [], max(began + turn / slow - time.monotonic(), 0))[0]:
            break
    print(sum(alive(connection) for connection in quiet + speakers), flush=True)


def alive(connection):
    try:
        while data := connection.recv(4096):
            if data[2] == frames.FrameKind.ERROR:
                return False
    except BlockingIOError:
        return True
    return False


if __name__ == "__main__":
    main()
