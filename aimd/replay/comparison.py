"""All policies at all loads over one trace, which is read once for the sums and once per seed, for all runs
together.

Memory is that of what waits and runs, not of the trace; without expiry the prototype's queue grows with the overload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aimd.errors import InvalidInputError
from aimd.replay.baselines import Baseline, By, Rule
from aimd.replay.native import Core
from aimd.replay.run import Policy, Run
from aimd.replay.score import Score
from aimd.replay.trace import rows
from aimd.replay.workload import Assumptions, Request, Survey, requests, survey

OURS = "aimd"
OURS_BY_MODEL = "aimd-models"

RULES: Mapping[str, tuple[Rule, str]] = {
    "prototype": (Rule(True, By.ARRIVAL, By.NEVER), "strict class, then FIFO; nothing expires"),
    "fifo": (Rule(False, By.ARRIVAL, By.COMPLETION), "FIFO of all classes; dropped at the completion deadline"),
    "class-fifo": (
        Rule(True, By.ARRIVAL, By.COMPLETION),
        "strict class, then FIFO; dropped at the completion deadline",
    ),
    "class-edf": (Rule(True, By.COMPLETION, By.COMPLETION), "strict class, then completion deadline; dropped at it"),
    "edf": (Rule(False, By.COMPLETION, By.COMPLETION), "completion deadline of all classes; dropped at it"),
    "class-start-by": (
        Rule(True, By.START, By.START),
        "strict class, then start_by (completion deadline less service); dropped at it",
    ),
}

POLICIES: Mapping[str, str] = {
    **{name: told for name, (_, told) in RULES.items()},
    OURS: "the native core, the trace as one model: class with credit, then start_by; expires at it",
    OURS_BY_MODEL: "the native core, the trace's models apart: as above, and equal shares within a class",
}


@dataclass(frozen=True, slots=True)
class Result:
    """A policy at a load.

    Attributes:
        score: over all seeds.
        spread: between the seeds, of the percentage of all requests that were complete in time.
    """

    load: float
    policy: str
    score: Score
    spread: float


def compare(
    paths: Sequence[Path],
    assumptions: Assumptions,
    seeds: Sequence[int],
    loads: Sequence[float],
    policies: Sequence[str],
    capacity: int,
    *,
    by_clock: bool,
    begins: Callable[[Survey], None],
) -> tuple[Survey, list[Result]]:
    """Results by load, then by policy, in the order given.

    Args:
        policies: names of POLICIES.
        begins: told the sums before the runs begin, which take longer.

    Raises:
        InvalidInputError: a file cannot be read, is not of the documented form, cannot be brought to a load, or changed.
        RefusedError: more requests wait than a core holds.
    """
    sums = survey(rows(paths, by_clock=by_clock), assumptions, min(loads), capacity)
    begins(sums)
    places = [(load, name) for load in loads for name in policies]
    scores: list[list[Score]] = [[] for _ in places]
    for seed in seeds:
        runs = [Run(policy(name, capacity, sums), sums.stretch(load, capacity)) for load, name in places]
        _play(requests(rows(paths, by_clock=by_clock), assumptions, seed), sums, runs)
        for found, run in zip(scores, runs, strict=True):
            found.append(run.score)
    return sums, [_result(load, name, found) for (load, name), found in zip(places, scores, strict=True)]


def _play(workload: Iterable[Request], sums: Survey, runs: Sequence[Run]) -> None:
    feeds = [run.arrive for run in runs]
    count = 0
    for request in workload:
        count += 1
        if count > sums.requests or request.model >= len(sums.models):
            break
        for feed in feeds:
            feed(request)
    if count != sums.requests:
        raise InvalidInputError(
            f"the trace changed while it was read, expected the {sums.requests} requests of the first reading again",
            hint="replay a copy of what is still being written",
        )
    for run in runs:
        run.end()


def _result(load: float, name: str, scores: Sequence[Score]) -> Result:
    total = Score()
    for score in scores:
        total.add(score)
    percents = [percent for score in scores if (percent := score.met_percent()) is not None]
    return Result(load, name, total, max(percents) - min(percents))


def policy(name: str, capacity: int, sums: Survey) -> Policy:
    """A fresh partition under the policy of this name in POLICIES."""
    if name in RULES:
        return Baseline(RULES[name][0], capacity)
    return Core(capacity, len(sums.models) if name == OURS_BY_MODEL else 0, sums.requests)
