"""DispatchServer: the native dispatch thread with values for what goes in and comes out.

Calls are for the control path: each is handed to the dispatch thread, which carries it out between two requests, in
microseconds; grants never wait for Python. Times are CLOCK_MONOTONIC of this machine.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from aimd._native.server import RawServer
from aimd.dispatch.core import (
    ModelCells,
    ModelHistograms,
    ModelLatencies,
    cells_of,
    histograms_of,
    latencies_of,
    model_numbers,
    snapshot_of,
)
from aimd.dispatch.lease_file import HeldLease, new_lease_file, read_leases
from aimd.dispatch.policy import check_partition
from aimd.dispatch.values import SLOT_BITS, CoreSnapshot, Limits, Outcome, PartitionConfig

log = logging.getLogger("aimd.dispatch")

START_SECONDS = 10.0
_BOUNDS = {-6: "partitions", -7: "models", -8: "requests", -9: "leases"}  # aimd/_native/core.pxd, Trouble


@dataclass(frozen=True, slots=True)
class Caps:
    """What one user may have at most, and what is asked of the kernel.

    Attributes:
        patience_seconds: how long a client that does not read is kept.
        unread_bytes: what all clients together may leave unread (64 MiB at most); then those with most are given up.
        peer_pidfd: ask for the pidfd of a client (Linux 6.5; noticed when there is none); False: as before it.
    """

    connections_per_user: int = 1024
    waiting_per_user: int = 16_384
    patience_seconds: float = 30.0
    peer_pidfd: bool = True
    unread_bytes: int = 32 << 20


@dataclass(frozen=True, slots=True)
class Question:
    """A client asks to use a model, perhaps on a certain partition; to be answered by `admit` or `deny`.

    Attributes:
        key: names the question to the server.
        pid, start_time, uid, gid: of the process, as the kernel tells; start time in clock ticks after boot.
        model, partition: as the client wrote them.
    """

    key: tuple[int, int, int]
    pid: int
    start_time: int
    uid: int
    gid: int
    model: str
    partition: str


class DispatchServer:
    """Serves the dispatch socket from `start` to `stop`; configure and restore before.

    Args:
        listener: a listening AF_UNIX stream socket, which is made not blocking; stays the caller's.
        lease_path: where leases are kept for the next daemon; its folder has to survive a restart of the daemon.
        boot_id: of the machine; leases of another boot are nobody's.

    Raises:
        OSError: the lease file cannot be made, or descriptors or memory are short.
    """

    def __init__(
        self, limits: Limits, listener: socket.socket, lease_path: Path, boot_id: str, caps: Caps | None = None
    ) -> None:
        caps = caps or Caps()
        self._limits = limits
        self._lease_path = lease_path
        self._boot_id = boot_id
        self.found = read_leases(lease_path, boot_id)
        # Milliseconds since 1970 are above any generation that leases got to, even if their file was lost.
        generation = max(self.found.generation, time.time_ns() // 1_000_000)
        self._fresh = lease_path.with_name(lease_path.name + ".new")
        descriptor = new_lease_file(self._fresh, boot_id, limits.leases, generation)
        listener.setblocking(False)  # else the dispatch thread would wait for the next client and for nothing else
        try:
            self._raw = RawServer(
                limits,
                generation,
                listener.fileno(),
                descriptor,
                (
                    caps.connections_per_user,
                    caps.waiting_per_user,
                    int(caps.patience_seconds * 1e9),
                    int(caps.peer_pidfd),
                    caps.unread_bytes,
                ),
                secrets.randbits(63),
            )
        finally:
            os.close(descriptor)
        self._lock = threading.Lock()  # the dispatch thread takes one thing at a time
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._ended: Future[None] = Future()

    def restore(self) -> int:
        """Take over what an earlier daemon has left, when the partitions are configured; returns how many run on.

        Raises:
            OSError: it cannot be told whether a process lives still; the lease file stays as it was.
        """
        mask = (1 << SLOT_BITS) - 1
        held = [lease for lease in self.found.leases if lease.lease & mask < self._limits.leases]
        with self._lock:
            running, unfit = self._raw.restore([_restorable(lease) for lease in held])
        forgotten = unfit + len(self.found.leases) - len(held)
        if forgotten:
            log.warning(
                "%d leases of the earlier daemon are forgotten: expected bounds at least as wide as its own, with room"
                " for %d leases, %d partitions and %d models",
                forgotten,
                self._limits.leases,
                self._limits.partitions,
                self._limits.models,
            )
        self._fresh.replace(self._lease_path)
        return running

    def start(self, ended: Callable[[Future[None]], object] | None = None) -> None:
        """Begin to serve; `ended` is called in the dispatch thread when that ends, for whatever reason."""
        if ended is not None:
            self._ended.add_done_callback(ended)
        self._thread = threading.Thread(target=self._serve, name="dispatch", daemon=True)
        # Until the thread serves, whoever wants something of the core does it in its own thread: not both at once.
        with self._lock:
            self._thread.start()
            until = time.monotonic() + START_SECONDS
            while not self._raw.serving() and not self._ended.done() and time.monotonic() < until:
                time.sleep(0.0005)

    def ask_beat(self) -> None:
        """Ask the thread to turn once, for `beats`; waits for nothing."""
        self._raw.ask_beat()

    @property
    def beats(self) -> int:
        """Grows after `ask_beat` while the thread turns; one that hangs, or has ended, lets it stand still."""
        return self._raw.beats

    def _serve(self) -> None:
        try:
            self._raw.serve()
        except OSError as error:
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    def stop(self) -> None:
        """End the thread and close all connections; leases stay in their file, with their clients.

        Once more does nothing. Nothing else can be asked of a server that was stopped.
        """
        if self._stopped:
            return
        self._stopped = True
        if self._thread is not None:
            with self._lock:
                self._raw.stop()
            self._thread.join()
            self._thread = None
        del self._raw

    # -- configuration ---------------------------------------------------------------------------------------

    def configure(self, partition: int, config: PartitionConfig) -> None:
        """Create the partition or replace its configuration.

        Raises:
            ValueError: a value is out of its range, or a bound of Limits would be passed.
        """
        check_partition(partition, config)
        numbers = config.capacity, config.queue_cap, config.lease_max_ns, config.orphan_grace_ns
        models = [model_numbers(model, config.capacity) for model in config.models]
        with self._lock:
            trouble, needed = self._raw.configure(partition, numbers, models)
        if trouble:
            bound = _BOUNDS[trouble]
            room = getattr(self._limits, bound)
            raise ValueError(f"partition {partition} brings the {bound} to {needed}: the core has room for {room}")

    def remove(self, partition: int) -> None:
        """End what waits there as partition_gone; leases run on. One that is not there changes nothing."""
        with self._lock:
            self._raw.remove(partition)

    def drain(self, partition: int, *, draining: bool) -> None:
        """Refuse arrivals (or let them in again); what waits is still granted."""
        with self._lock:
            (self._raw.drain if draining else self._raw.undrain)(partition)

    def busy(self, partition: int) -> tuple[int, int]:
        """Running leases and waiting requests there now."""
        with self._lock:
            return self._raw.busy(partition)

    def revalidate(self) -> None:
        """Have every client open its models anew: what callers may do has changed."""
        with self._lock:
            self._raw.revalidate()

    # -- questions -------------------------------------------------------------------------------------------

    @property
    def question_fd(self) -> int:
        """Becomes readable when there are questions."""
        return self._raw.question_fd

    def questions(self) -> list[Question]:
        """Those that have come since the last time."""
        return [
            Question(
                (peer, age, tag),
                pid,
                start,
                uid,
                gid,
                model.decode("utf-8", "replace"),
                place.decode("utf-8", "replace"),
            )
            for peer, age, tag, pid, start, uid, gid, model, place in self._raw.questions()
        ]

    def admit(
        self,
        question: Question,
        *,
        partition: int,
        model: int,
        highest: int,
        default_class: int,
        slots: int,
        lease_max_ns: int,
        place: str,
    ) -> None:
        with self._lock:
            self._raw.admit(
                *question.key, partition, model, highest, default_class, slots, lease_max_ns, place.encode()
            )

    def deny(self, question: Question, outcome: Outcome, message: str) -> None:
        with self._lock:
            self._raw.deny(*question.key, outcome, message.encode())

    def holders(self, partitions: Collection[int]) -> tuple[int, ...]:
        """Pids of the processes that hold leases on these partitions, as the lease file has it now."""
        found = read_leases(self._lease_path, self._boot_id).leases
        return tuple(sorted({lease.pid for lease in found if lease.partition in partitions}))

    # -- reading ---------------------------------------------------------------------------------------------

    def snapshot(self) -> CoreSnapshot:
        """All counters of one instant."""
        with self._lock:
            return snapshot_of(self._raw.snapshot())

    def latencies(self) -> tuple[ModelLatencies, ...]:
        """All latency sketches of one instant."""
        with self._lock:
            return latencies_of(self._raw.latencies())

    def cells(self) -> tuple[ModelCells, ...]:
        """As `latencies`, for those who keep counts and not sketches: a tenth of the time, and of the memory."""
        with self._lock:
            return cells_of(self._raw.latencies())

    def metered(self, bounds: Sequence[int]) -> tuple[CoreSnapshot, tuple[ModelHistograms, ...]]:
        """All counters, and the latencies counted up to each of the bounds (ns), of one instant."""
        with self._lock:
            counters, histograms = self._raw.metered(bounds)
        return snapshot_of(counters), histograms_of(histograms)

    def statistics(self) -> dict[str, int]:
        """Numbers of the socket: connections, callers, running leases; since the start: accepted, refused, faults, ..."""
        with self._lock:
            return self._raw.statistics()


def _restorable(lease: HeldLease) -> tuple[int, ...]:
    return (
        lease.lease,
        lease.partition,
        lease.model,
        lease.klass,
        lease.started,
        lease.deadline,
        lease.pid,
        lease.start_time,
    )
