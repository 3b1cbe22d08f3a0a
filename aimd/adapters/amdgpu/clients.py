"""The KFD clients: processes that opened /dev/kfd, the GPUs that they hold and the memory that they use there.

kfd/proc/<pid>/ has one vram_<gpu_id> per node that the process may use, with bytes (kfd_process.c: what it allocated, in
whole pages); it stays until the driver has released a dead process. A node in CPX has 64 of them for each process, so
who a client is and which files it has is kept between looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aimd.adapters.amdgpu.errnos import ABSENT, unreadable
from aimd.adapters.amdgpu.sysfs import read_numbers
from aimd.domain.gpu import Holder
from aimd.ports import Sysfs

Place = tuple[str, int]  # PCI address and partition index
UNUSED = b"0\n"
KNOWN_SECONDS = 30.0  # processes change their command line, and are seen before they have set up everything


@dataclass(frozen=True, slots=True)
class Identification:
    """How a client is told.

    Attributes:
        command: command line of a pid, None when it has ended.
        owner: pid and start time of the claim holder that a pid belongs to, None if it belongs to none.
        start_time: of a pid (clock ticks after boot), None when it has ended; raises OSError if that cannot be told.
        pod: UID of the pod that the process of this pid and start time runs in, None outside of pods; raises OSError.
    """

    command: Callable[[int], str | None]
    owner: Callable[[int], tuple[int, int] | None] = lambda _pid: None
    start_time: Callable[[int], int | None] = lambda _pid: None
    pod: Callable[[int, int], str | None] = lambda _pid, _start: None


@dataclass(frozen=True, slots=True)
class _Client:
    """What is kept of a process: who it is, and its counters by file name, at the partitions of one scan."""

    until: float
    places: Mapping[int, Place]
    names: tuple[str, ...]
    counted: tuple[Place, ...]
    holder: Holder


class ClientReader:
    """Reads the list of clients.

    Args:
        folder: kfd/proc.
        clock: seconds.
    """

    def __init__(
        self, sysfs: Sysfs, folder: str, identify: Identification, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._sysfs = sysfs
        self._folder = folder
        self._identify = identify
        self._clock = clock
        self._known: dict[tuple[int, int], _Client] = {}

    def read(self, places: Mapping[int, Place]) -> tuple[Holder, ...]:
        """All clients by pid; `places` are the partitions of the last scan by gpu_id.

        Raises:
            DriverError: the list cannot be read. That is not the same as nobody.
        """
        try:
            pids = sorted(int(name) for name in self._sysfs.listdir(self._folder) if name.isdigit())
        except OSError as error:
            if error.errno in ABSENT:
                return ()  # no driver, no clients
            raise unreadable(error, self._folder, "the list of KFD clients") from error
        now, known, found = self._clock(), {}, []
        for pid in pids:
            start_time = self._start_time(pid)
            client = self._known.get((pid, start_time)) if start_time is not None else None
            if client is None or client.places is not places or now >= client.until:
                client = self._look(pid, start_time, places, now + KNOWN_SECONDS)
            if client is None:
                continue
            found.append(self._count(client))
            if start_time is not None:
                known[pid, start_time] = client
        self._known = known  # as a whole: several threads may read at once
        return tuple(found)

    def _start_time(self, pid: int) -> int | None:
        try:
            return self._identify.start_time(pid)
        except OSError:
            return None

    def _look(self, pid: int, start_time: int | None, places: Mapping[int, Place], until: float) -> _Client | None:
        folder = f"{self._folder}/{pid}"
        try:
            names = self._sysfs.listdir(folder)
        except OSError as error:
            if error.errno in ABSENT:
                return None  # released between the two listings
            raise unreadable(error, folder, f"what process {pid} holds") from error
        identities = {name: int(name[5:]) for name in names if name.startswith("vram_") and name[5:].isdigit()}
        counters = {name: places[identity] for name, identity in identities.items() if identity in places}
        gpus = frozenset(address for address, _ in counters.values())
        who = self._identify
        pod = self._pod(pid, start_time) if start_time is not None else None
        holder = Holder(pid, who.command(pid), gpus, (), who.owner(pid), start_time, pod)
        return _Client(until, places, tuple(counters), tuple(counters.values()), holder)

    def _pod(self, pid: int, start_time: int) -> str | None:
        try:
            return self._identify.pod(pid, start_time)
        except OSError:
            return None

    def _count(self, client: _Client) -> Holder:
        """The client with its counters as they are now."""
        read: Sequence[bytes | OSError]
        try:
            read = read_numbers(self._sysfs, f"{self._folder}/{client.holder.pid}", client.names)
        except OSError as error:
            read = [error] * len(client.names)
        used, unread = [], []
        for place, content in zip(client.counted, read, strict=True):
            if content == UNUSED:
                continue
            if isinstance(content, OSError):
                if content.errno not in ABSENT:  # else it was released meanwhile
                    unread.append(place)
            elif not (text := content.strip()).isdigit():
                unread.append(place)
            elif size := int(text):
                used.append((*place, size))
        holder = client.holder
        if not used and not unread:
            return holder
        return Holder(
            holder.pid,
            holder.command,
            holder.gpus,
            tuple(sorted(used)),
            holder.owner,
            holder.start_time,
            holder.pod,
            tuple(sorted(unread)),
        )
