"""Service level of a model: what it should reach, what was counted, and the verdict. Times in seconds of one clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from aimd.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Objective:
    """What a model should reach.

    Attributes:
        good_ratio: share of its requests that must be good, between 0 and 1 (both excluded). What is good is counted
            by the dispatch core: released well within the latency target.
        throughput_floor: releases per second while it has a backlog; None: no such objective.
        minimum_requests: fewer good and bad ones than this in a window say nothing about it.
    """

    good_ratio: float = 0.99
    throughput_floor: float | None = None
    minimum_requests: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.good_ratio < 1:
            raise InvalidInputError(f"objective: good ratio {self.good_ratio} is not between 0 and 1")
        if self.throughput_floor is not None and not self.throughput_floor > 0:
            raise InvalidInputError(f"objective: throughput floor {self.throughput_floor}/s is not above 0")
        if self.minimum_requests < 1:
            raise InvalidInputError(f"objective: minimum of {self.minimum_requests} requests is not 1 or more")


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters of a model since the start of its core, read at `at`; all classes together."""

    at: float
    good: int = 0
    bad: int = 0
    released: int = 0
    backlog_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What was counted in the `span` seconds up to `at`, about a minute."""

    at: float
    span: float
    good: int
    bad: int
    released: int
    backlog_seconds: float


@dataclass(frozen=True, slots=True)
class Counted:
    """What a window has counted; `released` in its `backlogged_seconds` only, while something waited."""

    good: float = 0
    bad: float = 0
    released: float = 0
    backlogged_seconds: float = 0.0


class Verdict(str, Enum):
    """Whether an objective is met; unknown while too little was counted (or nothing waited)."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "unknown"

    __str__ = str.__str__


class Severity(str, Enum):
    """What a burning error budget calls for: a person now, or a person in working hours."""

    PAGE = "page"
    TICKET = "ticket"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Burn:
    """One pair of windows.

    Attributes:
        long_seconds: the long window, which says that it matters.
        short_seconds: the short window, which says that it still goes on.
        threshold: both burn rates must reach it.
        severity: what it calls for.
        long: burn rate over the long window: 1 uses up the error budget exactly; None when nothing was counted.
        short: the same over the short window.
        firing: both have reached the threshold, and enough was counted.
    """

    long_seconds: int
    short_seconds: int
    threshold: float
    severity: Severity
    long: float | None
    short: float | None
    firing: bool


@dataclass(frozen=True, slots=True)
class Compliance:
    """The verdict on a model.

    Attributes:
        latency: good_ratio over the window of compliance, and the ratio that was reached (None: nothing was counted).
        throughput: throughput_floor over the backlogged part of that window, and the rate (None: no backlog).
        burns: the pairs of windows, the fastest first.
        alert: the most urgent severity of those that are firing.
    """

    latency: Verdict
    good_ratio: float | None
    throughput: Verdict
    released_per_second: float | None
    burns: tuple[Burn, ...]
    alert: Severity | None
