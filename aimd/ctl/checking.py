"""`aimctl doctor`: what is not as it should be, and what to do about it; with the daemon, or without it on any node."""

from __future__ import annotations

import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click

import aimd
from aimd.ctl import exits
from aimd.ctl.client import ApiClient, ProblemError
from aimd.ctl.examination import Answers, examine
from aimd.ctl.fields import item, items, required, shown, text
from aimd.ctl.output import render
from aimd.ctl.reading import past_events
from aimd.ctl.session import output_option
from aimd.doctor.finding import FAIL, Finding
from aimd.errors import UnreachableError
from aimd.exits import Exit

SYSTEM = Path("/sys")
NOT_ASKED = "off"  # state of a ProbeMessage


@click.command()
@click.option("--preflight", is_flag=True, help="Without the daemon: look at driver, permissions and processes.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="With --preflight: instead of /sys, a mounted simulation or a captured tree.",
)
@click.option(
    "--probe", type=click.Choice(["live", "ready"]), help="Only whether the daemon is: for the probes of a container."
)
@output_option
@click.pass_context
def doctor(context: click.Context, *, preflight: bool, root: Path | None, probe: str | None, fmt: str) -> None:
    """Look the node over; exit code 1 if anything fails."""
    if root is not None and not preflight:
        raise click.UsageError("--root goes with --preflight")
    if probe is not None:
        if preflight:
            raise click.UsageError("--probe asks the daemon, --preflight does not")
        context.exit(probed(context.obj.client, probe))
    code = Exit.OK
    if preflight:
        found = preflight_findings(root or SYSTEM)
    else:
        try:
            answers = ask(context.obj.client)
            found = examine(answers) + access_findings(answers) + _of_units(answers)
        except UnreachableError as error:
            if error.code != UnreachableError.code:
                raise
            hint = f"{error.hint}; without it: aimctl doctor --preflight" if error.hint else None
            found, code = [Finding(FAIL, "daemon", error.message, hint), *of_units()], exits.of_error(error)
    click.echo(findings_text(found, fmt), nl=False)
    context.exit(code or (Exit.REFUSED if any(each.result == FAIL for each in found) else Exit.OK))


def probed(client: ApiClient, probe: str) -> Exit:
    """Whether the daemon is `live` or `ready`, and what is not so on standard output, which a kubelet repeats."""
    failing = required(client.health("/healthz" if probe == "live" else "/readyz"), "failing")
    for name, reason in failing.items():
        click.echo(f"{name}: {shown(str(reason))}")
    return Exit.REFUSED if failing else Exit.OK


def ask(client: ApiClient) -> Answers:
    """All that the daemon can tell; raises like ApiClient.get."""
    return Answers(
        version=aimd.__version__,
        now=time.time(),
        health=client.health("/healthz"),
        readiness=client.health("/readyz"),
        node=client.get("/v1/node"),
        inventory=client.get("/v1/gpus"),
        memory=client.get("/v1/findings"),
        claims=client.get("/v1/claims"),
        plans=client.get("/v1/plans"),
        events=past_events(client, 0),
        cluster=_cluster(client),
    )


def _cluster(client: ApiClient) -> dict[str, Any] | None:
    """None: the daemon runs on from before an upgrade, which another finding tells."""
    try:
        return client.get("/v1/cluster")
    except ProblemError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return None


def preflight_findings(root: Path) -> list[Finding]:
    """The findings of the node below this sysfs root."""
    from aimd.doctor.files import OsFiles  # noqa: PLC0415 - a doctor who asks the daemon does not need them
    from aimd.doctor.preflight import findings  # noqa: PLC0415
    from aimd.doctor.reading import read_facts  # noqa: PLC0415

    return findings(read_facts(OsFiles(root), root)) + (of_units() if root.resolve() == SYSTEM else [])


def access_findings(answers: Answers) -> list[Finding]:
    """What this process may use of the machine; nothing where the daemon's node is a simulated one."""
    if required(answers.node, "simulated") is not None:
        return []
    from aimd.doctor.files import OsFiles  # noqa: PLC0415 - see above
    from aimd.doctor.preflight import access  # noqa: PLC0415
    from aimd.doctor.reading import read_facts  # noqa: PLC0415

    return access(read_facts(OsFiles(SYSTEM), SYSTEM), hip=_asks_hip(items(answers.inventory, "gpus")))


def _asks_hip(gpus: list[dict[str, Any]]) -> bool:
    """Whether the daemon misses a library that is not there: `memory_probe = "off"` wants none, as in an image."""
    states = [None if required(gpu, "probe") is None else text(item(gpu, "probe"), "state") for gpu in gpus]
    return states.count(NOT_ASKED) < max(1, len(gpus))


def of_units() -> list[Finding]:
    """What systemd tells of the daemon's units on this machine."""
    from aimd.doctor.commands import run  # noqa: PLC0415 - see above
    from aimd.doctor.unit_reading import read_unit  # noqa: PLC0415
    from aimd.doctor.units import unit_findings  # noqa: PLC0415

    return unit_findings(read_unit(run))


def _of_units(answers: Answers) -> list[Finding]:
    """Of a simulated node's daemon, which somebody started for a try, there is nothing to tell."""
    return of_units() if required(answers.node, "simulated") is None else []


def findings_text(found: list[Finding], fmt: str) -> str:
    """A line per finding: `warn  gpu0: message -> what to do`; or one of the other formats."""
    if fmt not in ("table", "wide"):
        return render("findings", {"findings": [finding._asdict() for finding in found]}, fmt)
    return "".join(
        f"{each.result:<4}  {shown(each.check)}: {shown(each.message)}{f' -> {shown(each.hint)}' if each.hint else ''}\n"
        for each in found
    )
