"""Text for people: aligned columns, sizes, modes and times."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from aimd.ctl.fields import UNKNOWN

_GIB = 1 << 30
_MIB = 1 << 20


def aligned(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with left-aligned columns, three spaces between them and none at the end of a line."""
    lines = [headers, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def listed(pairs: Iterable[tuple[str, str]]) -> str:
    """`Name:   value` lines with the values in one column."""
    pairs = list(pairs)
    width = max(len(name) for name, _ in pairs) + 4
    return "".join(f"{name + ':':{width}}{value}".rstrip() + "\n" for name, value in pairs)


def indented(block: str) -> str:
    return "".join(f"  {line}\n" for line in block.splitlines())


def size(size_bytes: float | None) -> str:
    """A size as the products are named: whole GiB, rounded up, since the driver keeps a little back of each."""
    if size_bytes is None:
        return UNKNOWN
    if 0 < size_bytes <= _GIB - _MIB:
        return f"{-(-int(size_bytes) // _MIB)} MiB"
    return f"{-(-int(size_bytes) // _GIB)} GiB"


def amount(size_bytes: float | None) -> str:
    """A size that is used or free, to a hundredth: `0`, `283.00 MiB`, `12.50 GiB`."""
    if size_bytes is None:
        return UNKNOWN
    if size_bytes == 0:
        return "0"
    return f"{size_bytes / _MIB:.2f} MiB" if abs(size_bytes) < _GIB else f"{size_bytes / _GIB:.2f} GiB"


def mode(compute: str, memory: str) -> str:
    """`CPX/NPS1`; `-` where a part is unknown."""
    return UNKNOWN if (compute, memory) == (UNKNOWN, UNKNOWN) else f"{compute}/{memory}"


def moment(at: float | None) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return UNKNOWN if at is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def duration(seconds: float | None) -> str:
    """`2.3 s`, `4 min 5 s`, `3 h 2 min`, `12 d 4 h`."""
    if seconds is None:
        return UNKNOWN
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 0.1 else f"{seconds * 1000:.1f} ms"
    for big, big_name, small, small_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= big:
            return f"{int(seconds // big)} {big_name} {int(seconds % big // small)} {small_name}"
    raise AssertionError(seconds)
