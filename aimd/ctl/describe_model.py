"""`aimctl describe model`: its share of the partitions, what went through, and its service level, as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aimd.ctl.columns import table
from aimd.ctl.fields import UNKNOWN, item, items, number, required, text
from aimd.ctl.model_columns import BURNS, CLASSES, FLOWS, LATENCIES, PLACES, limit, occupied, percent, rate
from aimd.ctl.tables import indented, listed, moment

Payload = Mapping[str, Any]
STAGES = ("queue", "service", "total")


def describe_model(model: Payload) -> str:
    """The model as text; raises UnreachableError for a payload that is no ModelMessage."""
    slo, places = item(model, "slo"), items(model, "partitions")
    head = [
        ("Name", text(model, "name")),
        ("State", text(model, "state")),
        ("QoS class", text(model, "qos")),
        ("Replicas", text(model, "replicas")),
        ("Guarantee", f"{text(model, 'guarantee')} slots"),
        ("Limit", f"{limit(model)} slots"),
        ("Weight", text(model, "weight")),
        ("SLO latency", _with_unit(slo, "latency_seconds", "s")),
        ("SLO objective", text(slo, "objective")),
        ("SLO throughput", _with_unit(slo, "throughput_floor", "requests/s")),
    ]
    return (
        listed([*head, *_traffic(model), *_compliance(model)])
        + _burns(model)
        + _flows(model)
        + (f"Partitions:\n{indented(table(PLACES, places))}" if places else "Partitions: none\n")
    )


def _traffic(model: Payload) -> list[tuple[str, str]]:
    if required(model, "traffic") is None:
        return [("Counted since", "not yet: nothing was read of it so far")]
    traffic = item(model, "traffic")
    whole = item(traffic, "whole")
    return [
        ("Counted since", moment(number(traffic, "since"))),
        ("Running", f"{occupied(model)} slots"),
        ("Waiting", text(whole, "waiting")),
        ("Grants", f"{rate('grants_per_second')(whole)}/s"),
        ("Rejected", f"{rate('rejected_per_second')(whole)}/s"),
        ("Outcomes", _counts(whole, "outcomes")),
        ("Ends of leases", _counts(whole, "ends")),
        ("Good and bad", f"{text(whole, 'good')} and {text(whole, 'bad')}"),
    ]


def _compliance(model: Payload) -> list[tuple[str, str]]:
    if required(model, "compliance") is None:
        return []
    found = item(model, "compliance")
    return [
        ("Latency objective", f"{text(found, 'latency')}, {percent(found)} good in the last hour"),
        ("Throughput", _throughput(model, found)),
        ("Alert", text(found, "alert") if required(found, "alert") is not None else "none"),
    ]


def _throughput(model: Payload, compliance: Payload) -> str:
    if required(item(model, "slo"), "throughput_floor") is None:
        return "no objective"
    return text(compliance, "throughput") + _kept(compliance)


def _kept(compliance: Payload) -> str:
    if required(compliance, "released_per_second") is None:
        return ", nothing waited for half a minute"
    return f", {rate('released_per_second')(compliance)} releases/s while something waited"


def _burns(model: Payload) -> str:
    if required(model, "compliance") is None:
        return ""
    return f"Burn rates of the error budget:\n{indented(table(BURNS, items(item(model, 'compliance'), 'burns')))}"


def _flows(model: Payload) -> str:
    """The classes that have been used, and their latencies where there are any."""
    if required(model, "traffic") is None:
        return ""
    flows = {name: item(item(model, "traffic"), name) for name in CLASSES}
    used = {name: each for name, each in flows.items() if item(each, "outcomes") or _busy(each)}
    latencies = [
        {"class": name, "stage": stage, **item(each, stage)}
        for name, each in used.items()
        for stage in STAGES
        if number(item(each, stage), "count")
    ]
    if not used:
        return "Classes: none was used\n"
    classes = table(FLOWS, [{"class": name, **each} for name, each in used.items()])
    shown = f"Classes:\n{indented(classes)}"
    return shown + (f"Latencies of the last minute:\n{indented(table(LATENCIES, latencies))}" if latencies else "")


def _busy(each: Payload) -> bool:
    return bool(number(each, "running") or number(each, "waiting"))


def _counts(each: Payload, key: str) -> str:
    counts = item(each, key)
    return ", ".join(f"{name} {text(counts, name)}" for name in counts) or "none"


def _with_unit(each: Payload, key: str, unit: str) -> str:
    amount = number(each, key)
    return UNKNOWN if amount is None else f"{amount:g} {unit}"
