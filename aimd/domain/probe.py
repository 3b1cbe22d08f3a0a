"""What asking HIP for the memory of a GPU's partitions has brought."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ProbeState(str, Enum):
    """How a probe ended. All but READ have no memory to tell.

    OFF: by configuration. HELD: not asked, or broken off, because a mode switch is planned or runs. MOVED: the topology
    changed meanwhile, or the GPU has no partition now. NO_LIBRARY, WRONG_LIBRARY: libamdhip64 is not found; is there, but
    cannot be used. NO_DEVICE: HIP sees no device. FAILED: a call of HIP, or the start of the helper, failed. TIMED_OUT,
    CRASHED: of the helper. IMPLAUSIBLE: its answer cannot be true.
    """

    READ = "read"
    OFF = "off"
    HELD = "held"
    MOVED = "moved"
    NO_LIBRARY = "no-library"
    WRONG_LIBRARY = "wrong-library"
    NO_DEVICE = "no-device"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    CRASHED = "crashed"
    IMPLAUSIBLE = "implausible"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class PartitionMemory:
    """What hipMemGetInfo says of one partition, in bytes.

    `free_bytes` is what one more process could allocate there: the driver's reserves and pinned memory of the whole GPU
    are subtracted from it in full, so that the partitions' free memory sums up to less than the GPU's.
    """

    index: int
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """One probe of one GPU.

    Attributes:
        gpu: PCI address.
        message: what happened, in a sentence; None where the memory was read or nothing was to be done.
        partitions: by index; complete, or empty.
        library: the file that was loaded.
        runtime_version: HIP's, major * 10**7 + minor * 10**5 + patch.
        seconds: of the whole probe until the driver had released the helper; init_seconds: of them inside hipInit.
        released: the helper is out of the driver's list of clients.
    """

    gpu: str
    state: ProbeState
    message: str | None = None
    partitions: tuple[PartitionMemory, ...] = ()
    library: str | None = None
    runtime_version: int | None = None
    seconds: float = 0.0
    init_seconds: float | None = None
    released: bool = True
