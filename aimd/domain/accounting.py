"""Memory of the partitions as it is accounted for: who has it reserved, who uses it, and what nobody accounts for.

None is unknown, never zero. Two witnesses are kept apart: KFD's counters, which are read with every poll and belong to
processes, and HIP's free memory, which is asked for now and then and belongs to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from aimd.domain.probe import ProbeReport

Place = tuple[str, int]  # PCI address and partition index
GRANULE = 2 << 20  # VRAM_AVAILABILITY_ALIGN: where free memory is told, each allocation counts as a multiple of it


class OverrunPolicy(str, Enum):
    """What follows when a claim uses more memory than it has reserved, beside being told.

    REPORT: nothing. DENY_NEW_LEASES: its model gets no new leases on that partition until it uses less.
    """

    REPORT = "report"
    DENY_NEW_LEASES = "deny-new-leases"

    __str__ = str.__str__


class FindingKind(str, Enum):
    """OVER_LIMIT: a claim uses more than it has reserved. DRIFT: HIP and KFD do not tell the same of a partition."""

    OVER_LIMIT = "over-limit"
    DRIFT = "drift"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class MemoryFinding:
    """Something that is not as it should be, and has been so for a while.

    Attributes:
        gpu, index, mode_epoch: the partition.
        claim: None for a drift.
        message: as it was when it was found, a sentence.
        since: seconds since the epoch.
        denied: the claim's model gets no new leases there.
    """

    kind: FindingKind
    gpu: str
    index: int
    mode_epoch: int
    claim: str | None
    message: str
    since: float
    denied: bool = False


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What a process uses on a partition by KFD's counter: pages of its own allocations.

    Attributes:
        start_time: clock ticks after boot; None if it has ended (and the driver has not released it yet).
        used_bytes: None if the counter could not be read.
        claim, replica: whose process it is; None of both for a stranger.
        pod: UID of its pod; "" in a pod whose UID cannot be told.
    """

    pid: int
    start_time: int | None
    command: str | None
    used_bytes: int | None
    claim: str | None = None
    replica: int | None = None
    pod: str | None = None


@dataclass(frozen=True, slots=True)
class ClaimUse:
    """What a claim has reserved and uses on a partition.

    Attributes:
        reserved_bytes: of all its replicas there, and of processes that outlive it; None if the partition's size is
            unknown. 0 where its processes are without having a place.
        used_bytes: None if a counter of one of its processes could not be read.
    """

    claim: str
    reserved_bytes: int | None
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What HIP said of a partition, beside what KFD's counters said at that time: where the difference comes from.

    The driver subtracts from the free memory of every partition, in full, what it keeps back of the whole GPU
    (amdgpu_amdkfd_get_available_memory). missing = total - used - free, and

        missing_bytes = page_tables_bytes + pins_bytes + rest_bytes

    Attributes:
        free_bytes, total_bytes: HIP's.
        used_bytes: KFD's, then.
        page_tables_bytes: a 2**14th of the machine's memory, RAM and VRAM, at least 8 MiB; None if that is unknown.
        pins_bytes: what all partitions of the GPU lack alike beyond that: pinned memory, and pages that RAS keeps back.
            None if page tables are unknown.
        rest_bytes: what this one lacks beyond its siblings: each allocation is rounded up to 2 MiB, the result down.
            None for a GPU of one partition, whose rest cannot be told from its pins.
    """

    free_bytes: int
    total_bytes: int
    used_bytes: int
    page_tables_bytes: int | None
    pins_bytes: int | None
    rest_bytes: int | None

    @property
    def missing_bytes(self) -> int:
        return self.total_bytes - self.used_bytes - self.free_bytes


@dataclass(frozen=True, slots=True)
class ProbedGpu:
    """The last probe of a GPU in its present mode; `at` is seconds since the epoch, calibrations are by index."""

    report: ProbeReport
    at: float
    mode_epoch: int
    calibrations: Mapping[int, Calibration] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartitionAccount:
    """One partition's memory in bytes.

    Attributes:
        capacity_bytes: as KFD's topology shows it.
        reserved_bytes: by claims, and by processes that outlive theirs.
        used_bytes: by all processes, KFD's counters.
        unattributed_bytes: of that, what nobody has reserved: by processes of no claim, or where theirs has no place.
        claims, processes: who that is.
        probed: what HIP said last; None if it has not been read in the present mode.
    """

    gpu: str
    index: int
    mode_epoch: int
    capacity_bytes: int | None
    reserved_bytes: int | None
    used_bytes: int | None
    unattributed_bytes: int | None
    claims: tuple[ClaimUse, ...] = ()
    processes: tuple[ProcessUse, ...] = ()
    probed: Calibration | None = None
    probed_at: float | None = None

    @property
    def free_bytes(self) -> int | None:
        """What one more process could allocate when HIP was asked last."""
        return self.probed.free_bytes if self.probed is not None else None

    @property
    def estimated_free_bytes(self) -> int | None:
        """The same for now: by KFD's counters, less what was missing when HIP was asked last."""
        if self.probed is None or self.used_bytes is None:
            return None
        left = self.probed.total_bytes - self.used_bytes - self.probed.missing_bytes
        return max(0, left // GRANULE * GRANULE)


@dataclass(frozen=True, slots=True)
class MemoryBoard:
    """All of it, of one instant; `gpus` are what HIP said last, by PCI address, also where it could not be read."""

    partitions: Mapping[Place, PartitionAccount] = field(default_factory=dict)
    gpus: Mapping[str, ProbedGpu] = field(default_factory=dict)
    findings: tuple[MemoryFinding, ...] = ()
