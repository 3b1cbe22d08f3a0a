"""What a check found."""

from __future__ import annotations

from typing import NamedTuple

OK, WARN, FAIL = "ok", "warn", "fail"


class Finding(NamedTuple):
    """One check's result in a sentence, and what to do about it.

    Attributes:
        result: OK, WARN (it works, not as it should) or FAIL (something does not work).
        check: a word or two that name the check, with the object where there are several.
    """

    result: str
    check: str
    message: str
    hint: str | None = None
