"""A driver before a fake kubelet, and a daemon that prepares as the test wants it."""

import contextlib
import tempfile
import threading
from pathlib import Path

import pytest

from aimd.adapters.dra.driver import KubeletDriver
from aimd.domain.dra import PreparedDevice
from tests.fakes.kubelet import FakeKubelet


class Daemon:
    """Prepares each claim at once, unless it has to wait (`hold`) or has an error for it."""

    def __init__(self):
        self.begun = []  # (operation, claim's name)
        self.ended = []
        self.deadlines = {}
        self.errors = {}
        self._held = {}
        self.called = []

    def hold(self, name):
        self._held[name] = threading.Event()
        return self._held[name].set

    def prepare(self, claim, deadline):
        self._work("prepare", claim, deadline)
        device = f"cpx-{claim.name}"
        return [PreparedDevice("node-a", device, ("gpu",), (f"gpu.aimd.dev/claim={claim.uid}-gpu",), "share-1")]

    def unprepare(self, claim, deadline):
        self._work("unprepare", claim, deadline)

    def _work(self, operation, claim, deadline):
        self.begun.append((operation, claim.name))
        self.deadlines[claim.name] = deadline
        if (held := self._held.get(claim.name)) is not None:
            held.wait(30)
        self.ended.append((operation, claim.name))
        if (error := self.errors.get(claim.name)) is not None:
            raise error

    def release_all(self):
        for each in self._held.values():
            each.set()


@pytest.fixture
def daemon():
    made = Daemon()
    yield made
    made.release_all()


@pytest.fixture
def root():
    """A kubelet's folder with a short name: a socket's path has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="aimd-kubelet-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def kubelet(root):
    made = FakeKubelet(root)
    yield made
    made.close()


@pytest.fixture
def drive(daemon, root):
    """A function that starts a driver; it ends with the test."""
    with contextlib.ExitStack() as ends:

        def start(**more):
            driver = KubeletDriver(daemon, root, lambda *told: daemon.called.append(told), **more)
            driver.start()
            ends.callback(driver.close)
            return driver

        yield start
