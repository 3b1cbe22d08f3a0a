"""Quantities of Kubernetes, read and written."""

from __future__ import annotations

from fractions import Fraction

import pytest

from aimd.planning.dra.quantities import count_text, memory_text, parse_quantity, same_quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        (16, 16),
        (1.5, Fraction(3, 2)),
        ("24Gi", 24 << 30),
        ("24.5Gi", 49 << 29),
        ("25088Mi", 49 << 29),
        ("1k", 1000),
        ("2M", 2_000_000),
        ("500m", Fraction(1, 2)),
        ("100n", Fraction(1, 10**7)),
        ("7u", Fraction(7, 10**6)),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("12e-1", Fraction(6, 5)),
        ("-1Ki", -1024),
        ("+3", 3),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1Ei", 1 << 60),
    ],
)
def test_is_read_exactly(text: object, number: object) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text", ["", "Gi", "1 Gi", "1gi", "1GiB", "0x10", "1e", "1e3Gi", "--1", ".", "NaN", "inf", True, None, []]
)
def test_what_is_none(text: object) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_quantity(text)
    assert not same_quantity(text, text)


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (0, "0"),
        (512, "512Mi"),
        (1024, "1Gi"),
        (24 * 1024, "24Gi"),
        (24 * 1024 + 512, "25088Mi"),
        (1 << 20, "1Ti"),
        (3 << 30, "3Pi"),
    ],
)
def test_memory_is_written_as_the_api_server_does(units: int, text: str) -> None:
    assert memory_text(units) == text
    assert parse_quantity(text) == units << 20


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (16, "16"), (999, "999"), (1000, "1k"), (4000, "4k"), (4096, "4096")]
)
def test_counts_are_written_as_the_api_server_does(count: int, text: str) -> None:
    assert count_text(count) == text
    assert parse_quantity(text) == count


def test_the_same_number_in_other_words() -> None:
    assert same_quantity("1024Mi", "1Gi")
    assert same_quantity("1000", "1k")
    assert not same_quantity("1000", "1Ki")
