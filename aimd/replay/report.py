"""The comparison as text and as JSON, with all that the numbers rest on beside them. Computes nothing but percentages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aimd.dispatch.values import SECOND, Class
from aimd.replay.comparison import POLICIES, Result
from aimd.replay.workload import DEFAULT_MIX, Assumptions, Survey

CLASSES = tuple(each.name.lower() for each in Class)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was replayed, how, and with what result.

    Attributes:
        files: as they were named.
        by_clock: files merged by their timestamps, instead of beginning together.
    """

    files: tuple[str, ...]
    by_clock: bool
    capacity: int
    assumptions: Assumptions
    seeds: tuple[int, ...]
    survey: Survey
    results: tuple[Result, ...]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Counts and percentages are over all seeds; percentages are null where a class has no requests."""
    sums, assumed = comparison.survey, comparison.assumptions
    return {
        "trace": {
            "files": list(comparison.files),
            "by_clock": comparison.by_clock,
            "requests": sums.requests,
            "models": sums.models,
            "span_seconds": sums.span_ns / SECOND,
            "service_seconds": sums.busy_ns / SECOND,
        },
        "assumptions": {
            "slots": comparison.capacity,
            "prompt_ms_per_token": assumed.prompt_ms,
            "output_ms_per_token": assumed.output_ms,
            "budget_seconds": dict(zip(CLASSES, assumed.budget_seconds, strict=True)),
            "budget_factors": list(assumed.patience),
            "services_in_deadline": assumed.services,
            "mixes": [{"models": mix.pattern, "percent": list(mix.percent)} for mix in assumed.mixes],
            "default_mix_percent": list(DEFAULT_MIX),
            "seeds": list(comparison.seeds),
        },
        "results": [_result(result) for result in comparison.results],
    }


def _result(result: Result) -> dict[str, Any]:
    score = result.score
    classes = {
        name: {
            "requests": score.arrived[klass],
            "met": score.met[klass],
            "late": score.late[klass],
            "expired": score.expired(klass),
            "met_percent": score.met_percent(klass),
            "longest_gap": score.longest_gap[klass],
        }
        for klass, name in enumerate(CLASSES)
    }
    return {
        "load": result.load,
        "policy": result.policy,
        "met_percent": score.met_percent(),
        "met_percent_spread": result.spread,
        "classes": classes,
    }


def as_text(comparison: Comparison) -> str:
    """What is assumed, the share of all requests by policy and load, then classes and gaps."""
    blocks = [_assumed(comparison), _overall(comparison.results), _by_class(comparison.results)]
    return "\n".join(blocks)


def assumption_lines(comparison: Comparison) -> list[str]:
    """What the numbers rest on, for a reader."""
    sums, assumed = comparison.survey, comparison.assumptions
    mixes = [f"{mix.pattern} {_slashed(mix.percent)}" for mix in assumed.mixes]
    factors = ", ".join(map(str, assumed.patience))
    begun = "" if len(comparison.files) == 1 else ", by the clock" if comparison.by_clock else ", begun together"
    return [
        f"trace: {', '.join(comparison.files)}: {sums.requests:,} requests in {sums.span_ns / SECOND:,.0f} s{begun}",
        f"cost (declared, not measured): {assumed.prompt_ms:g} ms per context token + {assumed.output_ms:g} ms per generated token",
        f"load: arrivals are spaced so that this is LOAD times what {comparison.capacity} slots can serve until the last one",
        f"classes (drawn where the trace has none), % high/medium/low: {', '.join([*mixes, f'others {_slashed(DEFAULT_MIX)}'])}",
        f"deadlines (likewise): budget {_slashed(assumed.budget_seconds)} s x one of {{{factors}}} + {assumed.services} x service time",
        f"seeds: {', '.join(map(str, comparison.seeds))}; the numbers are over all of them",
    ]


def _assumed(comparison: Comparison) -> str:
    names = list(dict.fromkeys(result.policy for result in comparison.results))
    width = max(map(len, names))
    policies = [f"  {name.ljust(width)}  {POLICIES[name]}" for name in names]
    return "\n".join([*assumption_lines(comparison), "policies:", *policies, ""])


def _overall(results: Sequence[Result]) -> str:
    loads = list(dict.fromkeys(result.load for result in results))
    found = {(result.policy, result.load): _percent(result.score.met_percent()) for result in results}
    names = dict.fromkeys(result.policy for result in results)
    lines = [[name, *(found[name, load] for load in loads)] for name in names]
    spread = max(result.spread for result in results)
    title = f"Complete in time, % of all requests (seeds differ by up to {spread:.1f} points):\n"
    return title + _table(["POLICY", *(f"LOAD {load:g}" for load in loads)], lines)


def _by_class(results: Sequence[Result]) -> str:
    heads = ["POLICY", "LOAD", *map(str.upper, CLASSES), *(f"GAP-{name.upper()}" for name in CLASSES)]
    lines = [
        [
            result.policy,
            f"{result.load:g}",
            *(_percent(result.score.met_percent(klass)) for klass in Class),
            *(f"{gap:,}" for gap in result.score.longest_gap),
        ]
        for result in results
    ]
    title = "Complete in time, % of the class; longest gap (excess grants to others in a row while one of the class waits):\n"
    return title + _table(heads, lines)


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *lines, strict=True)]
    rows = []
    for line in (heads, *lines):
        first, *others = [
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        rows.append("   ".join([first, *others]).rstrip() + "\n")
    return "".join(rows)


def _percent(value: float | None) -> str:
    """100.0 only if all met it: 99.97 is shown as 99.9."""
    if value is None:
        return "-"
    return f"{min(value, 99.9) if value < 100 else value:.1f}"


def _slashed(numbers: Sequence[float]) -> str:
    return "/".join(f"{number:g}" for number in numbers)
