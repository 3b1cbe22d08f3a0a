"""A process of this machine, so that no other that gets its pid later is taken for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told apart from others that had or will have its pid by its start time (clock ticks after boot)."""

    pid: int
    start_time: int
    command: str | None
