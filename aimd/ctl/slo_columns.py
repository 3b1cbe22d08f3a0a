"""Service level as text: for `get slo` and `describe slo`, with what used up the error budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aimd.ctl.columns import Column, field, table
from aimd.ctl.fields import UNKNOWN, item, items, number, required, text
from aimd.ctl.model_columns import ALERT, BURNS, burn, flow, flowing, judged, percent, rate
from aimd.ctl.tables import indented, listed, moment
from aimd.domain.budget import budget_eaters

Object = Mapping[str, Any]
OBJECTIVES = ("latency_seconds", "objective", "throughput_floor")


def has_objective(model: Object) -> bool:
    """Whether the model's claim asks for a service level."""
    slo = item(model, "slo")
    return any(required(slo, key) is not None for key in OBJECTIVES)


def eaten(model: Object) -> dict[str, int]:
    """Requests that used up the error budget, by reason, the most frequent first; empty while nothing is known."""
    whole = flow(model)
    if whole is None:
        return {}
    outcomes, ends = _counts(whole, "outcomes"), _counts(whole, "ends")
    return budget_eaters(outcomes, ends, int(number(whole, "bad") or 0))


def _counts(whole: Object, key: str) -> dict[str, int]:
    each = item(whole, key)
    return {name: int(number(each, name) or 0) for name in each}


def _objective(key: str, unit: str = "") -> Column:
    header = {"latency_seconds": "TARGET", "objective": "OBJECTIVE", "throughput_floor": "FLOOR"}[key]
    return Column(header, lambda model: _amount(item(model, "slo"), key, unit))


def _amount(each: Object, key: str, unit: str) -> str:
    amount = number(each, key)
    return UNKNOWN if amount is None else f"{amount:g}{unit}"


SLOS = (
    Column("NAME", field("name")),
    _objective("latency_seconds", " s"),
    _objective("objective"),
    Column("GOOD", judged(percent)),
    Column("LATENCY", judged(field("latency"))),
    _objective("throughput_floor", "/s"),
    Column("RELEASED/S", judged(rate("released_per_second")), narrow=False),
    Column("THROUGHPUT", judged(field("throughput"))),
    Column("BURN-1H", burn(0)),
    Column("BURN-6H", burn(1), narrow=False),
    Column("BURN-1D", burn(2), narrow=False),
    Column("BURN-3D", burn(3)),
    ALERT,
    Column("BAD", flowing(field("bad")), narrow=False),
    Column("MOSTLY", lambda model: next(iter(eaten(model)), UNKNOWN)),
)
_EATERS = (
    Column("REASON", field("reason")),
    Column("REQUESTS", field("requests")),
    Column("SHARE", lambda each: f"{100 * each['share']:.3g} %"),
)


def describe_slo(model: Object) -> str:
    """The service level as text; raises UnreachableError for a payload that is no ModelMessage."""
    slo = item(model, "slo")
    head = [
        ("Name", text(model, "name")),
        ("Latency", _amount(slo, "latency_seconds", " s")),
        ("Objective", _amount(slo, "objective", " of requests well and in time")),
        ("Throughput", _amount(slo, "throughput_floor", " releases/s while something waits")),
    ]
    if required(model, "compliance") is None:
        return listed([*head, ("Counted since", "not yet: nothing was read of it so far")])
    found, whole = item(model, "compliance"), flow(model) or {}
    head += [
        ("In the last hour", f"{percent(found)} good: {text(found, 'latency')}"),
        (
            "Releases",
            f"{_amount(found, 'released_per_second', '/s')} while something waited: {text(found, 'throughput')}",
        ),
        ("Alert", text(found, "alert") if required(found, "alert") is not None else "none"),
        ("Counted since", moment(number(item(model, "traffic"), "since"))),
        ("Good and bad", f"{text(whole, 'good')} and {text(whole, 'bad')}"),
    ]
    burns = f"Burn rates of the error budget:\n{indented(table(BURNS, items(found, 'burns')))}"
    return listed(head) + burns + _eaters(eaten(model))


def _eaters(reasons: Mapping[str, int]) -> str:
    if not reasons:
        return "What used it up: nothing\n"
    bad = sum(reasons.values())
    rows = [{"reason": name, "requests": count, "share": count / bad} for name, count in reasons.items()]
    return f"What used it up:\n{indented(table(_EATERS, rows))}"
