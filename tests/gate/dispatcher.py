"""A real dispatch server in this process for the gate to ask, which can be killed and come back with its leases."""

import os
import selectors
import socket
import threading
import time

from aimd.dispatch.server import DispatchServer
from aimd.dispatch.values import SECOND, Class, Limits, ModelConfig, Outcome, PartitionConfig

PLACE = "0000:05:00.0/0"


class Dispatcher:
    """One partition with these models, the first of them in number 0. Times in seconds."""

    def __init__(
        self, folder, models=("llama",), *, slots=2, guarantees=None, queue_cap=64, lease_max=600.0, highest=0
    ):
        self.path = folder / "dispatch.sock"
        self.folder = folder
        self.models = models
        self.highest = highest
        self.default_classes = {}
        self.denied = {}  # model -> (Outcome, sentence)
        self.lease_max_ns = int(lease_max * SECOND)
        configs = tuple(
            ModelConfig(number, queue_cap=queue_cap, guarantee=(guarantees or {}).get(name, 0))
            for number, name in enumerate(models)
        )
        self.config = PartitionConfig(configs, capacity=slots, lease_max_ns=self.lease_max_ns)
        self.server = None

    def start(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(1024)
        self.server = DispatchServer(Limits(), self.listener, self.folder / "leases", "0" * 36)
        self.server.configure(0, self.config)
        self.server.restore()
        self.server.start()
        self.over = os.pipe()
        self.thread = threading.Thread(target=self._answer_all, daemon=True)
        self.thread.start()
        return self

    def stop(self):
        """As a daemon that is killed: connections end, leases stay in their file."""
        if self.server is None:
            return
        os.write(self.over[1], b"x")
        self.thread.join()
        self.server.stop()
        self.server = None
        self.listener.close()
        self.path.unlink()
        for descriptor in self.over:
            os.close(descriptor)

    def restart(self, pause=0.0):
        self.stop()
        time.sleep(pause)
        self.start()

    def forget_leases(self):
        """What a daemon finds that lost its runtime directory; to be called while it is stopped."""
        (self.folder / "leases").unlink()

    __enter__ = start

    def __exit__(self, *_):
        self.stop()

    # -- what it knows ---------------------------------------------------------------------------------------

    def model(self, number=0):
        (place,) = self.server.snapshot().partitions
        return place.models[number]

    def running(self):
        return sum(sum(self.model(number).running) for number in range(len(self.models)))

    def waiting(self):
        return sum(sum(self.model(number).waiting) for number in range(len(self.models)))

    def ends(self, number=0):
        """Leases that ended: (ok, failed, revoked, lost)."""
        return tuple(map(sum, zip(*self.model(number).ends, strict=True)))

    def until(self, condition, seconds=10.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, (self.running(), self.waiting(), self.ends())
            time.sleep(0.005)

    def until_idle(self):
        self.until(lambda: self.running() == self.waiting() == 0)

    def _answer_all(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self.server.question_fd, selectors.EVENT_READ)
            over = selector.register(self.over[0], selectors.EVENT_READ)
            while all(key is not over for key, _ in selector.select()):
                for question in self.server.questions():
                    self._answer(question)

    def _answer(self, question):
        if question.model in self.denied:
            self.server.deny(question, *self.denied[question.model])
        elif question.model not in self.models:
            self.server.deny(question, Outcome.UNKNOWN_MODEL, f"there is no model {question.model!r}")
        else:
            default = max(self.highest, self.default_classes.get(question.model, Class.MEDIUM))
            self.server.admit(
                question,
                partition=0,
                model=self.models.index(question.model),
                highest=self.highest,
                default_class=default,
                slots=self.config.capacity,
                lease_max_ns=self.lease_max_ns,
                place=PLACE,
            )
