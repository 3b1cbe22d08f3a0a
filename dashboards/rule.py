"""What a rule is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recording:
    """An expression that is worth keeping."""

    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert.

    Attributes:
        lasting: for how long the expression has to be true, like 5m; "" for at once.
        severity: page or ticket.
        summary: one line; description: what it means. Both may use {{ $labels.x }} and {{ $value }}.
    """

    name: str
    expression: str
    lasting: str
    severity: str
    summary: str
    description: str


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated together, in order."""

    name: str
    rules: tuple[Alert | Recording, ...]


def grew(counter: str, minutes: int) -> str:
    """Whether a counter has grown in these minutes, also if its series began in them (increase() does not see that).

    A series that is new to Prometheus alone does not count: the daemon's page was read before, or the daemon is new, too.
    """
    window = f"{minutes}m"
    return (
        f"increase({counter}[{window}]) > 0\n"
        f"or ({counter} unless {counter} offset {window}) > 0\n"
        f"and on (instance) (aim_build_info offset {window} or time() - process_start_time_seconds < {minutes * 60})"
    )
