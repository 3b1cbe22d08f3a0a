"""Sums over days in bounded memory: what a model has counted in any of the windows of its service level.

A point a minute for as long as the shorter windows reach, one in ten minutes beyond; none while nothing is counted.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from aimd.domain.slo import Counted, Sample
from aimd.planning.slo import HOUR, MINUTE, RETENTION, backlogged

FINE_SECONDS = 6 * HOUR
COARSE_SECONDS = 10 * MINUTE
SUMS = 4


class Points:
    """Sums as they were at certain times, oldest first; 40 bytes a point."""

    def __init__(self) -> None:
        self.at = array("d")
        self._sums = tuple(array("d") for _ in range(SUMS))

    def __len__(self) -> int:
        return len(self.at)

    def append(self, at: float, sums: tuple[float, ...]) -> None:
        self.at.append(at)
        for column, amount in zip(self._sums, sums, strict=True):
            column.append(amount)

    def pop_first(self) -> tuple[float, tuple[float, ...]]:
        return self.at.pop(0), tuple(column.pop(0) for column in self._sums)

    def before(self, at: float) -> tuple[float, ...] | None:
        """The sums of the last point at that time or earlier, None if there is none."""
        place = bisect_right(self.at, at)
        return tuple(column[place - 1] for column in self._sums) if place else None


class Tally:
    """What was counted in the last so many seconds, up to three days.

    Args:
        begun: when nothing had been counted yet.
    """

    def __init__(self, begun: float) -> None:
        self._fine, self._coarse = Points(), Points()
        self._good = self._bad = 0
        self._released = 0
        self._backlogged_seconds = 0.0
        self._minute = Sample(begun, 0.0, 0, 0, 0, 0.0)  # what was added since the last point
        self._point(begun)

    def __len__(self) -> int:
        return len(self._fine) + len(self._coarse)

    def add(self, sample: Sample) -> None:
        """Count what follows on what was added before."""
        minute = self._minute
        self._minute = Sample(
            at=sample.at,
            span=minute.span + sample.span,
            good=minute.good + sample.good,
            bad=minute.bad + sample.bad,
            released=minute.released + sample.released,
            backlog_seconds=minute.backlog_seconds + sample.backlog_seconds,
        )
        self._good += sample.good
        self._bad += sample.bad
        if self._minute.span >= MINUTE:
            self._close()

    def since(self, now: float, seconds: float) -> Counted:
        """The sums of the last `seconds`, or of what there is; their beginning is true to a minute, or to ten."""
        base = self._fine.before(now - seconds) or self._coarse.before(now - seconds) or (0.0,) * SUMS
        good, bad, released, backlogged_seconds = (sum_ - was for sum_, was in zip(self._sums(), base, strict=True))
        return Counted(good, bad, released, backlogged_seconds)

    def _sums(self) -> tuple[float, ...]:
        return self._good, self._bad, self._released, self._backlogged_seconds

    def _close(self) -> None:
        """End the minute: only as a whole it says whether something waited."""
        minute = self._minute
        if backlogged(minute):
            self._released += minute.released
            self._backlogged_seconds += minute.span
        self._minute = Sample(minute.at, 0.0, 0, 0, 0, 0.0)
        if minute.good or minute.bad or backlogged(minute):
            self._point(minute.at)

    def _point(self, at: float) -> None:
        self._fine.append(at, self._sums())
        while len(self._fine) > 1 and self._fine.at[1] <= at - FINE_SECONDS:
            old, sums = self._fine.pop_first()
            if not self._coarse or old - self._coarse.at[-1] >= COARSE_SECONDS:
                self._coarse.append(old, sums)
        while len(self._coarse) > 1 and self._coarse.at[1] <= at - RETENTION:
            self._coarse.pop_first()
