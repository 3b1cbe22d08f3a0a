"""One answer of the daemon in one of the output formats: table, wide, json, yaml, name.

Also the daemon's own `aimd inventory` prints through here, so both commands show the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aimd.ctl import columns
from aimd.ctl.columns import BLOCKERS, GPUS, PARTITIONS, STEPS, Column, table
from aimd.ctl.fields import items, text, texts
from aimd.ctl.model_columns import MODELS
from aimd.ctl.slo_columns import SLOS

FORMATS = ("table", "wide", "json", "yaml", "name")

Payload = Mapping[str, Any]


class Kind(NamedTuple):
    """How a kind of answer becomes text.

    Attributes:
        objects: the objects in the answer, one a line.
        columns: of the table.
        name: an object's name, for `-o name`.
    """

    objects: Callable[[Payload], list[dict[str, Any]]]
    columns: tuple[Column, ...]
    name: Callable[[Payload], str]


def _within(key: str) -> Callable[[Payload], list[dict[str, Any]]]:
    return lambda payload: items(payload, key)


def _single(payload: Payload) -> list[dict[str, Any]]:
    return [dict(payload)]


_NAME = columns.field("name")

KINDS: Mapping[str, Kind] = {
    "gpus": Kind(_within("gpus"), GPUS, _NAME),
    "gpu": Kind(_single, GPUS, _NAME),
    "partitions": Kind(_within("partitions"), PARTITIONS, _NAME),
    "partition": Kind(_single, PARTITIONS, _NAME),
    "claims": Kind(_within("claims"), columns.CLAIMS, _NAME),
    "claim": Kind(_single, columns.CLAIMS, _NAME),
    "assignments": Kind(_within("assignments"), columns.ASSIGNMENTS, _NAME),
    "assignment": Kind(_single, columns.ASSIGNMENTS, _NAME),
    "models": Kind(_within("models"), MODELS, _NAME),
    "model": Kind(_single, MODELS, _NAME),
    "slos": Kind(_within("models"), SLOS, _NAME),
    "slo": Kind(_single, SLOS, _NAME),
    "plans": Kind(_within("plans"), columns.CHANGES, _NAME),
    "plan": Kind(_single, columns.CHANGES, _NAME),
    "events": Kind(_within("events"), columns.EVENTS, columns.field("sequence")),
    "event": Kind(_single, columns.EVENTS, columns.field("sequence")),
    "node": Kind(_single, columns.NODES, lambda _: "node"),
    "version": Kind(_single, columns.VERSIONS, columns.field("aimd")),
    "differences": Kind(_within("differences"), columns.DIFFERENCES, _NAME),
    "findings": Kind(_within("findings"), columns.FINDINGS, columns.field("check")),
}


def render(kind: str, payload: Payload, fmt: str) -> str:
    """The answer as text that ends with a newline, or as no text at all where `name` has nothing to name.

    Args:
        kind: `gpus` and `inventory` (InventoryMessage), `gpu` (GpuMessage), `partitions` (PartitionListMessage),
            `partition`, `claims` (ClaimListMessage), `claim`, `assignments` (AssignmentListMessage), `assignment`,
            `models` and `slos` (ModelListMessage), `model` and `slo` (ModelMessage),
            `plans` (ChangeListMessage), `plan` (ChangeMessage), `dry-run` (PlanMessage), `events` (EventListMessage),
            `event`, `node` (NodeMessage), and aimctl's own: `version`, `differences` and `findings`. `inventory` shows
            GPUs and partitions, `gpus` the GPUs alone.
        payload: the message as dicts and lists (json.loads of the answer, or protocol.messages.to_builtins).
        fmt: one of FORMATS.

    Raises:
        UnreachableError: the payload is no such message.
        KeyError: there is no such kind.
    """
    if fmt == "json":
        return json.dumps(payload, indent=2) + "\n"
    if fmt == "yaml":
        return _yaml(payload)
    if kind == "inventory":
        return _inventory(payload, fmt)
    if kind == "dry-run":
        return _dry_run(payload, fmt)
    how = KINDS[kind]
    if fmt == "name":
        return "".join(f"{how.name(each)}\n" for each in how.objects(payload))
    return table(how.columns, how.objects(payload), wide=fmt == "wide")


def refusal_lines(refusals: list[dict[str, Any]]) -> str:
    """A sentence per refused wish, and below it what to do."""
    return "".join(
        f"refused: {text(each, 'message')} ({text(each, 'reason')})\nhint: {text(each, 'hint')}\n" for each in refusals
    )


def _inventory(payload: Payload, fmt: str) -> str:
    gpus = items(payload, "gpus")
    if fmt == "name":
        return "".join(f"{text(each, 'name')}\n" for gpu in gpus for each in (gpu, *items(gpu, "partitions")))
    partitions = [partition for gpu in gpus for partition in items(gpu, "partitions")]
    wide = fmt == "wide"
    return table(GPUS, gpus, wide=wide) + "\n" + table(PARTITIONS, partitions, wide=wide)


def _dry_run(plan: Payload, fmt: str) -> str:
    steps, blockers, refusals = items(plan, "steps"), items(plan, "blockers"), items(plan, "refusals")
    if fmt == "name":
        return "".join(f"{gpu}\n" for gpu in dict.fromkeys(gpu for step in steps for gpu in texts(step, "gpus")))
    blocks = []
    if steps:
        blocks.append(table(STEPS, steps))
    elif not refusals:
        blocks.append("nothing to do: the GPUs are in these modes\n")
    if blockers:
        blocks.append("These processes would be waited for:\n" + table(BLOCKERS, blockers))
    if refusals:
        blocks.append(refusal_lines(refusals))
    warnings = "".join(f"warning: {warning}\n" for warning in texts(plan, "warnings"))
    return "\n".join([*blocks, warnings] if warnings else blocks)


def _yaml(payload: Payload) -> str:
    import yaml  # noqa: PLC0415 - costs a fifth of the time that a command may take, and few ask for it

    return str(yaml.safe_dump(dict(payload), sort_keys=False))
