"""The lease file: which process holds which lease, kept so that it outlives the daemon, kill -9 included.

The dispatch thread writes a line before the grant leaves (native/mirror.pxi has the same layout). A new daemon reads
the old file, makes a new one beside it, lets the core fill that, and only then puts it in the old one's place: killed at
any point, the next one finds a whole file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from aimd.dispatch.values import SLOT_BITS, Class

MAGIC = b"AIMDLEAS"
VERSION = 1
HEAD_BYTES = 4096
_HEAD = Struct("<8sIIQ36s")  # magic, version, lines, first generation, boot id
_LINE = Struct("<QqQqqIIBB14x")


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A line: times in nanoseconds of CLOCK_MONOTONIC, `start_time` of the process in clock ticks after boot."""

    lease: int
    partition: int
    model: int
    klass: int
    started: int
    deadline: int
    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class LeaseFile:
    """What was found: the leases, and a generation that is above all that were ever given."""

    leases: tuple[HeldLease, ...]
    generation: int


NOTHING = LeaseFile((), 1)


def read_leases(path: Path, boot_id: str) -> LeaseFile:
    """What an earlier daemon of this boot has left; NOTHING if there is no such file or it is none of this version.

    Raises:
        OSError: there is one and it cannot be read: who holds leases is not known then.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return NOTHING
    if len(data) < HEAD_BYTES:
        return NOTHING
    magic, version, lines, generation, boot = _HEAD.unpack_from(data)
    if (magic, version, boot) != (MAGIC, VERSION, boot_id.encode().ljust(36, b"\0")):
        return NOTHING
    if len(data) < HEAD_BYTES + lines * _LINE.size:
        return NOTHING
    leases, last = [], generation
    for slot, (live, held) in enumerate(_lines(data, lines)):
        last = max(last, held.lease >> SLOT_BITS)
        if live and _sound(held, slot):
            leases.append(held)
    return LeaseFile(tuple(leases), last + 1)


def new_lease_file(path: Path, boot_id: str, slots: int, generation: int) -> int:
    """An empty file of this many slots; returns its descriptor.

    Raises:
        OSError: it cannot be made, or the file system has no room for all of it.
    """
    with suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # All blocks now: a write to a mapping that the file system has no room for ends the process.
        os.posix_fallocate(descriptor, 0, HEAD_BYTES + slots * _LINE.size)
        os.pwrite(descriptor, _HEAD.pack(MAGIC, VERSION, slots, generation, boot_id.encode()), 0)
    except OSError:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def _lines(data: bytes, lines: int) -> Iterator[tuple[bool, HeldLease]]:
    for lease, pid, start_time, started, deadline, partition, model, klass, live in _LINE.iter_unpack(
        data[HEAD_BYTES : HEAD_BYTES + lines * _LINE.size]
    ):
        yield live == 1, HeldLease(lease, partition, model, klass, started, deadline, pid, start_time)


def _sound(held: HeldLease, slot: int) -> bool:
    return (
        held.lease & ((1 << SLOT_BITS) - 1) == slot
        and held.klass in tuple(Class)
        and held.pid > 0
        and 0 <= held.started <= held.deadline
    )
