"""Many numbers on one line."""

from __future__ import annotations

import pytest

from aimd.domain.ranges import ranges, runs


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([4], "4"),
        ([4, 5], "4,5"),
        ([4, 5, 6], "4-6"),
        ([30, *range(24)], "0-23,30"),
        ([3, 1, 3], "1,3"),
        ([0, 1, 3, 4, 5, 9], "0,1,3-5,9"),
    ],
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


def test_runs_are_the_numbers_again() -> None:
    numbers = {0, 1, 5, 7, 8, 9}
    assert {n for first, last in runs(numbers) for n in range(first, last + 1)} == numbers
