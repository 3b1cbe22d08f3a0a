"""What does not fit into the socket is sent when it does, though nobody asks and nothing is answered meanwhile."""

import asyncio
import socket
import threading
import time

import pytest

from aimd.dispatch.client import AsyncClient, Client, ClientClosedError
from tests.fakes.dispatch_frames import decode, encode, whole_frame

REQUESTS = 40_000


class Listener:
    """A daemon that greets, opens, and then reads when it is told to."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()

    def greet(self):
        self.peer, _ = self.socket.accept()
        self.peer.settimeout(10)
        self.buffer = bytearray()
        _, opening = self.next_frame(), decode(self.next_frame())
        self.peer.sendall(
            encode("welcome", version=1, instance=1, features=0, requests=REQUESTS, handles=1)
            + encode(
                "opened",
                tag=opening["tag"],
                handle=0,
                highest=0,
                default_class=1,
                slots=1,
                lease_ns=10**12,
                partition="p/0",
            )
        )

    def next_frame(self):
        while (frame := whole_frame(self.buffer)) is None:
            self.buffer += self.peer.recv(65536)
        return frame

    def read_acquires(self, count):
        for _ in range(count):
            assert decode(self.next_frame())["kind"] == "acquire"

    def close(self):
        self.peer.close()
        self.socket.close()


@pytest.fixture
def listener(tmp_path):
    listener = Listener(tmp_path / "dispatch.sock")
    yield listener
    listener.close()


def test_threads(listener):
    with Client(listener.socket.getsockname()) as client:
        waiting = threading.Thread(target=expect_the_end, args=(client,))
        waiting.start()
        listener.greet()
        listener.read_acquires(1)
        for _ in range(REQUESTS):
            client.submit("llama", timeout=60)
        listener.read_acquires(REQUESTS)
    waiting.join(5)


def expect_the_end(client):
    with pytest.raises(ClientClosedError):
        client.acquire("llama", timeout=60)


def test_tasks(listener):
    async def main():
        async with AsyncClient(listener.socket.getsockname()) as client:
            client.submit("llama", timeout=60)
            await asyncio.to_thread(listener.greet)
            await asyncio.sleep(0.05)
            for _ in range(REQUESTS):
                client.submit("llama", timeout=60)
            start = time.monotonic()
            await asyncio.to_thread(listener.read_acquires, REQUESTS)
            assert time.monotonic() - start < 8

    asyncio.run(main())
