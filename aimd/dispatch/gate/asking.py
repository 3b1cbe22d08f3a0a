"""What a request asks of aimd, read from its X-Aim-* fields. Pure: the time is an argument.

| field | means |
|---|---|
| X-Aim-Class | high, medium or low; absent: the claim's class |
| X-Aim-Timeout | seconds for which it may wait for a slot; 0: a slot that is free now, or none; absent: the class's budget |
| X-Aim-Complete-Within | seconds in which it is to be answered whole |
| X-Aim-Complete-By | the same as an instant, seconds since 1970 |
| X-Aim-Est-Service | with one of the last two: seconds that answering takes; absent: 0 |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aimd.errors import InvalidInputError

CLASS = "X-Aim-Class"
TIMEOUT = "X-Aim-Timeout"
COMPLETE_WITHIN = "X-Aim-Complete-Within"
COMPLETE_BY = "X-Aim-Complete-By"
EST_SERVICE = "X-Aim-Est-Service"
FIELDS = frozenset({CLASS, TIMEOUT, COMPLETE_WITHIN, COMPLETE_BY, EST_SERVICE})

CLASSES = ("high", "medium", "low")


@dataclass(frozen=True, slots=True)
class Ask:
    """Arguments of an acquire; seconds. `klass` None: the model's default."""

    klass: str | None = None
    timeout: float | None = None
    complete_in: float | None = None
    est_service: float | None = None
    no_wait: bool = False


def ask_of(fields: Mapping[str, str], wall: float) -> Ask:
    """What a request's fields say.

    Args:
        fields: names in any case.
        wall: now, in seconds since 1970.

    Raises:
        InvalidInputError: a field is no class, no number of seconds, or says what another one says too.
    """
    klass = fields.get(CLASS)
    if klass is not None and klass.strip().lower() not in CLASSES:
        raise InvalidInputError(f"{CLASS} is {klass!r}, expected {', '.join(CLASSES)}", code="bad_aim_field")
    timeout, within = _seconds(fields, TIMEOUT), _seconds(fields, COMPLETE_WITHIN)
    by, service = _seconds(fields, COMPLETE_BY), _seconds(fields, EST_SERVICE)
    said = [name for name in (TIMEOUT, COMPLETE_WITHIN, COMPLETE_BY) if fields.get(name) is not None]
    if len(said) > 1:
        raise InvalidInputError(f"{' and '.join(said)} bound the same wait, expected one of them", code="bad_aim_field")
    if by is not None:
        within = max(0.0, by - wall)
    if service is not None and within is None:
        raise InvalidInputError(
            f"{EST_SERVICE} is of use with {COMPLETE_WITHIN} or {COMPLETE_BY} alone", code="bad_aim_field"
        )
    return Ask(
        klass=None if klass is None else klass.strip().lower(),
        timeout=timeout or None,
        complete_in=within,
        est_service=service,
        no_wait=timeout == 0,
    )


def above(klass: str | None, highest: str | None) -> bool:
    """Whether a class is better than the best that is allowed; None: nothing asked, no bound."""
    return klass is not None and highest is not None and CLASSES.index(klass) < CLASSES.index(highest)


def _seconds(fields: Mapping[str, str], name: str) -> float | None:
    text = fields.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e12:  # `not`: a NaN is no number of seconds either
        raise InvalidInputError(f"{name} is {text!r}, expected seconds, 0 or more", code="bad_aim_field")
    return value
