"""Python programs that take leases, one at a time: python -m tests.benchmarks.peers.clients KIND PATH PROCESSOR.

A line of the standard input is a number of leases, the answer p50, p99 and p99.9 of the nanoseconds from asking to
having. KIND is blocking (aimd.dispatch.client.Client), async (AsyncClient) or frames: what Python can do at best, bytes
that are ready on a socket, and a look at nothing but the lease.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
import time
from collections.abc import Callable

from aimd.dispatch.client import AsyncClient, Client
from aimd.protocol import frames

WARM = 200


def blocking(path: str) -> Callable[[int], list[int]]:
    client = Client(path)

    def measure(count: int) -> list[int]:
        times = []
        for _ in range(count):
            began = time.perf_counter_ns()
            lease = client.acquire("wide")
            times.append(time.perf_counter_ns() - began)
            lease.release()
        return times

    return measure


def asynchronous(path: str) -> Callable[[int], list[int]]:
    loop = asyncio.new_event_loop()
    client = AsyncClient(path)

    async def measure(count: int) -> list[int]:
        times = []
        for _ in range(count):
            began = time.perf_counter_ns()
            lease = await client.acquire("wide")
            times.append(time.perf_counter_ns() - began)
            lease.release()
        return times

    return lambda count: loop.run_until_complete(measure(count))


def bare_frames(path: str) -> Callable[[int], list[int]]:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.sendall(frames.hello() + frames.open_model(1, "wide", ""))
    buffer = bytearray()
    answers: list[bytes] = []
    while len(answers) < 2:
        buffer += sock.recv(4096)
        answers += frames.split(buffer)
    opened = frames.answer(answers[1])
    assert isinstance(opened, frames.Opened), opened
    acquire = frames.acquire(opened.handle, 1, -1, 255, 0)
    release = struct.Struct("<HBBIQ")

    def measure(count: int) -> list[int]:
        times = []
        for _ in range(count):
            began = time.perf_counter_ns()
            sock.sendall(acquire)
            lease = int.from_bytes(sock.recv(32)[16:24], "little")
            times.append(time.perf_counter_ns() - began)
            sock.sendall(release.pack(16, 4, 2, 0, lease))
        return times

    return measure


KINDS: dict[str, Callable[[str], Callable[[int], list[int]]]] = {
    "blocking": blocking,
    "async": asynchronous,
    "frames": bare_frames,
}


def main(kind: str, path: str, processor: str) -> None:
    os.sched_setaffinity(0, {int(processor)})
    measure = KINDS[kind](path)
    for line in sys.stdin:
        measure(WARM)
        times = sorted(measure(int(line)))
        print(*(times[int(len(times) * percent / 100)] for percent in (50, 99, 99.9)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
