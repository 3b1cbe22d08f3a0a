"""How long is waited for what: all times of the adapter, and the pause after a failure. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_DOUBLINGS = 16


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds.

    Attributes:
        connect: until a connection stands.
        answer: of silence within any answer but a watch's.
        silence: of a watch until it counts as half-open; the API server sends bookmarks once a minute.
        watch: shortest and longest time after which a watch is to end, so that not all nodes return at once.
        first, longest: bounds of the pause after a first and after many failures (client-go's reflector has the same).
        healthy: a watch that lived so long makes up for the failures before it.
        obeyed: how much of a Retry-After is respected.
        conflict: bound of the pause after a first conflict, which only says that another was faster.
    """

    connect: float = 5.0
    answer: float = 30.0
    silence: float = 120.0
    watch: tuple[float, float] = (240.0, 480.0)
    first: float = 0.8
    longest: float = 30.0
    healthy: float = 60.0
    obeyed: float = 300.0
    conflict: float = 0.05


def pause(first: float, longest: float, failures: int, chance: float) -> float:
    """Seconds to wait after so many failures before this one: full jitter, `chance` in [0, 1]."""
    return chance * min(longest, first * 2.0 ** min(failures, _DOUBLINGS))
