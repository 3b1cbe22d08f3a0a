"""What a panel has to show of the load, in bounds: rates, ratios, quantiles and levels of what the load scene knows.

Prometheus' rate() sees the scrapes of its window alone and extends what it saw to the window's ends: it may count what
happened up to EDGE_SECONDS beyond them, or miss as much inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import NamedTuple

from aimd.domain.metering import BUCKETS_SECONDS
from tests.dashboards.load_truth import Request, Truth, quantile_bounds

EDGE_SECONDS = 1.25
EXTENSION = 0.07
Name = tuple[str, ...]


class Bounds(NamedTuple):
    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def over(self, other: Bounds) -> Bounds:
        """The ratio of two."""
        return Bounds(self.low / other.high if other.high else 0.0, self.high / other.low if other.low else math.inf)

    def plus(self, other: Bounds) -> Bounds:
        return Bounds(self.low + other.low, self.high + other.high)


def about(value: float, relative: float = 0.0, absolute: float = 0.0) -> Bounds:
    slack = max(abs(value) * relative, absolute, 1e-9)
    return Bounds(value - slack, value + slack)


class Expectation:
    """Of one instant and window.

    Args:
        at: when the panel is looked at; window: seconds that it looks back.
        edge: seconds for which it is open whether something was in the window.
    """

    def __init__(self, truth: Truth, at: float, window: float, edge: float = EDGE_SECONDS) -> None:
        self.truth = truth
        self.at = at
        self.window = window
        self._edge = edge

    def rate(self, times: Iterable[float]) -> Bounds:
        """Per second, of what happened at these times."""
        found = list(times)
        start = self.at - self.window
        sure = sum(start + self._edge < time <= self.at - self._edge for time in found)
        may = sum(start - self._edge < time <= self.at + self._edge for time in found)
        inside = self.window - 2 * self._edge
        # Extrapolated from what was seen: steady streams come out right, single events up to a scrape's weight wrong.
        return Bounds(sure / self.window * (1 - EXTENSION), may / inside * (1 + EXTENSION))

    def rates(self, choose: Callable[[Request], bool], name: Callable[[Request], Name]) -> dict[Name, Bounds]:
        """Of the requests that are chosen, by the instant of their end."""
        return self._rates((name(r), r.ended) for r in self.truth.requests if choose(r))

    def _rates(self, events: Iterable[tuple[Name, float]]) -> dict[Name, Bounds]:
        times: dict[Name, list[float]] = {}
        for key, time in events:
            times.setdefault(key, []).append(time)
        return {key: self.rate(found) for key, found in times.items()}

    def grants(self, name: Callable[[Request], Name]) -> dict[Name, Bounds]:
        return self._rates((name(r), r.granted) for r in self.truth.requests if r.granted is not None)

    def operations(self, name: Callable[[str, str], Name]) -> dict[Name, Bounds]:
        return self._rates((name(one.what, one.outcome), one.ended) for one in self.truth.operations)

    def quantile(self, q: float, spans: Callable[[float, float], list[tuple[float, float]]]) -> Bounds:
        """`spans` gives the bounds of the latencies of a time. The ranks of the window's edges are left open."""
        start = self.at - self.window
        inner = spans(start + self._edge, self.at - self._edge)
        outer = spans(start - self._edge, self.at + self._edge)
        edges = len(outer) - len(inner)
        low = quantile_bounds(outer, max(0.0, q - edges / len(outer)), BUCKETS_SECONDS)[0]
        high = quantile_bounds(outer, min(1.0, q + edges / len(outer)), BUCKETS_SECONDS)[1]
        return Bounds(low, high)

    def slots(self, model: str) -> Bounds:
        """The mean of the model's running leases."""
        mean = self.truth.slot_seconds(model, self.at - self.window, self.at) / self.window
        return about(mean, relative=0.1, absolute=2 * self._edge / self.window)


def differences(found: Mapping[Name, float], expected: Mapping[Name, Bounds]) -> dict[Hashable, object]:
    """Series that are not as expected; one that is not expected has to be 0."""
    wrong: dict[Hashable, object] = {}
    for name, bounds in expected.items():
        if name not in found and bounds.low > 0:
            wrong[name] = (None, bounds)
        elif name in found and not bounds.holds(found[name]):
            wrong[name] = (found[name], bounds)
    wrong.update({name: (value, None) for name, value in found.items() if name not in expected and value != 0})
    return wrong
