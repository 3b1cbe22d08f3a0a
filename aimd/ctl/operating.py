"""drain and undrain: close GPUs for new claims and open them again. reload: have aimd read its configuration anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from aimd.ctl import exits
from aimd.ctl.client import ApiClient
from aimd.ctl.completing import gpu_names
from aimd.ctl.fields import flag, items, text, texts
from aimd.ctl.output import render
from aimd.ctl.session import Session, each_of, output_option, segment

Change = Callable[[str], dict[str, Any]]

gpus_argument = click.argument("gpus", metavar="GPU...", nargs=-1, required=True, shell_complete=gpu_names)


@click.command()
@gpus_argument
@output_option
@click.pass_context
def drain(context: click.Context, gpus: tuple[str, ...], fmt: str) -> None:
    """Close GPUs for new claims. What is placed there stays until it is released."""
    client = context.obj.client
    _set_all(context, gpus, fmt, lambda gpu: client.put(f"/v1/gpus/{segment(gpu)}/drain", {}))


@click.command()
@gpus_argument
@output_option
@click.pass_context
def undrain(context: click.Context, gpus: tuple[str, ...], fmt: str) -> None:
    """Open drained GPUs for claims again."""
    client = context.obj.client
    _set_all(context, gpus, fmt, lambda gpu: client.delete(f"/v1/gpus/{segment(gpu)}/drain"))


@click.command()
@output_option
@click.pass_obj
def reload(session: Session, fmt: str) -> None:
    """Have aimd read its configuration again. If it is not valid, the reason is shown and nothing changes."""
    answer = session.client.post("/v1/reload")
    changed, later = texts(answer, "changed"), texts(answer, "needs_restart")
    if fmt in ("json", "yaml"):
        click.echo(render("reload", answer, fmt), nl=False)
    elif fmt == "name":
        click.echo("".join(f"{setting}\n" for setting in changed), nl=False)
    else:
        click.echo(f"reloaded, {'changed: ' + ', '.join(changed) if changed else 'nothing has changed'}")
        if later:
            click.echo(f"these need a restart of aimd to take effect: {', '.join(later)}")
        for problem in texts(answer, "problems"):
            click.echo(f"warning: {problem}", err=True)


def _set_all(context: click.Context, gpus: tuple[str, ...], fmt: str, change: Change) -> None:
    """Change one GPU after the other; all are tried, the first error's exit code is the command's."""
    session: Session = context.obj
    answers, failure = each_of(gpus, change)
    if fmt not in ("table", "wide"):
        click.echo(render("gpus", {"gpus": answers}, fmt), nl=False)
    else:
        for gpu in answers:
            click.echo(_drain_line(session.client, gpu))
    context.exit(0 if failure is None else exits.of_error(failure))


def _drain_line(client: ApiClient, gpu: dict[str, Any]) -> str:
    name = text(gpu, "name")
    if not flag(gpu, "draining"):
        return f"{name}: open for claims"
    placed = [
        text(each, "name")
        for each in items(client.get("/v1/assignments"), "assignments")
        if text(each, "pci_address") == text(gpu, "pci_address")
    ]
    return f"{name}: draining, {'still there: ' + ', '.join(placed) if placed else 'nothing is placed there'}"
