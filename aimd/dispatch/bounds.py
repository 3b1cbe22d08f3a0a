"""Ranges of the integers that a dispatch core is given (contract: `aimd.dispatch.face`), and the error outside. Pure.

The compiled core says the same in the same words by code of its own; tests compare the two.
"""

from __future__ import annotations

from aimd.dispatch.values import DEFAULT, SLOT_BITS, Class, Limits

MAX_ID = (1 << 31) - 1
MAX_SLOTS = 1 << 16
MAX_GENERATION = (1 << 46) - 1  # of a constructor, too; a slot can count on for as long again
MAX_INSTANT = (1 << 63) - 1
MAX_DURATION = 1 << 62
MIN_INT64 = -MAX_INSTANT - 1

_SHOWN_BITS = 256

RANGES = {
    "now": (0, MAX_INSTANT),
    "connection": (0, MAX_ID),
    "request": (0, MAX_INSTANT),
    "partition": (0, MAX_ID),
    "model": (0, MAX_ID),
    "klass": (DEFAULT, Class.LOW),
    "start_by": (MIN_INT64, MAX_INSTANT),
    "lease": (0, MAX_INSTANT),
    "process": (MIN_INT64, MAX_INSTANT),
    "highest": (Class.HIGH, Class.LOW),
    "no_wait": (0, 1),
    "ok": (0, 1),
    "alive": (0, 1),
    "blocks": (1, MAX_ID),
    "the first generation": (1, MAX_GENERATION),
}
"""By the name of an argument: least and largest value."""

BOUNDS = {
    "partitions": 4096,
    "models": 4096,
    "requests": 1 << 24,
    "leases": 1 << SLOT_BITS,
    "connections": 1 << 18,
    "requests_per_connection": MAX_ID,
}
"""The largest value of each of the Limits; the least is 1."""


def later(now: int, wait: int) -> int:
    """The instant `wait` after `now`; what would lie beyond the last instant is the last one."""
    return min(now + wait, MAX_INSTANT)


def check_number(name: str, value: object, least: int, most: int) -> None:
    """Raises ValueError unless the value is an integer within the range, for whatever value."""
    if isinstance(value, int) and least <= value <= most:
        return
    if isinstance(value, int):
        bits = int.bit_length(value)
        shown = int.__repr__(value) if bits <= _SHOWN_BITS else f"an integer of {bits} bits"
    else:
        shown = f"of type {type(value).__name__}"
    raise ValueError(f"{name} is {shown}: an integer from {int(least)} to {int(most)} is expected")


def check_numbers(**values: object) -> None:
    """Raises ValueError for the first of these arguments of a call that is out of its range."""
    for name, value in values.items():
        check_number(name, value, *RANGES[name])


def check_limits(limits: Limits, generation: int) -> None:
    """Raises ValueError for what no core can be constructed with."""
    for name, most in BOUNDS.items():
        check_number(f"{name} of a core's limits", getattr(limits, name), 1, most)
    check_numbers(**{"the first generation": generation})
