"""Requests as the policies see them: rows of a trace, and what is assumed where the trace says nothing.

A trace has no service times, classes or deadlines. All that stands in for them is here, is drawn from a seed in the order
of arrival, and is printed beside every result. With one seed, a request is the same under each policy and load.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from random import Random
from typing import NamedTuple

from aimd.dispatch.values import SECOND, Class
from aimd.errors import InvalidInputError
from aimd.replay.trace import Row

MAX_MODELS = 1024
MAX_NS = 1 << 60  # 36 years: sums of two instants stay within int64

Three = tuple[float, float, float]

DEFAULT_MIX: Three = (25, 50, 25)


@dataclass(frozen=True, slots=True)
class Mix:
    """Percentages of HIGH, MEDIUM and LOW among the requests of the models whose names match the pattern."""

    pattern: str
    percent: Three


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What stands in for what a trace does not say.

    A request is served for `prompt_ms` per context token and `output_ms` per generated token, whatever else runs. It
    has to be complete `budget of its class * patience + services * service time` after its arrival, where patience is
    drawn from `patience`, each equally often. These deadlines do not shrink with the arrivals' spacing.

    Attributes:
        budget_seconds: by class.
        mixes: the first one that matches a model's name draws its classes; DEFAULT_MIX for what none matches.
    """

    prompt_ms: float = 0.12
    output_ms: float = 12.0
    budget_seconds: Three = (2, 6, 30)
    patience: tuple[int, ...] = (1, 1, 3)
    services: int = 2
    mixes: tuple[Mix, ...] = ()

    def mix(self, model: str) -> Three:
        return next((mix.percent for mix in self.mixes if fnmatchcase(model, mix.pattern)), DEFAULT_MIX)


class Request(NamedTuple):
    """One request; instants are relative to the first arrival.

    Attributes:
        number: 0, 1, 2, ... in order of arrival.
        offset_ns: arrival in the trace's own time.
        klass: a Class.
        model: index into the models in order of their first request.
        patience_ns: from arrival to the instant by which it has to be complete.
    """

    number: int
    offset_ns: int
    service_ns: int
    klass: int
    model: int
    patience_ns: int


@dataclass(slots=True)
class Survey:
    """Sums over a workload.

    Attributes:
        span_ns: from the first to the last arrival.
        busy_ns: service time of all.
        models: names by index.
    """

    requests: int = 0
    span_ns: int = 0
    busy_ns: int = 0
    models: list[str] = field(default_factory=list)

    def stretch(self, load: float, capacity: int) -> float:
        """What arrivals are multiplied by so that their service time is `load` times what the slots can give."""
        return self.busy_ns / (self.span_ns * capacity * load)


def requests(
    rows: Iterable[Row], assumptions: Assumptions, seed: int, models: list[str] | None = None
) -> Iterator[Request]:
    """The workload, a request at a time; the names of models are appended to `models` as they are met.

    Raises:
        InvalidInputError: more than MAX_MODELS models; or what the rows themselves raise.
    """
    names = [] if models is None else models
    indexes: dict[str, int] = {}
    mixes: list[Three] = []
    dice = Random(seed)  # noqa: S311 - a simulation, repeatable by its seed
    prompt_ns, output_ns = assumptions.prompt_ms * 1e6, assumptions.output_ms * 1e6
    budgets = [budget * SECOND for budget in assumptions.budget_seconds]
    first = None
    for number, row in enumerate(rows):
        index = indexes.get(row.model)
        if index is None:
            index = indexes[row.model] = len(names)
            names.append(row.model)
            mixes.append(assumptions.mix(row.model))
            if index == MAX_MODELS:
                raise InvalidInputError(
                    f"the trace names more than {MAX_MODELS} models, {row.model!r} is one too many",
                    hint="leave the column Model away: each file is one model then",
                )
        first = row.arrival_ns if first is None else first
        # both are drawn for each row, so that a class or deadline in the trace does not change the others'
        klass, patience = _class(dice.random() * 100, mixes[index]), dice.choice(assumptions.patience)
        klass = klass if row.klass is None else row.klass
        service = round(row.context_tokens * prompt_ns + row.generated_tokens * output_ns)
        drawn = round(budgets[klass] * patience) + assumptions.services * service
        deadline = drawn if row.deadline_ns is None else row.deadline_ns
        yield Request(number, row.arrival_ns - first, service, klass, index, deadline)


def survey(rows: Iterable[Row], assumptions: Assumptions, least_load: float, capacity: int) -> Survey:
    """The sums that loads are computed from, which are the same for all seeds.

    Raises:
        InvalidInputError: the rows raise it, or they cannot be brought to a load: there are none, all arrive at one
            instant, none takes any time, or it would last longer than int64 nanoseconds can tell.
    """
    found = Survey()
    longest = 0
    for request in requests(rows, assumptions, 0, found.models):
        found.requests += 1
        found.span_ns = request.offset_ns
        found.busy_ns += request.service_ns
        longest = max(longest, request.patience_ns)
    for mix in assumptions.mixes:
        if found.models and not any(fnmatchcase(model, mix.pattern) for model in found.models):
            some = ", ".join(found.models[:5]) + (", ..." if len(found.models) > 5 else "")
            raise InvalidInputError(f"mix {mix.pattern} matches no model, expected a pattern for one of {some}")
    if not found.span_ns or not found.busy_ns:
        fact = "no requests" if not found.requests else "no span of time" if not found.span_ns else "no tokens"
        raise InvalidInputError(f"the trace has {fact}, expected requests of some length that arrive over some time")
    if found.busy_ns / min(1.0, least_load * capacity) + longest > MAX_NS:
        raise InvalidInputError(
            f"the trace keeps a slot busy for {found.busy_ns / SECOND:.3g} s, expected less than {MAX_NS / SECOND:.3g} s",
            hint="lower the costs per token",
        )
    return found


def _class(dice: float, mix: Three) -> int:
    if dice < mix[0]:
        return Class.HIGH
    return Class.MEDIUM if dice < mix[0] + mix[1] else Class.LOW
