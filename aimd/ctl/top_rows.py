"""What `aimctl top` shows: a row per model or per partition of one, in an order, in as many columns as fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aimd.ctl.columns import Column, field
from aimd.ctl.fields import item, items, number, required, text
from aimd.ctl.model_columns import (
    ALERT,
    BURN,
    CLASSES,
    GRANTS,
    QUEUE_P99,
    REJECTED,
    RUNNING,
    TOTAL_P99,
    flow,
    flowing,
    judged,
    percent,
    quantile,
    rate,
)

Object = Mapping[str, Any]
GAP = 2


def waiting_by_class(each: Object) -> str:
    """`12/0/3`: high, medium, low."""
    return "/".join(text(item(item(each, "traffic"), qos), "waiting") for qos in CLASSES)


def queued(each: Object) -> str:
    return "-" if required(each, "traffic") is None else waiting_by_class(each)


# The less important, the further to the right: these go first where the terminal is narrow.
COLUMNS = (
    Column("MODEL", field("name")),
    Column("QOS", field("qos")),
    RUNNING,
    Column("WAITING", flowing(field("waiting"))),
    Column("HI/MED/LO", queued),
    GRANTS,
    REJECTED,
    QUEUE_P99,
    TOTAL_P99,
    BURN,
    ALERT,
    Column("GOOD", judged(percent)),
    Column("QUEUE-P50", flowing(quantile("queue", "p50"))),
    Column("QUEUE-P95", flowing(quantile("queue", "p95"))),
    Column("TOTAL-P50", flowing(quantile("total", "p50"))),
    Column("TOTAL-P95", flowing(quantile("total", "p95"))),
    Column("SERVICE-P50", flowing(quantile("service", "p50"))),
    Column("SERVICE-P99", flowing(quantile("service", "p99"))),
)
WORDS = frozenset({"MODEL", "QOS", "PARTITION", "ALERT"})  # the other columns are numbers, and aligned as such
PARTITION = Column("PARTITION", field("partition_name"))


class Order(NamedTuple):
    """A way to sort: its key, and what is compared, the largest first; unknown is less than anything."""

    key: str
    amount: Callable[[Object], float | None]


def _of_flow(amount: Callable[[Object], float | None]) -> Callable[[Object], float | None]:
    def found(each: Object) -> float | None:
        traffic = flow(each)
        return None if traffic is None else amount(traffic)

    return found


def _burn(each: Object) -> float | None:
    if required(each, "compliance") is None:
        return None
    return next((number(burn, "long") for burn in items(item(each, "compliance"), "burns")), None)


ORDERS: Mapping[str, Order] = {
    "waiting": Order("w", _of_flow(lambda each: number(each, "waiting"))),
    "running": Order("r", _of_flow(lambda each: number(each, "running"))),
    "grants": Order("g", _of_flow(lambda each: number(each, "grants_per_second"))),
    "rejected": Order("x", _of_flow(lambda each: number(each, "rejected_per_second"))),
    "queue": Order("u", _of_flow(lambda each: number(item(each, "queue"), "p99"))),
    "latency": Order("l", _of_flow(lambda each: number(item(each, "total"), "p99"))),
    "burn": Order("b", _burn),
    "name": Order("n", lambda _: 0.0),
}


def rows_of(answer: Object, order: str, *, partitions: bool) -> list[Object]:
    """The models of a ModelListMessage, or their partitions with the models' names, sorted."""
    models: list[Object] = [*items(answer, "models")]
    if partitions:
        models = [
            {**place, "name": text(model, "name"), "qos": text(model, "qos")}
            for model in models
            for place in items(model, "partitions")
        ]
    models.sort(key=lambda each: (text(each, "name"), text(each, "partition_name") if partitions else ""))
    amount = ORDERS[order].amount
    return sorted(models, key=lambda each: -1.0 if (found := amount(each)) is None else found, reverse=True)


def columns_of(*, partitions: bool) -> tuple[Column, ...]:
    return (COLUMNS[0], PARTITION, *COLUMNS[1:]) if partitions else COLUMNS


def fitting(columns: tuple[Column, ...], rows: list[Object], width: int) -> tuple[Column, ...]:
    """The first of the columns that fit side by side; at least one."""
    shown, used = 0, -GAP
    for column in columns:
        used += GAP + max([len(column.header), *(len(column.cell(each)) for each in rows)])
        if used > width and shown:
            break
        shown += 1
    return columns[:shown]


def summary(answer: Object) -> str:
    """`4 models, 37 running, 210 waiting, 1062.4 grants/s, 0.0 rejected/s`, of those that something is known of."""
    flows = [found for model in items(answer, "models") if (found := flow(model)) is not None]

    def whole(key: str) -> float:
        return sum(number(each, key) or 0 for each in flows)

    grants, rejected = (rate(key)({key: whole(key)}) for key in ("grants_per_second", "rejected_per_second"))

    count = len(items(answer, "models"))
    return (
        f"{count} model{'' if count == 1 else 's'}, {whole('running'):.0f} running, {whole('waiting'):.0f} waiting, "
        f"{grants} grants/s, {rejected} rejected/s"
    )
