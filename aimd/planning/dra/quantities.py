"""Quantities of Kubernetes (`24Gi`, `500m`, `1e3`), exactly.

Written as the API server writes them back, so that what is published can be compared with what is there.
"""

from __future__ import annotations

import re
from fractions import Fraction

UNITS_PER_GIB = 1024  # a unit of the ledger is a MiB of a partition's nominal size
STEP_UNITS = 512  # memory is claimed in steps of so many
_QUANTITY = re.compile(
    r"([+-]?)([0-9]{1,30}(?:[.][0-9]{0,30})?|[.][0-9]{1,30})(|[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})"
)
_TENS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_TWOS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def parse_quantity(text: object) -> Fraction:
    """The number that a quantity is (apimachinery, resource.Quantity); JSON may have it as a bare number.

    Raises:
        ValueError: it is none.
    """
    found = _QUANTITY.fullmatch(str(text))
    if found is None:
        raise ValueError(text)
    sign, digits, suffix = found.groups()
    if suffix in _TWOS:
        factor = Fraction(1 << _TWOS[suffix])
    else:
        factor = Fraction(10) ** (_TENS[suffix] if suffix in _TENS else int(suffix[1:]))
    return (-1 if sign == "-" else 1) * Fraction(digits.removesuffix(".")) * factor


def memory_text(units: int) -> str:
    """Units of 1/1024 GB as a quantity in its canonical form: the largest suffix that leaves a whole number."""
    if not units:
        return "0"
    for power, suffix in ((1 << 30, "Pi"), (1 << 20, "Ti"), (1 << 10, "Gi")):
        if units % power == 0:
            return f"{units // power}{suffix}"
    return f"{units}Mi"


def count_text(count: int) -> str:
    """A count in its canonical form: thousands have a suffix."""
    if count and count % 1000 == 0:
        return f"{count // 1000}k"
    return str(count)


def same_quantity(one: object, other: object) -> bool:
    """Whether two quantities are the same number; what is no quantity equals nothing."""
    try:
        return parse_quantity(one) == parse_quantity(other)
    except ValueError:
        return False
