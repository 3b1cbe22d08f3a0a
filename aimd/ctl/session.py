"""What the commands share: where the daemon is, the option for the output format, and printing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import click

from aimd.ctl.client import ApiClient, ProblemError
from aimd.ctl.fields import flag, items, shown, text, texts
from aimd.ctl.output import FORMATS, refusal_lines, render
from aimd.errors import AimdError, InvalidInputError
from aimd.rundirs import client_socket

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Session:
    """The global options of one invocation."""

    socket_option: str | None
    timeout_seconds: float

    @property
    def client(self) -> ApiClient:
        """The daemon's API; raises InvalidInputError where the socket's place is unknown."""
        path = client_socket(os.environ, os.getuid(), option=self.socket_option)
        return ApiClient(path, self.timeout_seconds)


def output_option(command: Command) -> Command:
    """`-o FORMAT`, handed to the command as `fmt`."""
    option = click.option(
        "-o", "--output", "fmt", type=click.Choice(FORMATS), default="table", show_default=True, help="Output format."
    )
    return option(command)


def show(kind: str, payload: Mapping[str, Any], fmt: str) -> None:
    """Print an answer; the daemon's warnings go to stderr, where a pipe does not meet them."""
    click.echo(render(kind, payload, fmt), nl=False)
    if fmt in ("table", "wide") and kind in ("gpus", "node"):
        for warning in texts(payload, "warnings"):
            click.echo(f"warning: {warning}", err=True)


def each_of(
    names: Iterable[str], ask: Callable[[str], dict[str, Any]]
) -> tuple[list[dict[str, Any]], AimdError | None]:
    """The answers for the names that went well, and the first error; every error is reported as it comes."""
    answers, first = [], None
    for name in names:
        try:
            answers.append(ask(name))
        except AimdError as error:
            report(error)
            first = first or error
    return answers, first


def report(error: AimdError) -> None:
    """Print an error to stderr: one sentence, what refused or blocks it, and what to do."""
    click.echo(f"error: {shown(error.message)}", err=True)
    if isinstance(error, ProblemError):
        click.echo(refusal_lines(error.refusals), err=True, nl=False)
        for blocker in error.blockers:
            click.echo(f"blocked by: {blocker_line(blocker)}", err=True)
        if error.hint in [refusal["hint"] for refusal in error.refusals]:
            return  # it stands below the wish that it is about
    if error.hint:
        click.echo(f"hint: {shown(error.hint)}", err=True)


def blocker_line(blocker: Mapping[str, Any]) -> str:
    """`pid 4711 (python3) holds gpu0`, or why a process that holds another GPU is in the way."""
    process, gpu = f"pid {text(blocker, 'pid')} ({text(blocker, 'command')})", text(blocker, "gpu")
    if flag(blocker, "node_wide"):
        return f"{process} holds another GPU, which blocks {gpu} too with this driver"
    return f"{process} holds {gpu}"


def blocker_lines(change: Mapping[str, Any]) -> list[str]:
    return [blocker_line(blocker) for blocker in items(change, "blockers")]


def segment(name: str) -> str:
    """A name as one segment of a path.

    Raises:
        InvalidInputError: the name would become another path.
    """
    if name in ("", ".", ".."):
        raise InvalidInputError(f"{name!r} names nothing, expected a name such as gpu0")
    return quote(name, safe=":")
