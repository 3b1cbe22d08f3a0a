"""Entry of aimctl: global options, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from aimd.ctl import exits
from aimd.ctl.seconds import Seconds
from aimd.ctl.session import Session, report
from aimd.errors import AimdError
from aimd.exits import Exit

# Each command's module and name in it. A command line needs one of them, and starts faster without the others.
COMMANDS = {
    "apply": "layouts",
    "assert": "layouts.assert_",
    "claim": "claiming",
    "completion": "completing",
    "describe": "reading",
    "diff": "layouts",
    "doctor": "checking",
    "drain": "operating",
    "events": "reading",
    "exec": "executing.exec_",
    "export": "layouts",
    "gate": "gating",
    "get": "reading",
    "plan": "changing",
    "release": "claiming",
    "reload": "operating",
    "set-mode": "changing.set_mode",
    "top": "topping",
    "undrain": "operating",
    "version": "reading",
    "watch": "observing",
}


class _Program(click.Group):
    """The command line with errors reported; usage errors stay click's (exit code 2)."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(".")
        command = getattr(importlib.import_module(f"aimd.ctl.{module}"), name or cmd_name)
        assert isinstance(command, click.Command)
        return command

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
    type=Seconds(above_zero=True),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long the daemon may take to answer.",
)
@click.pass_context
def program(ctx: click.Context, socket: str | None, timeout: float) -> None:
    """See and change how this node's GPUs are partitioned, and who may use them.

    Exit codes: 0 ok, 1 refused, failed or differs, 2 usage, 3 daemon unreachable, 4 denied, 5 conflict or busy, 6 not
    found, 7 timeout.
    """
    ctx.obj = Session(socket, timeout)


def main() -> None:
    """Run aimctl; never returns."""
    program(prog_name="aimctl")
