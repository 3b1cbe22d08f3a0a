"""Random and mutated frames: the server lives, honest clients notice nothing, counters balance, nothing is left behind.

A million frames: `pytest -m campaign tests/dispatch_service/test_server_fuzz.py`; on a build with AddressSanitizer and
UBSan: the same with test_server_sanitizers.py.
"""

import contextlib
import random
import socket
import threading
import time

import pytest

from aimd.dispatch import ModelConfig, PartitionConfig
from aimd.protocol import frames
from tests.dispatch_service.fuzzing import Fuzzer
from tests.dispatch_service.hosting import descriptors
from tests.dispatch_service.talking import Talk

MS = 1_000_000
CONFIG = PartitionConfig(
    (ModelConfig(0, queue_cap=50), ModelConfig(1, guarantee=2)), capacity=8, queue_cap=60, orphan_grace_ns=2 * MS,
    lease_max_ns=2000 * MS,
)  # fmt: skip


class Honest:
    """A client that holds to the protocol and checks every answer, until it is told to stop."""

    def __init__(self, path):
        self._talk = Talk(path)
        self._handle = self._talk.open("sure")
        self._over = threading.Event()
        self.cycles = 0
        self.problem = None
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self):
        try:
            while not self._over.is_set():
                self._cycle()
        except Exception as problem:  # noqa: BLE001 - it is told in the test's thread
            self.problem = problem

    def _cycle(self):
        talk, request = self._talk, self.cycles
        answer = talk.acquire(self._handle, request)
        if isinstance(answer, frames.Queued):
            answer = talk.hear()
        assert (type(answer), answer.request) == (frames.Granted, request), answer
        talk.say(frames.release(answer.lease))
        assert talk.hear() == frames.Released(answer.lease)
        self.cycles += 1
        time.sleep(0.002)

    def end(self):
        self._over.set()
        self._thread.join(20)
        self._talk.close()
        assert self.problem is None
        assert not self._thread.is_alive()
        return self.cycles


def fuzz(make_host, count, seed):
    host = make_host(partitions={0: CONFIG}, names={"llama": (0, 0), "sure": (0, 1)})
    with contextlib.closing(Talk(host.path)) as first:
        first.open()
    host.until_empty()
    before = descriptors()
    honest = Honest(host.path)
    fuzzer = Fuzzer(host.path, seed)
    began = time.monotonic()
    while host.numbers()["frames"] < count:
        fuzzer.connection()
    seconds = time.monotonic() - began
    assert honest.end() > seconds * 2  # it is one thread of a process that is busy with fuzzing
    numbers = host.until(lambda numbers: not (numbers["connections"] or numbers["callers"] or numbers["mirrored"]))
    assert numbers["faults"] > count / 1000
    assert fuzzer.frames > count
    assert numbers["given_up"] == 0
    assert host.server.busy(0) == (0, 0)
    acquires, grants = host.check_balance()
    assert acquires > grants > count / 500
    assert descriptors() == before
    return numbers


def test_a_hundred_thousand_frames(make_host):
    fuzz(make_host, 100_000, seed=1)


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_a_million_frames(make_host):
    print(fuzz(make_host, 1_000_000, seed=2))


def test_noise_from_the_first_byte(make_host):
    """Random bytes in place of a conversation."""
    host = make_host()
    chance = random.Random(3)
    for _ in range(300):
        client = Talk(host.path, hello=False)
        client.say(chance.randbytes(chance.randrange(8, 3000)))
        client.sock.shutdown(socket.SHUT_WR)
        answers = client.rest()
        assert len(answers) <= 1
        client.close()
    host.until_empty()
