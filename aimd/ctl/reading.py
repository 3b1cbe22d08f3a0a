"""The commands that only look: get, describe, events, version."""

from __future__ import annotations

from typing import Any

import click

import aimd
from aimd.ctl.client import ApiClient
from aimd.ctl.completing import object_names
from aimd.ctl.describe import describe as described
from aimd.ctl.fields import items, number, required, text
from aimd.ctl.session import Session, output_option, segment, show
from aimd.ctl.slo import model_with_objective, models_with_objectives
from aimd.ctl.watching import events_about, watch_events, watch_objects
from aimd.errors import AimdError, InvalidInputError

SINGULARS = {
    "gpus": "gpu",
    "partitions": "partition",
    "claims": "claim",
    "assignments": "assignment",
    "models": "model",
    "slo": "slo",
    "plans": "plan",
    "events": "event",
    "node": "node",
}
DESCRIBED = ("gpu", "partition", "claim", "model", "slo", "plan")


@click.command()
@click.argument(
    "what",
    metavar="gpus|partitions|claims|assignments|models|slo|plans|events|node",
    type=click.Choice([*SINGULARS, *(word for word in SINGULARS.values() if word not in SINGULARS)]),
)
@click.argument("name", required=False, shell_complete=object_names)
@click.option("--watch", is_flag=True, help="Go on with changes as they happen, until interrupted.")
@output_option
@click.pass_obj
def get(session: Session, what: str, name: str | None, *, watch: bool, fmt: str) -> None:
    """List objects, or show the one called NAME.

    slo lists the models whose claims have objectives.

    NAME is gpu0 or a PCI address, gpu0/3 for a partition (gpu0 for all of a GPU's), the name of a claim, model or plan,
    llama/0 for an assignment (llama for all of a claim's), or what events are about (llama, gpu0, set-mode-1).
    """
    kind = {singular: kind for kind, singular in SINGULARS.items()}.get(what, what)
    client = session.client
    if kind == "node" and (watch or name is not None):
        raise click.UsageError("there is one node: it takes no name and is not watched")
    if watch and kind == "events":
        watch_events(client, 0, name, fmt)
    elif watch:
        watch_objects(client, kind, name, fmt)
    else:
        show(*listing(client, kind, name), fmt)


def listing(client: ApiClient, kind: str, name: str | None) -> tuple[str, dict[str, Any]]:
    """The kind of the answer (as `render` knows it) and the answer."""
    if kind == "events":
        about = events_about(client, name)
        answer = past_events(client, 0)
        return kind, answer | {"events": [event for event in answer["events"] if about(event)]}
    if kind == "slo":
        return ("slos", models_with_objectives(client)) if name is None else ("slo", model_with_objective(client, name))
    if name is None:
        return kind, client.get(f"/v1/{kind}")
    if kind == "partitions" and "/" not in name:
        return kind, {kind: required(client.get(f"/v1/gpus/{segment(name)}"), kind)}
    if kind == "assignments" and "/" not in name:
        return kind, {kind: required(client.get(f"/v1/claims/{segment(name)}"), kind)}
    return SINGULARS[kind], client.get(object_path(kind, name))


@click.command()
@click.argument("what", metavar="gpu|partition|claim|model|slo|plan", type=click.Choice(DESCRIBED))
@click.argument("name", shell_complete=object_names)
@output_option
@click.pass_obj
def describe(session: Session, what: str, name: str, fmt: str) -> None:
    """Show all that is known of one GPU, partition, claim, model or plan, or of a model's service level (slo)."""
    client = session.client
    answer = model_with_objective(client, name) if what == "slo" else client.get(object_path(f"{what}s", name))
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
    if watch:
        watch_events(session.client, since, None, fmt)
    show("events", past_events(session.client, since), fmt)


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
    """Path of one object; raises InvalidInputError where a partition's or an assignment's name has no number."""
    if kind not in ("partitions", "assignments"):
        return f"/v1/{kind}/{segment(name)}"
    owner, _, index = name.rpartition("/")
    if not (owner and index.isascii() and index.isdigit()):
        expected, example = {
            "partitions": ("partition, expected GPU/INDEX", "gpu0/3"),
            "assignments": ("assignment, expected CLAIM/REPLICA", "llama/0"),
        }[kind]
        raise InvalidInputError(f"{name!r} is no {expected}", hint=f"for example {example}")
    return f"/v1/{kind}/{segment(owner)}/{index}"


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
