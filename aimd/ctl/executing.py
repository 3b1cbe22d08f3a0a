"""`aimctl exec`: become a claim's process. aimctl is replaced by the command, so that the pid stays the holder's."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from aimd.ctl.completing import claim_names
from aimd.ctl.environment import DEVICES, render_minor, render_minors, variables
from aimd.ctl.fencing import Scope, System, enter, run
from aimd.ctl.fields import required, text
from aimd.ctl.own import OwnClaim, hold, wait_option
from aimd.ctl.session import Session
from aimd.domain.scope import scope_name
from aimd.errors import DeniedError

COMMAND_LIMIT = 200  # characters that the daemon keeps
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells and env(1) have it

FENCED = "note: {claim} uses {partition} behind a device fence: {scope} allows /dev/kfd and this partition alone."
# The environment chooses a device, it does not fence the others.
IN_POD = "note: {claim} uses {partition} in pod {pod}: its container is the fence, there is no scope of its own."
UNFENCED = (
    "note: {claim} is to use {partition}, by its environment alone: {reason}. Without a fence, a process that uses HIP is a "
    "KFD client of every GPU that its device cgroup allows, and blocks their mode switches until it ends."
)


class _Exec(click.Command):
    """What follows `--` is the command, also where no NAME stands before it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        cut = args.index("--") if "--" in args else len(args)
        rest = super().parse_args(ctx, args[:cut])
        ctx.params["command"] = (*(ctx.params.get("command") or ()), *args[cut + 1 :])
        if not ctx.params["command"] and not ctx.resilient_parsing:
            raise click.UsageError("Missing argument '-- COMMAND...'.", ctx)
        return rest


@click.command(name="exec", cls=_Exec, context_settings={"ignore_unknown_options": False})
@click.argument("claim", metavar="[NAME]", required=False, shell_complete=claim_names)
@click.option("--replica", type=click.IntRange(min=0), help="Else the first that nobody holds; in a pod the pod's.")
@wait_option
@click.option(
    "--fence",
    type=click.Choice(["auto", "require", "none"]),
    default="auto",
    show_default=True,
    help="Allow no other GPU's device; `auto` goes without where that is not possible.",
)
@click.argument("command", metavar="-- COMMAND...", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def exec_(
    session: Session,
    claim: str | None,
    *,
    replica: int | None,
    wait: float | None,
    fence: str,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND as a process of the claim NAME, with the environment of its partition.

    The process is the claim's holder until it ends. Where the caller may (root, with systemd and cgroup v2), it runs in
    a scope of its own that can open no other GPU. In a pod NAME is left away: the claim is the pod's, and COMMAND waits
    until it is placed; the container is the fence there. Exit codes are COMMAND's; 127 if it is not found, 126 if it cannot
    be executed; 7 if the pod was not placed in time.
    """
    body: dict[str, object] = {"command": " ".join(command)[:COMMAND_LIMIT]}
    if replica is not None:
        body["replica"] = replica
    answer = OwnClaim(session.client, wait).held(body) if claim is None else hold(session.client, claim, body)
    note = fenced(answer, fence)
    environment = {**os.environ, **variables(answer)}  # behind the fence, where ordinals are others
    click.echo(note, err=True)
    become(command, environment)


def fenced(answer: Mapping[str, Any], fence: str, devices: Path = DEVICES) -> str:
    """Put this process behind the fence as far as that is wished and possible; what to tell the user of it.

    Raises:
        DeniedError: it is required and not possible.
    """
    claim, partition = text(answer, "claim"), text(answer, "partition")
    if answer.get("pod") is not None:
        reason = _open_to_container(answer, devices)
        note = IN_POD.format(claim=claim, partition=partition, pod=answer["pod"])
    else:
        scope = _scope(answer)
        note = FENCED.format(claim=claim, partition=partition, scope=scope.name) if isinstance(scope, Scope) else ""
        if fence == "none":
            reason = "--fence none asks for no fence"
        else:
            reason = scope if isinstance(scope, str) else enter(scope, System(run))
    if reason is None:
        return note
    if fence == "require":
        raise DeniedError(
            f"{claim} cannot be fenced off on {partition}: {reason}",
            code="no_fence",
            hint="--fence auto runs it by its environment alone",
        )
    return UNFENCED.format(claim=claim, partition=partition, reason=reason)


def _open_to_container(answer: Mapping[str, Any], devices: Path) -> str | None:
    """Which other GPUs the container may open, None if none: that it was given its own alone is its fence."""
    others = {minor for name, minor in render_minors(answer).items() if name != answer["partition"]}
    nodes = [devices / f"renderD{minor}" for minor in sorted(each for each in others if each is not None)]
    free = [str(node) for node in nodes if os.access(node, os.R_OK | os.W_OK)]
    if not free:
        return None
    return f"the container of pod {answer['pod']} may open {len(free)} render nodes of others, {free[0]} among them"


def _scope(answer: Mapping[str, Any]) -> Scope | str:
    """The scope for this process as the holder that the daemon knows, or why there is none."""
    claim, partition, holder = text(answer, "claim"), text(answer, "partition"), answer.get("holder")
    root = required(answer, "sysfs_root")
    if root is None:
        return "the node is simulated and has no devices"
    if os.path.realpath(str(root)) != "/sys":
        return "its GPUs are not those of this machine's /sys"
    pid, _, start_time = str(holder).partition(":")
    if pid != str(os.getpid()) or not start_time.isdigit():
        return "aimd does not know this process by its own number"
    minor = render_minor(str(root), partition)
    if minor is None:
        return "its render node is not known"
    return Scope(scope_name(claim, int(pid), int(start_time)), claim, int(pid), minor)


def become(command: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
    """Replace this process; ends it with 126 or 127 if that is not possible."""
    sys.stdout.flush()
    sys.stderr.flush()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what is ignored stays so in the command
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - the user's own command
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) or _is_nowhere(command[0], environment):
            click.echo(f"error: {command[0]}: command not found", err=True)
            sys.exit(NOT_FOUND)
        click.echo(f"error: {command[0]} cannot be executed: {getattr(error, 'strerror', None) or error}", err=True)
    sys.exit(NOT_EXECUTABLE)


def _is_nowhere(name: str, environment: dict[str, str]) -> bool:
    """As shells see it: a folder of PATH that may not be searched has nothing, and is no reason to blame the command."""
    return os.sep not in name and shutil.which(name, os.F_OK, environment.get("PATH", os.defpath)) is None
