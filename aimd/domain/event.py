"""Things that happened, for people and for the ledger."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, kept in the ledger.

    Attributes:
        kind: a word of its own per kind of event (`switch_committed`, `driver_reloaded`).
        subject: the object, `gpu0`, a mode change's name, or `node`.
        at: seconds since the epoch.
        sequence: position in the ledger, 0 before it was written.
    """

    kind: str
    subject: str
    message: str
    at: float
    sequence: int = 0
