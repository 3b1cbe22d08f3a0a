"""Latencies of the last minute, from sketches that count since their core began."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from aimd.domain.traffic import Cells, Quantiles

SecondsOf = Callable[[int], float]  # what the latencies in a cell are told as


def grown(before: Cells, after: Cells) -> dict[int, int]:
    """What was counted between two readings of one sketch."""
    if before == after:
        return {}
    return {cell: count - was for cell, count in after.items() if (was := before.get(cell, 0)) != count}


def added(several: list[Cells]) -> dict[int, int]:
    """The counts of several sketches together."""
    sums: dict[int, int] = {}
    for cells in several:
        for cell, count in cells.items():
            sums[cell] = sums.get(cell, 0) + count
    return sums


def quantiles(cells: Cells, seconds_of: SecondsOf) -> Quantiles:
    """The least latencies that half, 95 % and 99 % of all do not exceed."""
    total = sum(cells.values())
    if not total:
        return Quantiles()
    ranks = [max(1, math.ceil(share * total / 100)) for share in (50, 95, 99)]
    found: list[int] = []
    below = 0
    for cell in sorted(cells):
        below += cells[cell]
        while len(found) < len(ranks) and below >= ranks[len(found)]:
            found.append(cell)
    return Quantiles(total, *(seconds_of(cell) for cell in found))


class LatencyWindow:
    """The counts of what was added in the last `seconds`; a late addition counts as of then."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._additions: deque[tuple[float, Cells]] = deque()
        self.cells: dict[int, int] = {}

    def add(self, at: float, cells: Cells) -> None:
        """Count more, and forget what is too old at this time."""
        if cells:
            self._additions.append((at, cells))
            for cell, count in cells.items():
                self.cells[cell] = self.cells.get(cell, 0) + count
        while self._additions and self._additions[0][0] <= at - self._seconds:
            for cell, count in self._additions.popleft()[1].items():
                left = self.cells[cell] - count
                if left:
                    self.cells[cell] = left
                else:
                    del self.cells[cell]
