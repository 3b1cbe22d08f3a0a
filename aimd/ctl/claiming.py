"""claim and release: have a model placed on partitions, and give its places up."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import click

from aimd.ctl import exits
from aimd.ctl.client import ApiClient, ProblemError
from aimd.ctl.columns import gigabytes
from aimd.ctl.completing import claim_names
from aimd.ctl.environment import variables
from aimd.ctl.fields import items, required, text
from aimd.ctl.following import display_for
from aimd.ctl.output import render
from aimd.ctl.session import Command, each_of, output_option, segment
from aimd.errors import AimdError
from aimd.exits import Exit

POLL_SECONDS = 0.25


def gigabytes_asked(text: str) -> float:
    """An amount of GB; click tells of a ValueError what it is."""
    amount = float(text)
    if not 0 < amount < math.inf:
        raise ValueError(f"{text} is not an amount of GB, expected more than 0, for example 24")
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
    click.option("--compute", "compute_mode", metavar="MODE", help="Compute mode that the GPU must have: SPX ... CPX."),
    click.option("--memory-mode", metavar="MODE", help="Memory mode that the GPU must have: NPS1 ..."),
    click.option("--partition", metavar="P", help="Only place: an index (3) or one partition (gpu3/5)."),
    click.option("--preferred", metavar="P", help="The place to take if it has room; written as for --partition."),
    click.option("--slo-latency", type=float, metavar="S", help="Latency that requests should keep, in seconds."),
    click.option("--slo-objective", type=float, metavar="R", help="Ratio of requests that should keep it, as 0.99."),
    click.option("--slo-throughput", type=float, metavar="N", help="Requests per second that should be reached."),
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
    "-o",
    "--output",
    "fmt",
    type=click.Choice(["shell", "json", "yaml", "name"]),
    default="shell",
    show_default=True,
    help="Output format; `shell` is for eval.",
)
@click.pass_context
def claim(context: click.Context, /, name: str, *, fmt: str, **asked: Any) -> None:
    """Ask for partitions for the model NAME, and print where it was placed and the environment to use.

    What is not asked for gets the daemon's defaults. The same claim again is the same claim. Where a mode switch makes
    room, aimctl waits for it.
    """
    client = context.obj.client
    placed = settled(client, client.put(f"/v1/claims/{segment(name)}", request_body(asked)))
    try:
        environments = environments_of(client, placed) if text(placed, "state") == "placed" else []
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
        context.exit(exits.BY_REASON.get(text(placed, "reason"), Exit.REFUSED))


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


def settled(client: ApiClient, claim: dict[str, Any]) -> dict[str, Any]:
    """The claim when no mode change makes room for it any more; the change's progress is shown meanwhile."""
    name = text(claim, "name")
    display = display_for(sys.stderr, os.environ)
    try:
        while text(claim, "state") == "switching":
            if required(claim, "change") is not None:
                with suppress(ProblemError):  # the change can end, and be forgotten, between two questions
                    display.show(client.get(f"/v1/plans/{segment(text(claim, 'change'))}"))
            time.sleep(POLL_SECONDS)
            claim = client.get(f"/v1/claims/{segment(name)}")
    except KeyboardInterrupt:
        display.close()
        click.echo(f"\n{name} is placed without aimctl; see it with: aimctl describe claim {name}", err=True)
        raise
    finally:
        display.close()
    return claim


def environments_of(client: ApiClient, claim: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per assignment its replica, its partition and the variables as this process sees the node now."""
    found = []
    for assignment in items(claim, "assignments"):
        replica = required(assignment, "replica")
        answer = client.get(f"/v1/claims/{segment(text(claim, 'name'))}/environment?replica={replica}")
        found.append({"replica": replica, "partition": text(answer, "partition"), "environment": variables(answer)})
    return found


def shell_lines(claim: Mapping[str, Any], environments: list[dict[str, Any]]) -> str:
    """The places as comments and the first one's environment as exports, for `eval "$(aimctl claim ...)"`."""
    name, memory = text(claim, "name"), gigabytes("memory_gb")
    places = "".join(
        f"# {text(each, 'name')}: {text(each, 'partition_name')} ({text(each, 'partition')}), {memory(each)}\n"
        for each in items(claim, "assignments")
    )
    if not environments:
        return places
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in environments[0]["environment"].items())
    whose = f"replica {environments[0]['replica']}, " if len(environments) > 1 else ""
    return f"{places}# {whose}valid until the next mode switch on the node (aimctl exec {name} computes it anew):\n{exports}"


def report_pending(claim: Mapping[str, Any]) -> None:
    """Say on stderr why the claim waits."""
    name = text(claim, "name")
    click.echo(f"{name} is {text(claim, 'state')}: {text(claim, 'message')} ({text(claim, 'reason')})", err=True)
    click.echo(f"hint: it is placed as soon as there is room; give it up with: aimctl release {name}", err=True)


def _release_line(claim: Mapping[str, Any]) -> str:
    line = f"{text(claim, 'name')}: released"
    running = ", ".join(
        f"pid {text(each, 'pid')} ({text(each, 'command')})"
        for each in items(claim, "holders")
        if each.get("ended_at") is None
    )
    return f"{line}; still running: {running}" if running else line
