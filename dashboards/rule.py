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


def grew(counter: str, window: str) -> str:
    """Whether a counter has grown in the window, also if its series began in it (increase() does not see that)."""
    return f"increase({counter}[{window}]) > 0 or ({counter} unless {counter} offset {window}) > 0"
