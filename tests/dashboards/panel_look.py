"""What is known of the load at the instant at which the dashboards are looked at, and how a panel is checked by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.dashboards.expected_values import Bounds, Expectation, Name, about
from tests.dashboards.load_scene import CHAT_OBJECTIVE, CHAT_TARGET_SECONDS, GPUS
from tests.dashboards.load_seen import PLACES, SAMPLE_AGE_SECONDS, WINDOW, Seen
from tests.dashboards.load_truth import Request

SPAN = 25  # seconds that are shown
LAST_SCRAPE_SECONDS = 1.5
CPX_BYTES, SPX_BYTES = 25767706624, 206141652992
OBJECTIVES = {"chat": CHAT_OBJECTIVE, "embed": 0.99}  # embed's claim names a floor alone
BAD = ("late", "failed", "revoked", "lost", "expired", "queue_full_model")
Values = dict[Name, Bounds]
Choice = Callable[[Request], bool]


class Look:
    """At the dashboards, at an instant of the load: `window` rates, `span` the whole, `slow` what is sampled rarely."""

    def __init__(self, seen: Seen) -> None:
        self.seen, self.truth, self.at = seen, seen.truth, seen.during
        self.window = Expectation(seen.truth, seen.during, WINDOW)
        self.slow = Expectation(seen.truth, seen.during, SPAN, edge=SAMPLE_AGE_SECONDS + 1)
        switches = [one for one in seen.truth.operations if one.what == "switch"]
        eight = switches[-1].detail["after"].startswith("CPX")
        self.sizes = {f"{GPUS[0]}/{index}": CPX_BYTES for index in range(8)} | {f"{GPUS[1]}/0": SPX_BYTES}
        self.sizes |= {f"{GPUS[2]}/{index}": CPX_BYTES if eight else SPX_BYTES for index in range(8 if eight else 1)}

    def running(self, choose: Choice) -> Bounds:
        low, high = self.truth.running(choose, self.at - LAST_SCRAPE_SECONDS, self.at + 0.1)
        return Bounds(max(0, low - 1), high + 1)

    def waiting(self, choose: Choice) -> Bounds:
        low, high = self.truth.waiting(choose, self.at - LAST_SCRAPE_SECONDS, self.at + 0.1)
        return Bounds(max(0, low - 1), high + 1)

    def quantile(self, q: float, choose: Choice, *, wait: bool = False) -> Bounds:
        return self.window.quantile(q, lambda since, until: self.spans(choose, since, until, wait=wait))

    def spans(self, choose: Choice, since: float, until: float, *, wait: bool) -> list[tuple[float, float]]:
        chosen = [one for one in self.truth.requests if choose(one)]
        if wait:
            return [one.wait() for one in chosen if one.granted is not None and since < one.granted <= until]
        ended = ("released", "failed")
        return [one.total() for one in chosen if one.outcome in ended and since < one.ended <= until]

    def outcomes(self, expectation: Expectation, name: Callable[[Request, str], Name | None]) -> Values:
        """Rates by how the metrics call the outcomes, with late ones apart from the others that were released."""
        sure: dict[Name, list[float]] = {}
        may: dict[Name, list[float]] = {}
        for one in self.truth.requests:
            if one.model not in PLACES:
                continue
            low, high = (bound > CHAT_TARGET_SECONDS for bound in one.total()) if well_of_chat(one) else (False, False)
            words = {"late" if late else one.outcome for late in (low, high)}
            for word in words:
                key = name(one, word)
                if key is not None:
                    may.setdefault(key, []).append(one.ended)
                    if len(words) == 1:
                        sure.setdefault(key, []).append(one.ended)
        return {k: Bounds(expectation.rate(sure.get(k, [])).low, expectation.rate(t).high) for k, t in may.items()}


def well_of_chat(one: Request) -> bool:
    return one.model == "chat" and one.outcome == "released"


def of_model(model: str) -> Choice:
    return lambda one: one.model == model


def served(one: Request) -> bool:
    return one.model in PLACES


class Check(NamedTuple):
    """By which labels of the series, and the bounds of each; `every` holds for all series whatever their labels."""

    labels: tuple[str, ...] = ()
    values: Callable[[Look], Values] | None = None
    every: Bounds | None = None


def one_value(value: Callable[[Look], Bounds] | float) -> Check:
    if isinstance(value, (int, float)):
        return Check((), lambda _: {(): about(float(value))})
    return Check((), lambda look: {(): value(look)})


def by_model(value: Callable[[Look, str], Bounds]) -> Check:
    return Check(("model",), lambda look: {(model,): value(look, model) for model in PLACES})


def every(low: float, high: float) -> Check:
    return Check(every=Bounds(low, high))


def by_place(value: Callable[[Look, str], Bounds]) -> Check:
    """By GPU and partition; keys are like 0000:05:00.0/3."""
    return Check(("gpu_id", "partition_id"), lambda look: {tuple(p.rsplit("/", 1)): value(look, p) for p in look.sizes})
