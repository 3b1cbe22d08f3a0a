"""Reading the API's JSON: every field that aimctl shows is taken through here.

The messages are fixed (aimd.protocol.messages), so an absent field means that something else answered or that the two
programs differ in version: an error in one sentence, never a traceback. null is "unknown" and shown as `-`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aimd.errors import UnreachableError

UNKNOWN = "-"


def required(message: Mapping[str, Any], key: str) -> Any:
    """The field as it is.

    Raises:
        UnreachableError: the message has no such field.
    """
    if key not in message:
        raise malformed(f"the answer has no field {key!r}")
    return message[key]


def text(message: Mapping[str, Any], key: str) -> str:
    """A scalar for people."""
    return shown(required(message, key))


def texts(message: Mapping[str, Any], key: str) -> list[str]:
    """A list of scalars for people; empty for null."""
    return [shown(value) for value in _list(message, key)]


def number(message: Mapping[str, Any], key: str) -> float | None:
    """A number, or None for null."""
    value = required(message, key)
    if value is not None and not isinstance(value, int | float):
        raise malformed(f"the answer's field {key!r} is no number")
    return value


def flag(message: Mapping[str, Any], key: str) -> bool:
    """A boolean."""
    value = required(message, key)
    if not isinstance(value, bool):
        raise malformed(f"the answer's field {key!r} is neither true nor false")
    return value


def items(message: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of objects."""
    values = _list(message, key)
    if not all(isinstance(value, dict) for value in values):
        raise malformed(f"the answer's field {key!r} is no list of objects")
    return values


def item(message: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object."""
    value = required(message, key)
    if not isinstance(value, dict):
        raise malformed(f"the answer's field {key!r} is no object")
    return value


def shown(value: object) -> str:
    """A scalar as one printable line.

    Command lines of processes reach the terminal this way and are under the control of any user of the node: control
    characters would let them write escape sequences.
    """
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    line = str(value)
    return line if line.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def malformed(fact: str) -> UnreachableError:
    """The error for an answer that is not what the daemon of this version gives."""
    return UnreachableError(
        f"what answers is no aimd of this version: {fact}",
        code="answer_malformed",
        hint="compare the versions with: aimctl version",
    )


def _list(message: Mapping[str, Any], key: str) -> list[Any]:
    value = required(message, key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise malformed(f"the answer's field {key!r} is no list")
    return value
