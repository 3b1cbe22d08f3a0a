"""Lists that go on: `get ... --watch` and `events --watch` print a line for everything that comes, until interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import click

from aimd.ctl.client import ApiClient
from aimd.ctl.columns import EVENTS, Column
from aimd.ctl.fields import item, items, text
from aimd.ctl.output import KINDS, render
from aimd.ctl.session import segment
from aimd.ctl.slo_columns import has_objective
from aimd.errors import UnreachableError

Object = Mapping[str, Any]
Selection = Callable[[Object], bool]

# Widths that a stream's table begins with, by header: it cannot know the cells to come, and grows where they are wider.
WIDTHS = {
    "TYPE": 8,
    "SEQUENCE": 8,
    "TIME": 20,
    "SUBJECT": 12,
    "OBJECT": 20,
    "KIND": 24,
    "QOS": 6,
    "NAME": 12,
    "STATE": 19,
    "PLACES": 12,
    "MODES": 16,
    "CREATED": 20,
    "MEMORY": 7,
    "GOOD": 8,
    "BURN-1H": 7,
    "MOSTLY": 8,
}


class StreamTable:
    """Lines of one table that come one by one."""

    def __init__(self, columns: Iterable[Column], *, wide: bool) -> None:
        self._columns = [column for column in columns if (column.wide if wide else column.narrow)]
        self._widths = [max(len(column.header), WIDTHS.get(column.header, 0)) for column in self._columns]

    def header(self) -> str:
        return self._line([column.header for column in self._columns])

    def row(self, each: Object) -> str:
        return self._line([column.cell(each) for column in self._columns])

    def _line(self, cells: list[str]) -> str:
        self._widths = [max(width, len(cell)) for width, cell in zip(self._widths, cells, strict=True)]
        return "   ".join(cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True)).rstrip()


def watch_events(client: ApiClient, since: int, subject: str | None, fmt: str) -> NoReturn:
    """Print the events after `since`, of all subjects or one, as they happen; raises UnreachableError at the end."""
    about = events_about(client, subject)
    chosen = (event for event in client.stream(f"/v1/events?since={since}&watch=1") if about(event))
    _print(chosen, "event", EVENTS, fmt)


def events_about(client: ApiClient, subject: str | None) -> Selection:
    """Which events NAME means: those of a GPU tell its PCI address, whatever it is called here. Raises like get."""
    if subject is None:
        return lambda _: True
    gpus = items(client.get("/v1/gpus"), "gpus")
    names = {subject, *(text(gpu, "pci_address") for gpu in gpus if text(gpu, "name") == subject)}
    return lambda event: text(event, "subject") in names


def watch_objects(client: ApiClient, kind: str, name: str | None, fmt: str) -> NoReturn:
    """Print the objects of a kind and then every change of them; raises UnreachableError at the end.

    A line of the stream is `{"type": "ADDED"|"MODIFIED"|"DELETED", "generation": N, "object": {...}}`. `slo` is the
    stream of models without those that have no objective.
    """
    selected = selection(client, kind, name)
    path = "models" if kind == "slo" else kind
    chosen = (change for change in client.stream(f"/v1/{path}?watch=1") if selected(item(change, "object")))
    inner = KINDS[kind].columns
    columns = (
        Column("TYPE", lambda change: text(change, "type")),
        *(Column(each.header, _of_object(each), each.narrow, each.wide) for each in inner),
    )
    _print(chosen, kind, columns, fmt)


def selection(client: ApiClient, kind: str, name: str | None) -> Selection:
    """Which objects NAME means; a GPU is asked for, since it has several names. Raises like ApiClient.get."""
    if kind == "slo":
        return lambda each: has_objective(each) and name in (None, text(each, "name"))
    if name is None:
        return lambda _: True
    if kind in ("gpus", "partitions"):
        gpu, _, index = name.partition("/") if kind == "partitions" else (name, "", "")
        known = text(client.get(f"/v1/gpus/{segment(gpu)}"), "name")
        if kind == "partitions" and not index:
            return lambda each: text(each, "gpu") == known
        return lambda each: text(each, "name") == (f"{known}/{index}" if index else known)
    if kind == "assignments":
        return lambda each: name in (text(each, "name"), text(each, "claim"))
    return lambda each: text(each, "name") == name


def _of_object(column: Column) -> Callable[[Object], str]:
    return lambda change: column.cell(item(change, "object"))


def _print(stream: Iterable[Object], kind: str, columns: tuple[Column, ...], fmt: str) -> NoReturn:
    lines = StreamTable(columns, wide=fmt == "wide")
    if fmt in ("table", "wide"):
        click.echo(lines.header())
    for each in stream:
        if fmt == "json":
            click.echo(json.dumps(each))
        elif fmt == "yaml":
            click.echo("---\n" + render(kind, each, "yaml").rstrip("\n"))
        elif fmt == "name":
            click.echo(text(each, "sequence") if kind == "event" else text(item(each, "object"), "name"))
        else:
            click.echo(lines.row(each))
    raise UnreachableError("aimd ended the stream", hint="it was stopped or restarted: aimctl version")
