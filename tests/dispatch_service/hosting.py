"""The native dispatch server in this process, with a thread that answers its questions."""

import contextlib
import os
import selectors
import socket
import threading
import time
from pathlib import Path

from aimd.dispatch import Limits, ModelConfig, Outcome, PartitionConfig
from aimd.dispatch.server import Caps, DispatchServer
from tests.dispatch_service.talking import PATIENCE

SECOND = 1_000_000_000
PLACE = "0000:05:00.0/{}".format
ONE_MODEL = {0: PartitionConfig((ModelConfig(0),), capacity=2)}


def descriptors():
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def stat_fields(pid="self"):
    """Of /proc/<pid>/stat from the state on; the start time is the twentieth."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def listening(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(4096)
    path.chmod(0o777)
    return listener


class Host:
    """A server of `partitions`; models are named by `names`, {name: (partition, model)}. Times in seconds."""

    def __init__(self, folder, partitions=None, *, names=None, limits=None, caps=None, highest=0, answering=True):
        self.folder = Path(folder)
        self.path = self.folder / "dispatch.sock"
        self.partitions = ONE_MODEL if partitions is None else partitions
        self.names = names or {"llama": (0, 0)}
        self.highest = highest
        self.listener = listening(self.path)
        self.server = DispatchServer(
            limits or Limits(), self.listener, self.folder / "leases", "0" * 36, caps or Caps()
        )
        for partition, config in self.partitions.items():
            self.server.configure(partition, config)
        self.restored = self.server.restore()
        self._over = os.pipe()
        self._answers = threading.Thread(target=self._answer_all, daemon=True) if answering else None

    def start(self):
        self.server.start()
        if self._answers is not None:
            self._answers.start()
        return self

    def close(self):
        os.write(self._over[1], b"x")
        if self._answers is not None and self._answers.is_alive():
            self._answers.join()
        self.server.stop()
        self.listener.close()
        for descriptor in self._over:
            os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def _answer_all(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self.server.question_fd, selectors.EVENT_READ)
            over = selector.register(self._over[0], selectors.EVENT_READ)
            while all(key is not over for key, _ in selector.select()):
                for question in self.server.questions():
                    self.answer(question)

    def answer(self, question, **changed):
        if question.model not in self.names:
            self.server.deny(question, Outcome.UNKNOWN_MODEL, f"there is no model {question.model!r}")
            return
        partition, model = self.names[question.model]
        told = {
            "partition": partition,
            "model": model,
            "highest": self.highest,
            "default_class": 1,
            "slots": self.partitions[partition].capacity if partition in self.partitions else 1,
            "lease_max_ns": 600 * SECOND,
            "place": PLACE(partition),
        }
        self.server.admit(question, **{**told, **changed})

    def numbers(self):
        return self.server.statistics()

    def model(self, partition=0, model=0):
        """Its counters now."""
        found = [place for place in self.server.snapshot().partitions if place.partition == partition]
        return next(one for one in found[0].models if one.model == model)

    def until(self, wanted, seconds=PATIENCE):
        """Wait until a condition of the statistics is true; returns them."""
        deadline = time.monotonic() + seconds
        while True:
            numbers = self.numbers()
            if wanted(numbers):
                return numbers
            assert time.monotonic() < deadline, numbers
            time.sleep(0.002)

    def until_empty(self, seconds=PATIENCE):
        return self.until(lambda numbers: not (numbers["connections"] or numbers["callers"]), seconds)

    def check_balance(self):
        """T7, of each model and class; returns (acquires, grants) of all."""
        acquires = grants = 0
        for place in self.server.snapshot().partitions:
            assert place.running == sum(sum(one.running) for one in place.models)
            for one in place.models:
                for klass in range(3):
                    granted = one.outcomes[klass][Outcome.GRANTED]
                    assert granted + one.restored[klass] == sum(one.ends[klass]) + one.running[klass], (place, one)
                    acquires += sum(one.outcomes[klass]) + one.waiting[klass]
                    grants += granted
        return acquires, grants
