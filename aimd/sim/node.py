"""A simulated node that lives: the driver model with a clock, a lock, a state file, and the waiting that a write needs.

Both front ends are thin covers of this class: the daemon uses it as its `ports.Sysfs` (the default of `--simulate`),
and sim/fuse.py mounts it for unmodified programs.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from aimd.errors import ConflictError
from aimd.sim.driver import Driver
from aimd.sim.state import SimState, dump, restore
from aimd.sim.tree import Blocked, Directory, File, Link, Tree

Clock = Callable[[], float]
Result = TypeVar("Result")


class SimulatedNode:
    """A node whose files can be read and written by paths relative to /sys (ports.Sysfs).

    Args:
        state: a new node (its driver is loaded here) or a restored one.
        path: file that keeps the hardware's state across processes, None to keep it in memory.
        clock: seconds, monotonic, the same for all processes of a boot.
        sleep: waits for so many seconds of that clock.
    """

    def __init__(
        self,
        state: SimState,
        path: Path | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._driver = Driver(state)
        self._tree = Tree(self._driver)
        self._path = path
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._listeners: list[Callable[[str, str | None], None]] = []
        if state.generation == 0:
            self._driver.load()
            self._driver.settle(float("inf"))  # before anybody looks
            self._driver.events.clear()
        else:
            self._finish_interrupted()
        self._changed()

    @classmethod
    def open(cls, path: Path, fresh: SimState) -> SimulatedNode:
        """The node whose state the file holds, or the fresh one if there is none.

        Raises:
            ValueError: the file exists and is no state of a simulated node.
            ConflictError: it is one of another model, number of GPUs or driver: hardware is not replaced in silence.
        """
        try:
            state = restore(path.read_bytes())
        except FileNotFoundError:
            return cls(fresh, path)
        if state.description != fresh.description:
            raise ConflictError(
                f"state file {path} holds a simulated node of {state.description}, expected {fresh.description}",
                code="other_simulated_node",
                hint=f"go on with that one, keep the new one elsewhere (--state-dir), or remove {path} to replace it",
            )
        return cls(state, path)

    @property
    def boot_id(self) -> str:
        """Boot id of the simulated machine: random, kept in its state, another one after `reboot`."""
        return self._driver.state.boot_id

    @property
    def description(self) -> str:
        return self._driver.state.description

    @property
    def gpu_addresses(self) -> list[str]:
        """PCI addresses in order: gpu0, gpu1, and so on. They never change, not even when a device is lost."""
        return [gpu.address for gpu in self._driver.state.gpus]

    def listen(self, listener: Callable[[str, str | None], None]) -> None:
        """Call `listener(kind, address)` for each driver event (kinds of ports.DriverEvent), in the acting thread."""
        self._listeners.append(listener)

    # -- ports.Sysfs -----------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        content = self._waiting(self._opened(path).read)
        if self._driver.events:  # the end of a reset, or a driver load's progress, is noticed when somebody looks
            self._changed()
        return content

    def write(self, path: str, data: bytes) -> None:
        file = self._opened(path)
        with self._lock:
            file.check_open_for_write()
        outcome = self._waiting(lambda now: file.write(data, now))
        self._changed()
        self._sleep_until(outcome.until)
        with self._lock:
            self._driver.settle(self._clock())
        self._changed()
        if outcome.errno:
            raise OSError(outcome.errno, os.strerror(outcome.errno), path)

    def listdir(self, path: str) -> list[str]:
        with self._lock:
            entry = self._tree.resolve(path, self._clock())
            if not isinstance(entry, Directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            return sorted(entry.children(self._clock()))

    def readlink(self, path: str) -> str:
        with self._lock:
            entry = self._tree.resolve(path, self._clock(), follow_last=False)
            if not isinstance(entry, Link):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
            return entry.target

    def writable(self, path: str) -> bool:
        with self._lock:
            return bool(self._file(path, self._clock()).mode & 0o222)

    # -- front ends ------------------------------------------------------------------------------------------

    def entry(self, path: str) -> Directory | File | Link:
        """What is at the path, a last symbolic link not followed; raises OSError."""
        with self._lock:
            return self._tree.resolve(path, self._clock(), follow_last=False)

    def check_open_for_write(self, path: str) -> None:
        """The errors of open(2) for writing (EACCES, EROFS, ENOENT), as OSError."""
        with self._lock:
            self._file(path, self._clock()).check_open_for_write()

    # -- the world outside the files -------------------------------------------------------------------------

    def act(self, operation: Callable[[Driver, float], int | None], *, keep: bool = True) -> int:
        """Run an operation of the driver model (join, leave, inject, reload, reboot) and keep its effects.

        Without `keep` the state's file has them from its next change on only: for what happens many times a second.
        """
        with self._lock:
            code = operation(self._driver, self._clock()) or 0
        if keep or self._driver.events:
            self._changed()
        return code

    def reload(self) -> int:
        """Unload and load the driver, as modprobe blocks until it is done.

        The errno: EBUSY if it cannot be unloaded, ETIMEDOUT if the load hangs half-way (the fault LOAD_HANG).
        """
        code = self.act(lambda driver, now: driver.reload(now))
        while not code and self._driver.loading:
            with self._lock:
                due = self._driver.next_due
            if due is None:
                return errno.ETIMEDOUT if self._driver.loading else 0
            self._sleep_until(due)
            with self._lock:
                self._driver.settle(self._clock())
            self._changed()
        return code

    def clients(self) -> list[tuple[int, int]]:
        """Pid and start time of each living KFD client."""
        with self._lock:
            self._driver.settle(self._clock())
            return [(c.pid, c.start_time) for c in self._driver.state.clients if c.reap_at is None]

    def state_json(self) -> bytes:
        """The whole state, for `aimd sim status` and tests."""
        with self._lock:
            self._driver.settle(self._clock())
            return dump(self._driver.state)

    # -- inside ----------------------------------------------------------------------------------------------

    def _opened(self, path: str) -> File:
        """The file, found once: a call that waits meets ENODEV if its device goes meanwhile, as in kernfs."""
        with self._lock:
            return self._file(path, self._clock())

    def _file(self, path: str, now: float) -> File:
        entry = self._tree.resolve(path, now)
        if not isinstance(entry, File):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return entry

    def _waiting(self, operation: Callable[[float], Result]) -> Result:
        """Run an operation as soon as the driver's lock that it needs is free; blocks like the system call."""
        while True:
            with self._lock:
                try:
                    return operation(self._clock())
                except Blocked as blocked:
                    until = blocked.until
            self._sleep_until(until)

    def _sleep_until(self, instant: float) -> None:
        while (remaining := instant - self._clock()) > 0:
            self._sleep(remaining)

    def _finish_interrupted(self) -> None:
        """A write in flight when its process died: the kernel completes it all the same."""
        self._driver.settle(float("inf"))
        self._driver.state.hole_until = 0.0

    def _changed(self) -> None:
        """Keep the state (a rename survives kill -9) and tell the listeners what happened."""
        with self._lock:
            state = self._driver.state
            state.boot_id = state.boot_id or str(uuid.uuid4())
            events, self._driver.events = self._driver.events, []
            if self._path is not None:
                temporary = self._path.with_suffix(".new")
                temporary.write_bytes(dump(self._driver.state))
                temporary.replace(self._path)
        for kind, address in events:
            for listener in self._listeners:
                listener(kind, address)
