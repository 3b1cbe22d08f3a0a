"""The commands that only look: get, describe, events, version."""

from __future__ import annotations

import json
from typing import Any

import click

import aimd
from aimd.ctl.client import ApiClient
from aimd.ctl.columns import EVENTS
from aimd.ctl.describe import describe as described
from aimd.ctl.fields import items, number, required, text
from aimd.ctl.output import render
from aimd.ctl.session import Session, output_option, segment, show
from aimd.errors import AimdError, InvalidInputError, UnreachableError

# The table of a stream cannot know its widest cell: these widths fit what aimd writes, longer cells push the rest.
EVENT_WIDTHS = {"SEQUENCE": 8, "TIME": 20, "SUBJECT": 12, "KIND": 24}

SINGULARS = {"gpus": "gpu", "partitions": "partition", "plans": "plan", "events": "events", "node": "node"}


@click.command()
@click.argument(
    "what",
    metavar="gpus|partitions|plans|events|node",
    type=click.Choice([*SINGULARS, "gpu", "partition", "plan", "event"]),
)
@click.argument("name", required=False)
@output_option
@click.pass_obj
def get(session: Session, what: str, name: str | None, fmt: str) -> None:
    """List objects, or show the one called NAME.

    NAME is gpu0 or a PCI address, gpu0/3 for a partition (gpu0 for all of a GPU's), the name of a plan, or the subject
    of events.
    """
    kinds = {singular: kind for kind, singular in SINGULARS.items()} | {"event": "events"}
    kind = kinds.get(what, what)
    client = session.client
    if kind == "events":
        answer = past_events(client, 0)
        if name is not None:
            answer["events"] = [event for event in answer["events"] if text(event, "subject") == name]
    elif kind == "node" and name is not None:
        raise click.UsageError("there is one node, it takes no name")
    elif kind == "partitions" and name is not None and "/" not in name:
        gpu = client.get(f"/v1/gpus/{segment(name)}")
        answer = {"partitions": required(gpu, "partitions")}
    elif name is not None:
        kind, answer = SINGULARS[kind], client.get(object_path(kind, name))
    else:
        answer = client.get(f"/v1/{kind}")
    show(kind, answer, fmt)


@click.command()
@click.argument("what", metavar="gpu|partition|plan", type=click.Choice(["gpu", "partition", "plan"]))
@click.argument("name")
@output_option
@click.pass_obj
def describe(session: Session, what: str, name: str, fmt: str) -> None:
    """Show all that is known of one GPU, partition or plan."""
    answer = session.client.get(object_path(f"{what}s", name))
    if fmt in ("table", "wide"):
        click.echo(described(what, answer), nl=False)
    else:
        show(what, answer, fmt)


@click.command()
@click.option(
    "--since", type=click.IntRange(min=0), default=0, show_default=True, help="Only events after this number."
)
@click.option("--watch", is_flag=True, help="Go on with new events as they happen, until interrupted.")
@output_option
@click.pass_obj
def events(session: Session, since: int, watch: bool, fmt: str) -> None:
    """Show what happened on the node."""
    if not watch:
        show("events", past_events(session.client, since), fmt)
        return
    if fmt in ("table", "wide"):
        click.echo(event_line(None, wide=fmt == "wide"))
    for event in session.client.stream(f"/v1/events?since={since}&watch=1"):
        click.echo(streamed_event(event, fmt))
    raise UnreachableError("aimd ended the stream of events", hint="it was stopped or restarted: aimctl version")


def past_events(client: ApiClient, since: int) -> dict[str, Any]:
    """All events after `since` as one EventListMessage; the daemon gives them in pages of a size of its choice."""
    events: list[dict[str, Any]] = []
    while True:
        page = client.get(f"/v1/events?since={since}")
        following = number(page, "next")
        events += items(page, "events")
        if not items(page, "events") or following is None or following <= since:
            return {"events": events, "next": since if following is None else max(int(following), since)}
        since = int(following)


def object_path(kind: str, name: str) -> str:
    """Path of one object; raises InvalidInputError where a partition's name has no index."""
    if kind != "partitions":
        return f"/v1/{kind}/{segment(name)}"
    gpu, _, index = name.rpartition("/")
    if not (gpu and index.isascii() and index.isdigit()):
        raise InvalidInputError(f"{name!r} is no partition, expected GPU/INDEX", hint="for example gpu0/3")
    return f"/v1/partitions/{segment(gpu)}/{index}"


def streamed_event(event: dict[str, Any], fmt: str) -> str:
    """One event of a stream: a line, or a document of its own in yaml."""
    if fmt == "json":
        return json.dumps(event)
    if fmt == "yaml":
        return "---\n" + render("event", event, "yaml").rstrip("\n")
    if fmt == "name":
        return text(event, "sequence")
    return event_line(event, wide=fmt == "wide")


def event_line(event: dict[str, Any] | None, *, wide: bool) -> str:
    """A table's line for an event, or its header for None."""
    cells = [
        (column.header if event is None else column.cell(event)).ljust(EVENT_WIDTHS.get(column.header, 0))
        for column in EVENTS
        if (column.wide if wide else column.narrow)
    ]
    return "   ".join(cells).rstrip()


@click.command()
@output_option
@click.pass_obj
def version(session: Session, fmt: str) -> None:
    """Show the versions of aimctl and of the daemon."""
    answer: dict[str, Any] = {"aimctl": aimd.__version__, "aimd": None, "api": None}
    failure: AimdError | None = None
    try:
        daemon = session.client.get("/v1/version")
        answer |= {"aimd": text(daemon, "version"), "api": text(daemon, "api")}
    except AimdError as cause:
        failure = cause
    show("version", answer, fmt)
    if failure is not None:
        raise failure
