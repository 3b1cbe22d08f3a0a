"""`aimctl top`: the models as they are now, again and again on a terminal, once or as lines elsewhere."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from aimd.ctl.client import ApiClient
from aimd.ctl.columns import table
from aimd.ctl.seconds import Seconds
from aimd.ctl.session import Session
from aimd.ctl.terminal import Keys, on_terminal
from aimd.ctl.top_rows import ORDERS, columns_of, rows_of
from aimd.errors import AimdError, UnreachableError

PATIENCE_SECONDS = 3.0  # between two looks at the keys: a daemon that hangs must not make top hang
QUIT = "q\x04"  # Ctrl-C is a signal


@click.command()
@click.option(
    "--sort",
    "order",
    type=click.Choice(list(ORDERS)),
    default="waiting",
    show_default=True,
    help="What is sorted by, the largest first; names from a to z.",
)
@click.option("--partitions", is_flag=True, help="A row for each partition of a model.")
@click.option(
    "--interval",
    type=Seconds(at_least=0.2),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often the daemon is asked; it takes samples every two seconds.",
)
@click.option("--once", is_flag=True, help="Show it once, also on a terminal.")
@click.option(
    "-o",
    "--output",
    "fmt",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="json: all that is known, a line (NDJSON) at each interval until interrupted, or with --once one.",
)
@click.pass_obj
def top(session: Session, order: str, *, partitions: bool, interval: float, once: bool, fmt: str) -> None:
    """Show the models live: requests that run and wait, grants per second, latencies, burn rates.

    On a terminal a full screen, which q or Ctrl-C ends; elsewhere one table. Rates and latencies are of the last minute,
    BURN-1H is how many times faster than its objective allows a model used up its error budget in the last hour.
    """
    client = session.client
    if fmt == "json":
        lines(client, interval, once=once)
    elif once or not on_terminal():
        answer = client.get("/v1/models")
        rows = [dict(each) for each in rows_of(answer, order, partitions=partitions)]
        click.echo(table(columns_of(partitions=partitions), rows), nl=False)
    else:
        live(client, interval, order, partitions=partitions)


def lines(client: ApiClient, interval: float, *, once: bool) -> None:
    """An answer a line, until interrupted or the daemon goes away."""
    while True:
        click.echo(json.dumps(client.get("/v1/models")))
        if once:
            return
        time.sleep(interval)


def live(client: ApiClient, interval: float, order: str, *, partitions: bool) -> None:
    """Draw answers until a key ends it. Raises like ApiClient.get while there is none; later it is shown and retried."""
    from aimd.ctl.top_screen import Screen  # noqa: PLC0415 - it needs rich

    client = ApiClient(client.socket_path, min(PATIENCE_SECONDS, client.timeout_seconds))
    orders = {each.key: name for name, each in ORDERS.items()}
    answer, trouble = client.get("/v1/models"), None
    with Keys().listening() as keys, Screen() as screen:
        due = time.monotonic() + interval
        while True:
            screen.draw(answer, order, partitions=partitions, trouble=trouble)
            typed = keys.typed(due - time.monotonic())
            for key in typed:
                if key in QUIT:
                    return
                order = orders.get(key, order)
                partitions = partitions ^ (key == "p")
            if time.monotonic() >= due:
                answer, trouble = _asked(client, answer)
                due = time.monotonic() + interval


def _asked(client: ApiClient, before: dict[str, Any]) -> tuple[dict[str, Any], AimdError | None]:
    """A new answer, or the one before and why it is that. Raises what trying again does not help against."""
    try:
        return client.get("/v1/models"), None
    except AimdError as error:
        if isinstance(error, UnreachableError) and error.code != UnreachableError.code:
            raise
        return before, error
