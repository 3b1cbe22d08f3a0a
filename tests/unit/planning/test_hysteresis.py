"""A finding comes after bad looks in a row and goes after good ones; what was not seen changes nothing."""

from __future__ import annotations

import pytest

from aimd.planning.hysteresis import Hysteresis, Level

BAD, GOOD, BETWEEN = Level.BAD, Level.GOOD, Level.BETWEEN
SECONDS = 10.0


def turns(*looks: tuple[float, Level | None]) -> list[float]:
    """The times at which the thing began or ceased to be bad."""
    hysteresis: Hysteresis[str] = Hysteresis()
    return [at for at, level in looks if hysteresis.look("thing", level, at, SECONDS)]


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([(0, BAD), (9.9, BAD)], []),
        ([(0, BAD), (10, BAD)], [10]),
        ([(0, BAD), (10, BAD), (11, BAD), (40, BAD)], [10]),
        ([(0, BAD), (9, BETWEEN), (10, BAD), (19, BAD), (20, BAD)], [20]),
        ([(0, BAD), (9, GOOD), (10, BAD), (15, BAD)], []),
        ([(0, BAD), (5, None), (10, BAD)], [10]),
        ([(0, BAD), (10, BAD), (11, GOOD), (20, GOOD), (21, GOOD)], [10, 21]),
        ([(0, BAD), (10, BAD), (11, GOOD), (12, BETWEEN), (21, GOOD), (30, GOOD), (31, GOOD)], [10, 31]),
        ([(0, BAD), (10, BAD), (11, BETWEEN), (99, BETWEEN)], [10]),
        ([(0, GOOD), (99, GOOD)], []),
        ([(0, None), (99, None)], []),
    ],
)
def test_rows_of_looks(looks: list[tuple[float, Level | None]], expected: list[float]) -> None:
    assert turns(*looks) == expected


def test_one_look_is_never_enough() -> None:
    hysteresis: Hysteresis[str] = Hysteresis()
    assert not hysteresis.look("thing", BAD, 0.0, 0.0)
    assert hysteresis.look("thing", BAD, 0.0, 0.0)
    assert hysteresis.found == {"thing"}


def test_what_is_not_there_any_more_is_forgotten() -> None:
    hysteresis: Hysteresis[str] = Hysteresis()
    for name in ("kept", "lost", "young"):
        hysteresis.look(name, BAD, 0.0, 0.0, looks=1 if name != "young" else 2)
    assert hysteresis.forget({"kept"}) == {"lost"}
    assert hysteresis.found == {"kept"}
    assert not hysteresis.look("young", BAD, 1.0, 0.0), "its first look is forgotten, too"
