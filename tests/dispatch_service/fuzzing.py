"""Random and mutated frames for the dispatch socket, by seed."""

import random
import socket
import struct
from contextlib import suppress

from aimd.protocol import frames

INTERESTING = 0, 1, 2, 7, 8, 15, 16, 24, 32, 40, 255, 256, 511, 512, 513, 2**16 - 1, 2**31, 2**32 - 1, 2**62, 2**63
BURST = 60


def number(chance, bits):
    if chance.random() < 0.5:
        return chance.choice(INTERESTING) & (1 << bits) - 1
    return chance.getrandbits(chance.randrange(1, bits + 1))


def valid(chance, leases):
    """A frame as clients send it; mostly of requests, handles and leases that exist."""
    move = chance.random()
    if move < 0.45:
        wait = chance.choice((-1, 0, 1_000_000, 50_000_000, 2**62))
        return frames.acquire(0, chance.randrange(5000), wait, chance.choice((0, 1, 2, 255)), chance.randrange(4))
    if move < 0.6 and leases:
        return frames.release(chance.choice(leases), chance.randrange(4))
    if move < 0.8:
        make = chance.choice((frames.release, frames.renew, frames.adopt))
        return make(chance.choice(leases) if leases and chance.random() < 0.5 else number(chance, 64))
    if move < 0.9:
        return frames.cancel(chance.randrange(5000))
    return frames.open_model(
        number(chance, 64), chance.choice(("llama", "no", "n" * 253)), chance.choice(("", "p" * 64))
    )


def mutated(chance, frame):
    """One or more bytes changed, inserted or cut out, or a field made extreme."""
    data = bytearray(frame)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(data)) if data else 0
        move = chance.randrange(5)
        if move == 0 and data:
            data[place] = chance.randrange(256)
        elif move == 1 and data:
            data[place] ^= 1 << chance.randrange(8)
        elif move == 2:
            data[place:place] = chance.randbytes(chance.randrange(1, 9))
        elif move == 3:
            del data[place : place + chance.randrange(1, 9)]
        elif len(data) >= 8:
            kind, offset = chance.choice((("<H", 0), ("<B", 2), ("<B", 3), ("<I", 4), ("<H", 4), ("<H", 6)))
            struct.pack_into(kind, data, offset, number(chance, 8 * struct.calcsize(kind)))
    return bytes(data)


def noise(chance):
    """Bytes that are no frame, or a head with any body."""
    if chance.random() < 0.3:
        return chance.randbytes(chance.randrange(1, 600))
    size = chance.choice((0, 8, 16, 24, 32, 40, 504, 512, 520, chance.randrange(65536)))
    return struct.pack("<HBBI", size, chance.randrange(10), number(chance, 8), number(chance, 32)) + chance.randbytes(
        max(min(size, 512) - 8, 0)
    )


class Fuzzer:
    """Speaks on one connection at a time, each up to the fault that it makes, and reads when it likes."""

    def __init__(self, path, seed):
        self._path = str(path)
        self._chance = random.Random(seed)
        self.frames = 0

    def connection(self):
        """One conversation: valid frames, then something else, then more of what is not looked at any more."""
        chance = self._chance
        leases = []
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self._path)
            sock.settimeout(30)  # of a machine that does much else
            buffer = bytearray()
            with suppress(BrokenPipeError, ConnectionResetError):
                if chance.random() < 0.95:
                    self._say(sock, [frames.hello(), frames.open_model(1, "llama")])
                    self._hear(sock, buffer, leases, 2)
                for _ in range(chance.randrange(1, 4)):
                    self._say(sock, [valid(chance, leases) for _ in range(chance.randrange(1, BURST))])
                    if chance.random() < 0.7:
                        self._hear(sock, buffer, leases, 1)
                if chance.random() < 0.9:
                    wrong = mutated(chance, valid(chance, leases)) if chance.random() < 0.7 else noise(chance)
                    self._say(sock, [wrong] + [valid(chance, leases) for _ in range(chance.randrange(9))])
                if chance.random() < 0.5:
                    sock.shutdown(socket.SHUT_WR)
                    while self._hear(sock, buffer, leases, 1):
                        pass

    def _say(self, sock, what):
        self.frames += len(what)
        data = b"".join(what)
        while data:
            cut = self._chance.randrange(1, len(data) + 1) if self._chance.random() < 0.3 else len(data)
            sock.sendall(data[:cut])
            data = data[cut:]

    def _hear(self, sock, buffer, leases, count):
        """Take in what comes, at least so many answers; every one of them has to be one of the protocol's."""
        heard = 0
        while heard < count:
            got = sock.recv(65536)
            if not got:
                return False
            buffer += got
            for frame in frames.split(buffer):
                answer = frames.answer(frame)
                heard += 1
                if isinstance(answer, frames.Granted):
                    leases.append(answer.lease)
        return True
