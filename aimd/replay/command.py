"""`aimd replay`: options in, a comparison out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from aimd.replay.comparison import POLICIES, compare
from aimd.replay.plot import check_plot, draw
from aimd.replay.report import Comparison, as_json, as_text
from aimd.replay.workload import DEFAULT_MIX, Assumptions, Mix, Survey, Three

MAX_NUMBER = 1e6

_DEFAULT = Assumptions()
_COST = click.FloatRange(0, MAX_NUMBER)


def per_class(text: str) -> Three | None:
    """`2/6/30` as three numbers of at least 0, for HIGH, MEDIUM and LOW; None if it is none such."""
    try:
        high, medium, low = map(float, text.split("/"))
    except ValueError:
        return None
    return (high, medium, low) if all(0 <= number <= MAX_NUMBER for number in (high, medium, low)) else None


def _budget(_ctx: click.Context, _param: click.Parameter, text: str) -> Three:
    numbers = per_class(text)
    if numbers is None:
        raise click.BadParameter(f"{text!r}, expected three numbers from 0 to {MAX_NUMBER:g} such as 2/6/30")
    return numbers


def _mixes(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> tuple[Mix, ...]:
    mixes = []
    for text in texts:
        pattern, _, percents = text.rpartition("=")
        numbers = per_class(percents)
        if not pattern or numbers is None or not math.isclose(sum(numbers), 100):
            raise click.BadParameter(
                f"{text!r}, expected a pattern and percentages that come to 100, such as '*code=0/0/100'"
            )
        mixes.append(Mix(pattern, numbers))
    return tuple(mixes)


def _loads(_ctx: click.Context, _param: click.Parameter, loads: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(dict.fromkeys(_number(_ctx, _param, load) for load in loads))


def _number(_ctx: click.Context, _param: click.Parameter, number: float) -> float:
    """FloatRange lets nan through."""
    if math.isnan(number):
        raise click.BadParameter("nan, expected a number")
    return number


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.option(
    "--mix",
    "mixes",
    multiple=True,
    callback=_mixes,
    metavar="PATTERN=HIGH/MEDIUM/LOW",
    help="Percentages of the classes among requests of "
    f"models (file names without .csv, or the column Model) that match; others: {'/'.join(map(str, DEFAULT_MIX))}.",
)
@click.option(
    "--load",
    "loads",
    multiple=True,
    type=click.FloatRange(0.01, 100),
    callback=_loads,
    default=(0.8, 1.0, 1.3, 2.0),
    show_default=True,
    help="Service time that arrives, as a multiple of what the slots can serve. Repeatable.",
)
@click.option(
    "--policy", "policies", multiple=True, type=click.Choice(list(POLICIES)), help="Repeatable; all by default."
)
@click.option("--slots", type=click.IntRange(1, 4096), default=16, show_default=True, help="Capacity of the partition.")
@click.option(
    "--prompt-ms",
    type=_COST,
    callback=_number,
    default=_DEFAULT.prompt_ms,
    show_default=True,
    help="Per context token.",
)
@click.option(
    "--output-ms",
    type=_COST,
    callback=_number,
    default=_DEFAULT.output_ms,
    show_default=True,
    help="Per generated token.",
)
@click.option(
    "--budget", callback=_budget, metavar="HIGH/MEDIUM/LOW", default="2/6/30", show_default=True, help="Seconds."
)
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=int,
    default=(1, 2, 3),
    show_default=True,
    help="Of all that is drawn. Repeatable.",
)
@click.option("--by-clock", is_flag=True, help="Merge files by their timestamps, instead of beginning them together.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw it, too: png, svg or pdf; needs matplotlib.",
)
def replay(
    *,
    files: tuple[Path, ...],
    mixes: tuple[Mix, ...],
    loads: tuple[float, ...],
    policies: tuple[str, ...],
    slots: int,
    prompt_ms: float,
    output_ms: float,
    budget: Three,
    seeds: tuple[int, ...],
    by_clock: bool,
    output: str,
    plot: Path | None,
) -> None:
    """Replay traces of requests through the dispatch core and simpler policies, in virtual time.

    FILE is a CSV with the columns TIMESTAMP, ContextTokens and GeneratedTokens (the form of the Azure LLM inference
    traces), in order of time. Optional columns: Class (high, medium, low), Model, Deadline (seconds from arrival to
    completion). A cost per token stands in for service times; classes and deadlines that the trace does not have are
    drawn. All of it is printed beside the numbers. For example:

    \b
        aimd replay conv.csv code.csv --mix 'code=0/0/100' --plot replay.png
    """  # noqa: D301 - click's mark for lines that stay as they are
    if plot is not None:
        check_plot(plot)
    names = tuple(dict.fromkeys(policies or POLICIES))
    seeds = tuple(dict.fromkeys(seeds))
    assumptions = Assumptions(prompt_ms=prompt_ms, output_ms=output_ms, budget_seconds=budget, mixes=mixes)

    def begins(sums: Survey) -> None:
        runs = len(names) * len(loads) * len(seeds)
        click.echo(f"replaying {sums.requests:,} requests {runs} times ...", err=True)

    sums, results = compare(files, assumptions, seeds, loads, names, slots, by_clock=by_clock, begins=begins)
    comparison = Comparison(tuple(map(str, files)), by_clock, slots, assumptions, seeds, sums, tuple(results))
    if plot is not None:
        draw(comparison, plot)
    click.echo(
        json.dumps(as_json(comparison), indent=2) if output == "json" else as_text(comparison), nl=output == "json"
    )
