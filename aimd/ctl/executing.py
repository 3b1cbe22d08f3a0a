"""`aimctl exec`: become a claim's process. aimctl is replaced by the command, so that the pid stays the holder's."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

import click

from aimd.ctl.completing import claim_names
from aimd.ctl.environment import variables
from aimd.ctl.fields import text
from aimd.ctl.session import Session, segment

COMMAND_LIMIT = 200  # characters that the daemon keeps
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells and env(1) have it

# The environment chooses a device, it does not fence the others: whoever opens /dev/kfd is a client of each GPU that
# its device cgroup allows, until it ends, and the driver switches no GPU with a client.
NOTE = (
    "note: {claim} is to use {partition}. The environment alone does not fence it off: a process that uses HIP is a KFD "
    "client of every GPU that its device cgroup allows, and blocks their mode switches until it ends."
)


@click.command(name="exec", context_settings={"ignore_unknown_options": False})
@click.argument("claim", metavar="NAME", shell_complete=claim_names)
@click.option("--replica", type=click.IntRange(min=0), help="Else the first that nobody holds.")
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_(session: Session, claim: str, *, replica: int | None, command: tuple[str, ...]) -> None:
    """Run COMMAND as a process of the claim NAME, with the environment of its partition.

    The process is the claim's holder until it ends. Exit codes are COMMAND's; 127 if it is not found, 126 if it cannot
    be executed.
    """
    path = f"/v1/claims/{segment(claim)}/holders/{os.getpid()}"
    body: dict[str, object] = {"command": " ".join(command)[:COMMAND_LIMIT]}
    answer = session.client.put(path, body if replica is None else {**body, "replica": replica})
    environment = {**os.environ, **variables(answer)}
    click.echo(NOTE.format(claim=text(answer, "claim"), partition=text(answer, "partition")), err=True)
    become(command, environment)


def become(command: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
    """Replace this process; ends it with 126 or 127 if that is not possible."""
    sys.stdout.flush()
    sys.stderr.flush()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what is ignored stays so in the command
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - the user's own command
    except FileNotFoundError:
        click.echo(f"error: {command[0]}: command not found", err=True)
        code = NOT_FOUND
    except (OSError, ValueError) as error:
        click.echo(f"error: {command[0]} cannot be executed: {getattr(error, 'strerror', None) or error}", err=True)
        code = NOT_EXECUTABLE
    sys.exit(code)
