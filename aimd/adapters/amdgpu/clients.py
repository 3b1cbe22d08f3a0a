"""The KFD clients: processes that opened /dev/kfd, the GPUs that they hold and the memory that they use there.

kfd/proc/<pid>/ has one vram_<gpu_id> per node that the process may use, with bytes (kfd_process.c); it stays until the
driver has released a dead process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aimd.adapters.amdgpu.errnos import ABSENT, unreadable
from aimd.domain.gpu import Holder
from aimd.ports import Sysfs

Place = tuple[str, int]  # PCI address and partition index


@dataclass(frozen=True, slots=True)
class Identification:
    """How a client is told: its command line, and the claim holder that it belongs to; None for neither."""

    command: Callable[[int], str | None]
    owner: Callable[[int], tuple[int, int] | None]


def read_clients(
    sysfs: Sysfs, folder: str, places: Mapping[int, Place], identify: Identification
) -> tuple[Holder, ...]:
    """All clients by pid; `places` are the partitions of the last scan by gpu_id.

    Raises:
        DriverError: the list cannot be read. That is not the same as nobody.
    """
    try:
        pids = sorted(int(name) for name in sysfs.listdir(folder) if name.isdigit())
    except OSError as error:
        if error.errno in ABSENT:
            return ()  # no driver, no clients
        raise unreadable(error, folder, "the list of KFD clients") from error
    found = []
    for pid in pids:
        try:
            names = sysfs.listdir(f"{folder}/{pid}")
        except OSError as error:
            if error.errno in ABSENT:
                continue  # released between the two listings
            raise unreadable(error, f"{folder}/{pid}", f"what process {pid} holds") from error
        identities = [int(name[5:]) for name in names if name.startswith("vram_") and name[5:].isdigit()]
        held = {identity: places[identity] for identity in identities if identity in places}
        used = [(*place, _bytes(sysfs, f"{folder}/{pid}/vram_{identity}")) for identity, place in held.items()]
        gpus = frozenset(address for address, _ in held.values())
        vram = tuple(sorted(use for use in used if use[2]))
        found.append(Holder(pid, identify.command(pid), gpus, vram, identify.owner(pid) if vram else None))
    return tuple(found)


def _bytes(sysfs: Sysfs, path: str) -> int:
    try:
        return int(sysfs.read(path))
    except (OSError, ValueError):
        return 0  # released meanwhile
