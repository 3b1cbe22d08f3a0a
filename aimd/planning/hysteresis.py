"""Findings that neither come nor go by a single look."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Level(IntEnum):
    """How one look was: well, neither, or not as it should be."""

    GOOD = -1
    BETWEEN = 0
    BAD = 1


@dataclass(slots=True)
class _Run:
    """Looks of one kind in a row: since when (CLOCK_MONOTONIC seconds), and how many."""

    level: Level = Level.BETWEEN
    since: float = 0.0
    looks: int = 0


class Hysteresis(Generic[Key]):
    """Which things are found to be bad.

    A thing is so after bad looks in a row, over a time, and ceases to be so in the same way by good ones. A look between
    the two begins each anew, and one that has seen nothing changes nothing.
    """

    def __init__(self) -> None:
        self._runs: dict[Key, _Run] = {}
        self._found: set[Key] = set()

    @property
    def found(self) -> frozenset[Key]:
        return frozenset(self._found)

    def look(self, key: Key, level: Level | None, now: float, seconds: float, looks: int = 2) -> bool:
        """Take a look; whether the thing has begun or ceased to be bad by it.

        Args:
            level: None if nothing could be seen.
            now: CLOCK_MONOTONIC seconds.
            seconds, looks: how long a row has to be.
        """
        if level is None:
            return False
        run = self._runs.setdefault(key, _Run())
        if run.level is not level:
            self._runs[key] = run = _Run(level, now)
        run.looks += 1
        is_found = key in self._found
        if level is not (Level.GOOD if is_found else Level.BAD) or run.looks < looks or now - run.since < seconds:
            return False
        (self._found.discard if is_found else self._found.add)(key)
        return True

    def restore(self, found: Iterable[Key]) -> None:
        """Take what an earlier life has found; good looks in a row end it as any other."""
        self._found.update(found)

    def forget(self, present: Collection[Key]) -> set[Key]:
        """Drop the things that are not there any more; those of them that were bad."""
        gone = self._found - set(present)
        self._found -= gone
        self._runs = {key: run for key, run in self._runs.items() if key in present}
        return gone
