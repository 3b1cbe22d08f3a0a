"""Entry of aimctl: global options, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from aimd.ctl import changing, exits, reading
from aimd.ctl.exits import Exit
from aimd.ctl.session import Session, report
from aimd.errors import AimdError


class _Program(click.Group):
    """The command line with errors reported; usage errors stay click's (exit code 2)."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:  # aimctl ... >&-
                sys.stdout.flush()
        except AimdError as error:
            report(error)
            ctx.exit(exits.of_error(error))
        except KeyboardInterrupt:
            ctx.exit(Exit.INTERRUPTED)
        except BrokenPipeError:
            _discard_output()
            ctx.exit(Exit.PIPE_CLOSED)
        except OSError as error:  # the client's errors have left as AimdError: this is the output
            _discard_output()
            click.echo(f"error: the output could not be written: {error.strerror or error}", err=True)
            ctx.exit(Exit.REFUSED)
        return result


def _discard_output() -> None:
    """Send what is still buffered nowhere, or the interpreter's own flush fails once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket", metavar="PATH", help="The daemon's socket; else AIMD_SOCKET, else the default runtime directory."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long the daemon may take to answer.",
)
@click.pass_context
def program(ctx: click.Context, socket: str | None, timeout: float) -> None:
    """See and change how this node's GPUs are partitioned.

    Exit codes: 0 ok, 1 refused or failed, 2 usage, 3 daemon unreachable, 4 denied, 5 conflict or busy, 6 not found,
    7 timeout.
    """
    ctx.obj = Session(socket, timeout)


program.add_command(reading.get)
program.add_command(reading.describe)
program.add_command(reading.events)
program.add_command(reading.version)
program.add_command(changing.plan)
program.add_command(changing.set_mode)


def main() -> None:
    """Run aimctl; never returns."""
    program(prog_name="aimctl")
