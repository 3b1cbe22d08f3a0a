"""claim and release: have a model placed on partitions, and give its places up."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import click

from aimd.ctl import exits
from aimd.ctl.awaiting import settled, waits
from aimd.ctl.client import ApiClient
from aimd.ctl.columns import gigabytes
from aimd.ctl.completing import claim_names, compute_modes, memory_modes, partition_names
from aimd.ctl.environment import variables
from aimd.ctl.fields import items, number, required, text
from aimd.ctl.output import render
from aimd.ctl.seconds import Seconds
from aimd.ctl.session import Command, each_of, output_option, segment
from aimd.domain.memory import parse_gb
from aimd.domain.ranges import ranges
from aimd.errors import AimdError, InvalidInputError
from aimd.exits import Exit

MOST_PLACES = 8  # that `claim` prints for people


def gigabytes_asked(words: str) -> float:
    """An amount of GB; raises click.BadParameter."""
    try:
        parse_gb(words)
    except InvalidInputError as error:
        raise click.BadParameter(f"{error.message}\nhint: {error.hint}") from error
    return float(words)


def above_zero(words: str) -> float:
    """A number; raises click.BadParameter. NaN and infinity are numbers for Python and none in JSON."""
    try:
        amount = float(words)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        raise click.BadParameter(f"{words!r} is out of range, expected a number above 0, for example 0.5")
    return amount


OPTIONS: tuple[Callable[[Command], Command], ...] = (
    click.option(
        "--memory",
        "memory_gb",
        type=gigabytes_asked,
        required=True,
        metavar="GB",
        help="Per replica, as GPUs are sold.",
    ),
    click.option("--qos", type=click.Choice(["high", "medium", "low"]), help="Priority class of its requests."),
    click.option("--guarantee", type=int, metavar="N", help="Dispatch slots that it always gets, per replica."),
    click.option("--limit", type=int, metavar="N", help="Dispatch slots that it gets at most, per replica."),
    click.option("--weight", type=int, metavar="N", help="Its share of what others leave, 1 to 1000."),
    click.option("--replicas", type=int, metavar="N", help="How many places it gets."),
    click.option(
        "--compute",
        "compute_mode",
        metavar="MODE",
        shell_complete=compute_modes,
        help="Compute mode that the GPU must have: SPX ... CPX.",
    ),
    click.option(
        "--memory-mode",
        metavar="MODE",
        shell_complete=memory_modes,
        help="Memory mode that the GPU must have: NPS1 ...",
    ),
    click.option(
        "--partition",
        metavar="P",
        shell_complete=partition_names,
        help="Only place: an index (3) or one partition (gpu3/5).",
    ),
    click.option(
        "--preferred",
        metavar="P",
        shell_complete=partition_names,
        help="The place to take if it has room; written as for --partition.",
    ),
    click.option("--slo-latency", type=above_zero, metavar="S", help="Latency that requests should keep, in seconds."),
    click.option(
        "--slo-objective", type=above_zero, metavar="R", help="Ratio of requests that should keep it, as 0.99."
    ),
    click.option("--slo-throughput", type=above_zero, metavar="N", help="Requests per second that should be reached."),
)
SLO = {"slo_latency": "latency_seconds", "slo_objective": "objective", "slo_throughput": "throughput_floor"}


def claim_options(command: Command) -> Command:
    """The options that say what is asked for, in this order in the help."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("name")
@claim_options
@click.option(
    "--timeout",
    type=Seconds(),
    metavar="SECONDS",
    help="How long to wait for a mode change that makes room; the claim is kept. Else to the change's end.",
)
@click.option("--no-follow", is_flag=True, help="Return as soon as the daemon has taken the claim on.")
@click.option(
    "-o",
    "--output",
    "fmt",
    type=click.Choice(["shell", "json", "yaml", "name"]),
    default="shell",
    show_default=True,
    help="Output format; `shell` is for eval.",
)
@click.pass_context
def claim(
    context: click.Context, /, name: str, *, timeout: float | None, no_follow: bool, fmt: str, **asked: Any
) -> None:
    """Ask for partitions for the model NAME, and print where it was placed and the environment to use.

    What is not asked for gets the daemon's defaults. The same claim again is the same claim. Where a mode change makes
    room, or has to end before, aimctl waits for it.
    """
    client = context.obj.client
    placed = client.put(f"/v1/claims/{segment(name)}", request_body(asked))
    if not no_follow:
        placed = settled(client, placed, timeout)
    try:
        environments = environments_of(client, placed, first=fmt == "shell")
    except AimdError:
        click.echo(shell_lines(placed, []), err=True, nl=False)  # it is placed all the same
        raise
    if fmt == "shell":
        click.echo(shell_lines(placed, environments), nl=False)
    elif fmt == "name":
        click.echo(text(placed, "name"))
    else:
        answer = {"claim": placed, "environments": environments}
        click.echo(json.dumps(answer, indent=2) if fmt == "json" else render("claim", answer, fmt), nl=fmt == "json")
    if text(placed, "state") != "placed":
        report_pending(placed)
    context.exit(_exit_code(placed, no_follow=no_follow))


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=claim_names)
@output_option
@click.pass_context
def release(context: click.Context, names: tuple[str, ...], *, fmt: str) -> None:
    """Give up the claims: their memory and slots are free for others. Processes are not ended."""
    client = context.obj.client
    released, failure = each_of(names, lambda name: client.delete(f"/v1/claims/{segment(name)}"))
    if fmt in ("table", "wide"):
        click.echo("".join(f"{_release_line(each)}\n" for each in released), nl=False)
    else:
        click.echo(render("claims", {"claims": released}, fmt), nl=False)
    context.exit(0 if failure is None else exits.of_error(failure))


def request_body(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The ClaimRequest with what was asked for alone."""
    given = {key: value for key, value in asked.items() if value is not None}
    slo = {SLO[key]: given.pop(key) for key in SLO if key in given}
    for key in ("partition", "preferred"):
        if str(given.get(key, "")).isdecimal():
            given[key] = int(given[key])
    return given | ({"slo": slo} if slo else {})


def environments_of(client: ApiClient, claim: Mapping[str, Any], *, first: bool = False) -> list[dict[str, Any]]:
    """Per replica its partition and the variables as this process sees the node now; `first` asks for one alone.

    None of a claim that is not placed. Replicas on one partition have the same variables.
    """
    assignments = items(claim, "assignments") if text(claim, "state") == "placed" else []
    there: dict[str, dict[str, str]] = {}
    found = []
    for assignment in assignments[:1] if first else assignments:
        replica, place = required(assignment, "replica"), text(assignment, "partition")
        if place not in there:
            path = f"/v1/claims/{segment(text(claim, 'name'))}/environment?replica={replica}"
            there[place] = variables(client.get(path))
        found.append({"replica": replica, "partition": place, "environment": there[place]})
    return found


def shell_lines(claim: Mapping[str, Any], environments: list[dict[str, Any]]) -> str:
    """The places as comments and the first one's environment as exports, for `eval "$(aimctl claim ...)"`."""
    name = text(claim, "name")
    places = place_lines(claim)
    if not environments:
        return places
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in environments[0]["environment"].items())
    whose = f"replica {environments[0]['replica']}, " if len(items(claim, "assignments")) > 1 else ""
    return f"{places}# {whose}valid until the next mode switch on the node (aimctl exec {name} computes it anew):\n{exports}"


def place_lines(claim: Mapping[str, Any]) -> str:
    """A comment for each partition with the replicas that are there, of many partitions the first."""
    name, memory = text(claim, "name"), gigabytes("memory_gb")
    there: dict[str, list[dict[str, Any]]] = {}
    for each in items(claim, "assignments"):
        there.setdefault(text(each, "partition"), []).append(each)
    lines = []
    for place, assignments in there.items():
        replicas = ranges(int(number(each, "replica") or 0) for each in assignments)
        amount = f"{len(assignments)} x {memory(claim)}" if len(assignments) > 1 else memory(assignments[0])
        lines.append(f"# {name}/{replicas}: {text(assignments[0], 'partition_name')} ({place}), {amount}\n")
    if len(lines) > MOST_PLACES:
        rest = len(lines) - MOST_PLACES
        lines[MOST_PLACES:] = [f"# and {rest} partitions more: aimctl get assignments {name}\n"]
    return "".join(lines)


def _exit_code(claim: Mapping[str, Any], *, no_follow: bool) -> Exit:
    """What still waits for a mode change has been accepted, which is OK if nobody wanted to see it placed."""
    if text(claim, "state") == "placed" or (waits(claim) and no_follow):
        return Exit.OK
    return Exit.TIMEOUT if waits(claim) else exits.BY_REASON.get(text(claim, "reason"), Exit.REFUSED)


def report_pending(claim: Mapping[str, Any]) -> None:
    """Say on stderr why the claim waits."""
    name = text(claim, "name")
    if text(claim, "state") == "switching":
        why = f"mode change {text(claim, 'change')} makes room"
    else:
        why = f"{text(claim, 'message')} ({text(claim, 'reason')})"
    when = "that has ended" if waits(claim) else "there is room"
    click.echo(f"{name} is {text(claim, 'state')}: {why}", err=True)
    click.echo(f"hint: it is placed as soon as {when}; give it up with: aimctl release {name}", err=True)


def _release_line(claim: Mapping[str, Any]) -> str:
    line = f"{text(claim, 'name')}: released"
    running = ", ".join(
        f"pid {text(each, 'pid')} ({text(each, 'command')})"
        for each in items(claim, "holders")
        if each.get("ended_at") is None
    )
    return f"{line}; still running: {running}" if running else line
