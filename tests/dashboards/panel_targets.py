"""What the dashboards ask: the expressions of their panels with Grafana's variables put in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
_VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)|\[\[(\w+)\]\]")


class Target(NamedTuple):
    """One expression of a panel; `format` and `instant` as Grafana has them."""

    dashboard: str
    panel: str
    panel_id: int
    ref: str
    expression: str
    legend: str
    instant: bool
    unit: str
    kind: str

    @property
    def name(self) -> str:
        return f"{self.dashboard}: {self.panel} {self.ref}"


def put_in(expression: str, variables: Mapping[str, str], window: float, span: float) -> str:
    """The expression as Grafana sends it; variables of the dashboard that are not named are for all (.*).

    `window` is the interval of rates, `span` the whole time that is shown; both in seconds.
    """
    spans = {"__rate_interval": window, "__interval": window, "__range": span}
    values = (
        {name: f"{seconds:.0f}s" for name, seconds in spans.items()} | {"__range_s": f"{span:.0f}"} | dict(variables)
    )
    return _VARIABLE.sub(lambda found: values.get(found[1] or found[2] or found[3], ".*"), expression)


def targets(dashboard: Path, variables: Mapping[str, str], window: float, span: float) -> Iterator[Target]:
    """Of all panels of a dashboard, those inside rows included."""
    for panel in _panels(json.loads(dashboard.read_text())["panels"]):
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
        for one in panel.get("targets", []):
            yield Target(
                dashboard.stem,
                panel["title"],
                panel["id"],
                one.get("refId", "A"),
                put_in(one["expr"], variables, window, span),
                one.get("legendFormat", ""),
                bool(one.get("instant", False)),
                unit,
                panel["type"],
            )


def _panels(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels", []))
