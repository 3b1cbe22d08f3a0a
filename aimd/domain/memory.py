"""Memory as people count it and as the hardware has it.

GPUs are sold in GB that are GiB less what firmware keeps. A partition's nominal size is N = its bytes rounded up to
whole GiB, and m of these N reserve floor(m / N * bytes). Reservations are counted in nominal units of 1/1024 GB, so that
24 fits a CPX partition of an MI300X (25,767,706,624 bytes), and so do 12 + 12.
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation

from aimd.errors import InvalidInputError

GIB = 1 << 30
UNITS_PER_GB = 1024
MOST_GB = 1 << 20
EXAMPLE = "for example 24 for a whole CPX partition of an MI300X, or 1.5"
_WITH_UNIT = re.compile(r"(\d+(?:[.,]\d+)?)\s*(?:gi?b?)?", re.IGNORECASE)


def nominal_gb(memory_bytes: int) -> int:
    """Nominal size of a partition in GB."""
    return -(-memory_bytes // GIB)


def nominal_units(memory_bytes: int) -> int:
    """Nominal size of a partition in units of 1/1024 GB."""
    return nominal_gb(memory_bytes) * UNITS_PER_GB


def reserved_bytes(units: int, memory_bytes: int) -> int:
    """Bytes that `units` reserve on a partition of `memory_bytes`: the limit a process is told."""
    total = nominal_units(memory_bytes)
    return units * memory_bytes // total if total else 0


def free_units(memory_bytes: int, reserved_units: int, unattributed_bytes: int = 0) -> int:
    """Units that can still be reserved when `unattributed_bytes` are used by nobody that aimd knows; never negative."""
    usable = max(0, memory_bytes - unattributed_bytes)
    whole = nominal_units(memory_bytes)
    return max(0, (usable * whole // memory_bytes if memory_bytes else 0) - reserved_units)


def parse_gb(text: str | float) -> int:
    """GB (`24`, `1.5`) as units, rounded up to a whole unit.

    The text is the number alone. The amount is first rounded to whole bytes: what floating point adds to 24
    (24.000000000000004) is not another unit.

    Raises:
        InvalidInputError: not a number, or not within 0 < GB <= 1,048,576.
    """
    expected = f"expected GB as GPUs are sold, more than 0 and at most {MOST_GB}"
    try:
        amount = Decimal(str(text).strip())
    except InvalidOperation:
        amount = Decimal("NaN")
    if amount.is_nan():
        number = _WITH_UNIT.fullmatch(str(text).strip())
        hint = f"write {number[1].replace(',', '.')}: the unit is always GB" if number is not None else EXAMPLE
        raise InvalidInputError(f"memory {text!r} is not a number, {expected}", code="memory_invalid", hint=hint)
    if not 0 < amount <= MOST_GB:
        raise InvalidInputError(f"memory {text!r} is out of range, {expected}", code="memory_invalid", hint=EXAMPLE)
    nominal_bytes = int((amount * GIB).to_integral_value(rounding=ROUND_HALF_EVEN))
    return max(1, -(-nominal_bytes // (GIB // UNITS_PER_GB)))


def gb_text(units: int) -> str:
    """Units as GB for people: `24`, `1.5`, at most three decimals."""
    return f"{units / UNITS_PER_GB:.3f}".rstrip("0").rstrip(".")
