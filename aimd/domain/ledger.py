"""What the ledger keeps and gives back."""

from __future__ import annotations

from dataclasses import dataclass

from aimd.domain.modes import PartitionMode
from aimd.domain.node import Event
from aimd.domain.switch import ModeChange


@dataclass(frozen=True, slots=True)
class GpuRecord:
    """What the ledger keeps of a GPU: `mode` is the last that was seen, so that a change meanwhile is noticed."""

    address: str
    mode_epoch: int = 0
    mode: PartitionMode | None = None
    wish: PartitionMode | None = None


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
    notes: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerWrite:
    """What one commit makes durable; either all of it or nothing."""

    changes: tuple[ModeChange, ...] = ()
    gpus: tuple[GpuRecord, ...] = ()
    events: tuple[Event, ...] = ()
    boot_id: str | None = None
    layout_digest: str | None = None
