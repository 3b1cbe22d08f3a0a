"""The commands about mode changes: `plan set-mode` asks what would happen, `set-mode` has it done and follows."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from aimd.ctl import exits
from aimd.ctl.client import AnswerTimeoutError, ApiClient
from aimd.ctl.completing import wishes as completed_wishes
from aimd.ctl.fields import flag, items
from aimd.ctl.following import display_for, result_lines
from aimd.ctl.output import refusal_lines
from aimd.ctl.seconds import Seconds
from aimd.ctl.session import Session, output_option, segment, show
from aimd.errors import UnreachableError

wishes_argument = click.argument(
    "wishes", metavar="GPU MODE [GPU MODE]...", nargs=-1, required=True, shell_complete=completed_wishes
)
wait_option = click.option(
    "--wait",
    type=Seconds(),
    metavar="SECONDS",
    help="How long each step may wait for the GPU's users to leave.",
)
drain_option = click.option(
    "--drain",
    is_flag=True,
    help="Also GPUs with claims: their processes are waited for (never signalled), then the claims are placed again.",
)
no_follow_option = click.option(
    "--no-follow", is_flag=True, help="Return as soon as the daemon has taken the change on."
)


@click.group()
def plan() -> None:
    """Show what a change would do, and what would be in its way; nothing is changed."""


@plan.command("set-mode")
@wishes_argument
@drain_option
@output_option
@click.pass_context
def plan_set_mode(context: click.Context, wishes: tuple[str, ...], *, drain: bool, fmt: str) -> None:
    """Show the steps of a mode change, the processes it would wait for, and what is refused.

    MODE is COMPUTE/MEMORY or one of both, for example CPX/NPS1.
    """
    session: Session = context.obj
    body = {"modes": modes_by_gpu(wishes), "drain": drain, "dry_run": True}
    answer = session.client.put(f"/v1/plans/{new_name('plan')}", body)
    show("dry-run", answer, fmt)
    if fmt == "name":
        click.echo(refusal_lines(items(answer, "refusals")), err=True, nl=False)
    context.exit(exits.of_plan(answer))


@click.command("set-mode")
@wishes_argument
@wait_option
@drain_option
@click.option("--name", help="Name of the change; the same name and modes again are the same change.")
@no_follow_option
@output_option
@click.pass_context
def set_mode(
    context: click.Context,
    wishes: tuple[str, ...],
    *,
    wait: float | None,
    drain: bool,
    name: str | None,
    no_follow: bool,
    fmt: str,
) -> None:
    """Switch GPUs to partition modes, as one transaction.

    MODE is COMPUTE/MEMORY or one of both, for example CPX/NPS1.
    """
    session: Session = context.obj
    name = new_name("set-mode") if name is None else name
    change = submit(session.client, name, modes_by_gpu(wishes), wait=wait, drain=drain, no_follow=no_follow)
    show_change(change, fmt)
    context.exit(exits.of_change(change))


def submit(
    client: ApiClient, name: str, modes: dict[str, str], *, wait: float | None, drain: bool, no_follow: bool
) -> dict[str, Any]:
    """Ask for a change and follow it to its end (or not); returns its last state. Raises like ApiClient.put."""
    body = {"modes": modes, "wait_seconds": wait, "drain": drain, "dry_run": False}
    try:
        change = client.put(f"/v1/plans/{segment(name)}", body)
    except AnswerTimeoutError as error:  # the daemon may have taken it on: without its name nobody would find it
        error.hint = f"it may have been taken on all the same; see it with: aimctl describe plan {name}"
        raise
    return change if no_follow or flag(change, "final") else follow(client, name)


def show_change(change: Mapping[str, Any], fmt: str) -> None:
    """Print how a change ended, or where it stands."""
    if fmt in ("table", "wide"):
        click.echo(result_lines(change), nl=False)
    else:
        show("plan", change, fmt)


def follow(client: ApiClient, name: str) -> dict[str, Any]:
    """Show the change until it has ended, and return its last state.

    Raises:
        UnreachableError: the stream ended before the change did.
    """
    gone = UnreachableError(
        f"aimd went away before {name} had ended",
        hint=f"a restarted daemon resumes it or rolls it back; see it with: aimctl describe plan {name}",
    )
    display = display_for(sys.stderr, os.environ)
    try:
        for change in client.stream(f"/v1/plans/{segment(name)}?watch=1"):
            display.show(change)
            if flag(change, "final"):
                return change
    except KeyboardInterrupt:
        display.close()
        click.echo(f"\n{name} goes on without aimctl; see it with: aimctl describe plan {name}", err=True)
        raise
    except UnreachableError as cause:
        if cause.code != UnreachableError.code:
            raise
        raise gone from cause
    finally:
        display.close()
    raise gone


def modes_by_gpu(wishes: tuple[str, ...]) -> dict[str, str]:
    """The modes by GPU as the command line pairs them; raises click.UsageError where it does not."""
    if len(wishes) % 2:
        raise click.UsageError(f"GPU and MODE come in pairs, {wishes[-1]!r} is alone; for example: gpu0 CPX/NPS1")
    gpus, modes = wishes[::2], wishes[1::2]
    twice = next((gpu for place, gpu in enumerate(gpus) if gpu in gpus[:place]), None)
    if twice is not None:
        raise click.UsageError(f"{twice} is named twice")
    return dict(zip(gpus, modes, strict=True))


def new_name(kind: str) -> str:
    """A name that no other client chooses."""
    return f"{kind}-{os.urandom(6).hex()}"
