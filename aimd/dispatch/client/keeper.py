"""The thread that looks after a shared connection while no caller reads it."""

from __future__ import annotations

import os
import select
import weakref
from io import FileIO
from threading import Lock, Thread
from typing import Protocol


class Signal:
    """Wakes a thread out of poll(2): an eventfd. Closed with the last reference at the latest."""

    def __init__(self) -> None:
        self._file = FileIO(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), "r+")
        self.descriptor = self._file.fileno()

    def fileno(self) -> int:
        return self._file.fileno()

    def set(self) -> None:
        self._file.write(b"\1\0\0\0\0\0\0\0")

    def clear(self) -> None:
        self._file.read(8)

    def close(self) -> None:
        self._file.close()


class Kept(Protocol):
    def look(self) -> tuple[float, int] | None:
        """Do what is due; see SharedConnection."""
        ...


class Keeper:
    """Looks in again and again, until what it keeps is closed or nobody has it any more.

    A daemon thread, and without a strong reference to what it keeps: neither the end of the process nor the garbage
    collector waits for it.
    """

    def __init__(self, kept: Kept) -> None:
        self._lock = Lock()
        self._signal: Signal | None = Signal()
        Thread(target=self._run, args=(weakref.ref(kept), self._signal), name="aimd-dispatch", daemon=True).start()

    def wake(self) -> None:
        """Look now."""
        with self._lock:
            if self._signal is not None:
                self._signal.set()

    def forsake(self) -> None:
        """In a child after a fork, where the thread does not exist."""
        if self._signal is not None:
            self._signal.close()

    def _run(self, reference: weakref.ref[Kept], signal: Signal) -> None:
        look = self._look(reference)
        while look is not None:
            pause, watched = look
            poller = select.poll()
            poller.register(signal, select.POLLIN)
            if watched >= 0:
                poller.register(watched, 0)  # its end alone (POLLHUP), not what arrives: callers read that
            poller.poll(pause * 1e3)
            signal.clear()
            look = self._look(reference)
        with self._lock:
            self._signal = None
            signal.close()

    @staticmethod
    def _look(reference: weakref.ref[Kept]) -> tuple[float, int] | None:
        kept = reference()
        return None if kept is None else kept.look()
