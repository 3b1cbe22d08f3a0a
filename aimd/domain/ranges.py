"""Numbers as people write many of them: `0-23,30`."""

from __future__ import annotations

from collections.abc import Iterable

SHORTEST = 3  # two neighbours stay two numbers


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The first and last number of each run without gaps, in order."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def ranges(numbers: Iterable[int]) -> str:
    """`0-23,30`; `4,5` for a run of two."""
    return ",".join(
        f"{first}-{last}" if last - first >= SHORTEST - 1 else ",".join(map(str, range(first, last + 1)))
        for first, last in runs(numbers)
    )
