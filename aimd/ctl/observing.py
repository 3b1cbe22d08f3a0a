"""`aimctl watch`: a line for every change of the node, until interrupted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue

import click

from aimd.ctl.client import ApiClient
from aimd.ctl.columns import Column, field
from aimd.ctl.fields import UNKNOWN, number, text
from aimd.ctl.output import KINDS
from aimd.ctl.reading import SINGULARS, past_events
from aimd.ctl.session import Session
from aimd.ctl.sources import Change, Events, Objects, Source, followed
from aimd.ctl.tables import moment
from aimd.ctl.watching import StreamTable
from aimd.errors import AimdError

WATCHED = ("gpus", "partitions", "claims", "plans", "events")
COLUMNS = (Column("TIME", field("time")), Column("OBJECT", field("object")), Column("CHANGE", field("change")))
UNTOLD = ("NAME", "MEMORY-BYTES")  # of the line already, or told by MEMORY
LOST, REACHED = "aimd is gone; its changes are told when it is there again", "aimd is there again"


@click.command()
@click.argument("what", metavar=f"[{'|'.join(WATCHED)}|all]", type=click.Choice([*WATCHED, "all"]), default="all")
@click.option(
    "-o",
    "--output",
    "fmt",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Output format; `json` has a line for each change with the whole object.",
)
@click.pass_obj
def watch(session: Session, what: str, *, fmt: str) -> None:
    """Print a line for every change from now on, until interrupted.

    Restarts of the daemon are waited for, and what changed meanwhile is told then.
    """
    lines = StreamTable(COLUMNS, wide=False)
    if fmt == "table":
        click.echo(lines.header())
    for change in changes(session.client, WATCHED if what == "all" else (what,)):
        if fmt == "json":
            click.echo(json.dumps(as_message(change)))
        elif (words := in_words(change)) is not None:
            at = number(change.object, "at") if change.kind == "events" else time.time()
            name = text(change.object, "subject" if change.kind == "events" else "name")
            click.echo(lines.row({"time": moment(at), "object": f"{SINGULARS[change.kind]} {name}", "change": words}))


def changes(client: ApiClient, kinds: tuple[str, ...]) -> Iterator[Change]:
    """The changes of several lists as they come, without end; each list has a connection and a thread.

    Raises:
        AimdError: like `followed`, for the first of them that raises.
    """
    queue: SimpleQueue[tuple[str, Change | AimdError | bool]] = SimpleQueue()

    def follow(kind: str) -> None:
        source: Source = Objects(client, kind)
        if kind == "events":
            source = Events(client, lambda: int(past_events(client, 0)["next"]))
        try:
            for change in followed(source, lambda: queue.put((kind, True)), lambda: queue.put((kind, False))):
                queue.put((kind, change))
        except AimdError as error:
            queue.put((kind, error))

    for kind in kinds:
        threading.Thread(target=follow, args=(kind,), daemon=True).start()
    lost: set[str] = set()
    while True:
        kind, told = queue.get()
        if isinstance(told, AimdError):
            raise told
        if isinstance(told, Change):
            yield told
            continue
        before = bool(lost)
        (lost.discard if told else lost.add)(kind)
        if before != bool(lost):
            click.echo(LOST if lost else REACHED, err=True)


def as_message(change: Change) -> dict[str, object]:
    """The line of `-o json`: as in the API's watches, with the kind."""
    return {
        "kind": SINGULARS[change.kind],
        "type": change.type,
        "generation": change.generation,
        "object": change.object,
    }


def in_words(change: Change) -> str | None:
    """What is other than before, None for what no table shows: `mode SPX/NPS1 -> CPX/NPS1, partitions 1 -> 8`."""
    if change.kind == "events":
        return f"{text(change.object, 'kind')}: {text(change.object, 'message')}"
    if change.type == "DELETED":
        return "gone"
    columns = [column for column in KINDS[change.kind].columns if column.wide and column.header not in UNTOLD]
    if change.before is None:
        shown = [(column, column.cell(change.object)) for column in columns if column.narrow]
        return "new: " + ", ".join(f"{column.header.lower()} {cell}" for column, cell in shown if cell != UNKNOWN)
    differing = [(column.header.lower(), column.cell(change.before), column.cell(change.object)) for column in columns]
    return ", ".join(f"{header} {was} -> {now}" for header, was, now in differing if was != now) or None
