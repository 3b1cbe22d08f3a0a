"""What the ledger keeps and gives back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from aimd.domain.accounting import MemoryFinding
from aimd.domain.claim import Claim, ClaimState
from aimd.domain.event import NodeEvent
from aimd.domain.gpu import Holder
from aimd.domain.modes import PartitionMode
from aimd.domain.partition import PartitionKey
from aimd.domain.process import Process
from aimd.domain.switch import ModeChange

KEPT_CHANGES = 100  # that have ended, in memory and in the ledger alike


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """What of a GPU's memory accounting outlives the daemon.

    Attributes:
        findings: that have begun and not ended; what they deny stays denied.
        usual_bytes: least that a partition of it has lacked in mode epoch `usual_epoch` (planning.calibration.drift), None
            before HIP was compared with KFD: what was lost earlier is no more told from pinned memory.
    """

    findings: tuple[MemoryFinding, ...] = ()
    usual_bytes: int | None = None
    usual_epoch: int = 0


@dataclass(frozen=True, slots=True)
class GpuRecord:
    """What the ledger keeps of a GPU: `mode` is the last that was seen, so that a change meanwhile is noticed.

    `draining` GPUs take no new claims until an operator ends it.
    """

    address: str
    mode_epoch: int = 0
    mode: PartitionMode | None = None
    wish: PartitionMode | None = None
    draining: bool = False
    memory: MemoryRecord = MemoryRecord()


@dataclass(frozen=True, slots=True)
class HolderRecord:
    """A process that runs on a replica of a claim, by pid and start time (field 22 of /proc/<pid>/stat).

    `ended_at` (seconds since the epoch) is set when it was found dead, not seen ending: it is an orphan until released.
    Place, `memory_units` and `guarantee` are those of the assignment when the process joined: it stays there, wherever the
    claim goes. `released_at` is set when the claim was released while the process went on: its memory and slots stay
    reserved until it ends. `survivors` are those of its processes that are left of it when it has ended itself: what they
    are called by then, since a dead pid tells nobody what to end.
    """

    claim: str
    replica: int
    pid: int
    start_time: int
    command: str | None = None
    ended_at: float | None = None
    gpu: str | None = None
    index: int | None = None
    mode_epoch: int | None = None
    memory_units: int = 0
    released_at: float | None = None
    guarantee: int = 0
    survivors: tuple[Process, ...] = ()

    @property
    def key(self) -> PartitionKey | None:
        """The partition it joined, None if it had no place."""
        if self.gpu is None or self.index is None or self.mode_epoch is None:
            return None
        return PartitionKey(self.gpu, self.index, self.mode_epoch)

    @property
    def living(self) -> tuple[Process, ...]:
        """The processes to name: itself, or those that are left of it."""
        return self.survivors or (Process(self.pid, self.start_time, self.command),)

    @property
    def place(self) -> tuple[str | None, int | None, int | None]:
        """PCI address, partition index and mode epoch; None of each for a record of before they were kept."""
        return self.gpu, self.index, self.mode_epoch


def holders_on(gpu: str, holders: Iterable[HolderRecord], claims: Collection[Claim]) -> tuple[Holder, ...]:
    """Living processes that joined a claim on the GPU, wherever the claim is now.

    For those of an older ledger the claim's place counts. A claim for which a GPU is switched has nobody there yet: its
    own old processes would be waited for in vain.
    """
    awaited = {claim.name for claim in claims if claim.state is ClaimState.SWITCHING}
    places = {(a.claim, a.replica) for claim in claims for a in claim.assignments if a.gpu == gpu}
    return tuple(
        Holder(process.pid, process.command, frozenset({gpu}))
        for holder in holders
        if holder.ended_at is None
        and (holder.released_at is not None or holder.claim not in awaited)
        and (holder.gpu == gpu if holder.gpu is not None else (holder.claim, holder.replica) in places)
        for process in holder.living
    )


@dataclass(frozen=True, slots=True)
class LedgerState:
    """All that a starting daemon reads back.

    `changes` holds every mode change that has not ended and the most recent ended ones, oldest first.
    `notes` tells what the ledger had to do to itself (quarantine, new boot).
    """

    boot_id: str | None = None
    layout_digest: str | None = None
    gpus: tuple[GpuRecord, ...] = ()
    changes: tuple[ModeChange, ...] = ()
    notes: tuple[NodeEvent, ...] = ()
    claims: tuple[Claim, ...] = ()
    holders: tuple[HolderRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerWrite:
    """What one commit makes durable; either all of it or nothing. `released` names claims that are no more."""

    changes: tuple[ModeChange, ...] = ()
    gpus: tuple[GpuRecord, ...] = ()
    events: tuple[NodeEvent, ...] = ()
    boot_id: str | None = None
    layout_digest: str | None = None
    claims: tuple[Claim, ...] = ()
    released: tuple[str, ...] = ()
    holders: tuple[HolderRecord, ...] = ()
    holders_gone: tuple[HolderRecord, ...] = ()

    @property
    def empty(self) -> bool:
        return self == LedgerWrite()
