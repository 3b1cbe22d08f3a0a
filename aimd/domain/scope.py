"""The scope of a claim's process, by name: `aimd-claim-<claim>-<pid>.<start time>.scope`, fenced off from other GPUs.

The number tells the holder, so that a daemon that starts later, or finds the holder ended, still knows whose the rest is.
"""

from __future__ import annotations

import re

MOST_NAME = 255  # characters of a unit's name (unit-name.h: UNIT_NAME_MAX is 256, with the terminator)
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.")

# Where the system's manager puts scopes that name no slice. A user's own manager cannot make control groups there, so
# the name can be believed. Who looks from a control group namespace sees what is outside of it below "..".
_PATH = re.compile(r"(?:/\.\.)*/system\.slice/aimd-claim-[^/]*-([1-9][0-9]{0,9})\.([0-9]{1,20})\.scope(?:/.*)?")


def escaped(text: str) -> str:
    r"""The text as systemd-escape(1) has it: `/` becomes `-`, what a unit's name cannot carry (and `-`) `\x2d`."""
    return "".join(_escaped(text))


def scope_name(claim: str, pid: int, start_time: int) -> str:
    """Name of the scope of the holder with this pid and start time (clock ticks after boot).

    Of a claim with a very long name the first part is taken: the holder's number alone tells scopes apart.
    """
    end = f"-{pid}.{start_time}.scope"
    name = "aimd-claim-"
    for piece in _escaped(claim):
        if len(name) + len(piece) + len(end) > MOST_NAME:
            break
        name += piece
    return name + end


def holder_of_scope(path: str) -> tuple[int, int] | None:
    """Pid and start time of the holder whose scope this control group is, or is in; None if it is in none."""
    found = _PATH.fullmatch(path)
    return (int(found[1]), int(found[2])) if found is not None else None


def _escaped(text: str) -> list[str]:
    return [_piece(character, first=place == 0) for place, character in enumerate(text)]


def _piece(character: str, *, first: bool) -> str:
    if character == "/":
        return "-"
    if character in _ALLOWED and not (first and character == "."):
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode())
