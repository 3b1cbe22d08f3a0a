"""Columns of models and their traffic: for `get models`, `describe model` and `top`. A `-` is what is not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aimd.ctl.columns import Column, field
from aimd.ctl.fields import UNKNOWN, flag, item, items, number, required, text

Object = Mapping[str, Any]
Cell = Callable[[Object], str]

CLASSES = ("high", "medium", "low")


def flow(each: Object, part: str = "whole") -> Object | None:
    """The whole traffic of a model or partition, or a class of it; None while nothing is known of it."""
    return None if required(each, "traffic") is None else item(item(each, "traffic"), part)


def flowing(show: Cell, part: str = "whole") -> Cell:
    """A cell of the traffic."""

    def cell(each: Object) -> str:
        found = flow(each, part)
        return UNKNOWN if found is None else show(found)

    return cell


def rate(key: str) -> Cell:
    """A number per second."""

    def cell(each: Object) -> str:
        amount = number(each, key)
        return UNKNOWN if amount is None else f"{amount:.{2 if amount < 10 else 1}f}"

    return cell


def latency(key: str) -> Cell:
    """Three digits: `45.0 us`, `1.54 ms`, `250 ms`, `90.0 s`."""

    def cell(each: Object) -> str:
        seconds = number(each, key)
        if seconds is None:
            return UNKNOWN
        scale, unit = (1e6, "us") if seconds < 1e-3 else (1e3, "ms") if seconds < 1 else (1, "s")
        amount = seconds * scale
        return f"{amount:.{2 if amount < 10 else 1 if amount < 100 else 0}f} {unit}"

    return cell


def quantile(stage: str, key: str) -> Cell:
    return lambda each: latency(key)(item(each, stage))


def counted(key: str, name: str) -> Cell:
    """How often an outcome or an end has happened."""
    return lambda each: str(item(each, key).get(name, 0))


def occupied(each: Object) -> str:
    """Slots in use, of those that the model's partitions have."""
    found = flow(each)
    return UNKNOWN if found is None else f"{text(found, 'running')}/{text(item(each, 'traffic'), 'slots')}"


def limit(each: Object) -> str:
    return "all" if required(each, "limit") is None else text(each, "limit")


def judged(show: Cell) -> Cell:
    """A cell of the compliance."""

    def cell(each: Object) -> str:
        return UNKNOWN if required(each, "compliance") is None else show(item(each, "compliance"))

    return cell


def percent(each: Object) -> str:
    share = number(each, "good_ratio")
    return UNKNOWN if share is None else f"{100 * share:.4g} %"


def factor(key: str) -> Cell:
    """A burn rate: how many times faster than it may the error budget is used up."""

    def cell(each: Object) -> str:
        amount = number(each, key)
        return UNKNOWN if amount is None else f"{amount:.3g}"

    return cell


def burn(place: int, key: str = "long") -> Cell:
    """The burn rate over one of the windows, by the place of its pair."""

    def cell(each: Object) -> str:
        burns = items(each, "burns")
        return factor(key)(burns[place]) if place < len(burns) else UNKNOWN

    return judged(cell)


def span(key: str) -> Cell:
    """A window: `5 min`, `6 h`, `3 d`."""

    def cell(each: Object) -> str:
        seconds = int(number(each, key) or 0)
        size, unit = next((s, u) for s, u in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")) if seconds % s == 0)
        return f"{seconds // size} {unit}"

    return cell


RUNNING = Column("RUNNING", occupied)
WAITING = Column("WAITING", flowing(field("waiting")))
GRANTS = Column("GRANTS/S", flowing(rate("grants_per_second")))
REJECTED = Column("REJECTED/S", flowing(rate("rejected_per_second")))
QUEUE_P99 = Column("QUEUE-P99", flowing(quantile("queue", "p99")))
TOTAL_P99 = Column("TOTAL-P99", flowing(quantile("total", "p99")))
BURN = Column("BURN-1H", burn(0))
ALERT = Column("ALERT", judged(field("alert")))

MODELS = (
    Column("NAME", field("name")),
    Column("STATE", field("state"), narrow=False),
    Column("QOS", field("qos")),
    Column("PARTITIONS", lambda model: str(len(items(model, "partitions")))),
    Column("GUARANTEE", field("guarantee"), narrow=False),
    Column("LIMIT", limit, narrow=False),
    Column("WEIGHT", field("weight"), narrow=False),
    RUNNING,
    WAITING,
    *(Column(f"WAITING-{qos.upper()}", flowing(field("waiting"), qos), narrow=False) for qos in CLASSES),
    GRANTS,
    REJECTED,
    Column("QUEUE-P50", flowing(quantile("queue", "p50")), narrow=False),
    Column("QUEUE-P95", flowing(quantile("queue", "p95")), narrow=False),
    QUEUE_P99,
    Column("TOTAL-P50", flowing(quantile("total", "p50")), narrow=False),
    Column("TOTAL-P95", flowing(quantile("total", "p95")), narrow=False),
    TOTAL_P99,
    Column("GRANTED", flowing(counted("outcomes", "granted")), narrow=False),
    Column("GOOD", judged(percent)),
    BURN,
    ALERT,
)

PLACES = (
    Column("PARTITION", field("partition_name")),
    Column("REPLICAS", field("replicas")),
    Column("GUARANTEE", field("guarantee")),
    Column("LIMIT", limit),
    RUNNING,
    WAITING,
    GRANTS,
    REJECTED,
    QUEUE_P99,
    TOTAL_P99,
    BURN,
)

# Of a flow with the name of its class.
FLOWS = (
    Column("CLASS", field("class")),
    Column("RUNNING", field("running")),
    Column("WAITING", field("waiting")),
    Column("GRANTS/S", rate("grants_per_second")),
    Column("REJECTED/S", rate("rejected_per_second")),
    Column("GRANTED", counted("outcomes", "granted")),
    Column("GOOD", field("good")),
    Column("BAD", field("bad")),
)

# Of quantiles with the names of their class and stage.
LATENCIES = (
    Column("CLASS", field("class")),
    Column("STAGE", field("stage")),
    Column("COUNT", field("count")),
    *(Column(key.upper(), latency(key)) for key in ("p50", "p95", "p99")),
)

BURNS = (
    Column("WINDOWS", lambda each: f"{span('long_seconds')(each)} & {span('short_seconds')(each)}"),
    Column("LONG", factor("long")),
    Column("SHORT", factor("short")),
    Column("THRESHOLD", factor("threshold")),
    Column("SEVERITY", field("severity")),
    Column("FIRING", lambda each: "yes" if flag(each, "firing") else "no"),
)
