"""From tables of panels to Grafana's JSON, by grafana-foundation-sdk. How all dashboards look is decided here."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, gauge, heatmap, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus as query
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as style
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = style.DataSourceRef(type_val="prometheus", uid="${datasource}")
KINDS: dict[str, Any] = {
    "timeseries": timeseries.Panel,
    "stat": stat.Panel,
    "gauge": gauge.Panel,
    "bargauge": bargauge.Panel,
    "table": table.Panel,
    "heatmap": heatmap.Panel,
    "state-timeline": statetimeline.Panel,
}
OF_NOW = ("stat", "gauge", "bargauge", "table")


@dataclass(frozen=True, slots=True)
class Query:
    """An expression of PromQL, and what Grafana calls its series ({{label}} is put in)."""

    expression: str
    legend: str = "__auto"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        unit: of Grafana (percentunit, bytes, s, reqps, short, ...).
        width: of 24 columns; height: rows.
        least, most: of the axis.
        steps: colours from values on; the first one counts from minus infinity.
        states: texts and colours of values.
        stacked: series are added up.
    """

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    height: int = 8
    least: float | None = 0
    most: float | None = None
    decimals: int | None = None
    steps: tuple[tuple[float | None, str], ...] = ()
    states: tuple[tuple[str, str, str], ...] = ()
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Panels below a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top: the values of a label."""

    name: str
    label: str
    query: str


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard. `uid` is what links and provisioning know it by, and never changes."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = field(default_factory=tuple)


def rendered(board: Board) -> str:
    """The dashboard as Grafana imports it."""
    found = (
        build.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["aimd", "amd-instinct"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(build.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for variable in board.variables:
        found.with_variable(_choice(variable))
    numbers = itertools.count(1)
    for row in board.rows:
        found.with_row(build.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            found.with_panel(_panel(panel).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(found.build()) + "\n"


def _choice(variable: Variable) -> build.QueryVariable:
    return (
        build.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(SOURCE)
        .query({"query": variable.query, "refId": variable.name, "qryType": 1})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(text="All", value="$__all", selected=True))
    )


def _panel(panel: Panel) -> Any:
    found = (
        KINDS[panel.kind]()
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .span(panel.width)
        .height(panel.height)
        .unit(panel.unit)
    )
    if panel.decimals is not None:
        found.decimals(panel.decimals)
    if panel.least is not None and panel.kind != "heatmap":
        found.min(panel.least)
    if panel.most is not None:
        found.max(panel.most)
    if panel.states:
        found.mappings([_states(panel.states)])
    _colour(found, panel)
    for letter, one in zip("ABCDEFGH", panel.queries, strict=False):
        found.with_target(_target(one, letter, panel.kind))
    _shape(found, panel)
    return found


def _target(one: Query, letter: str, kind: str) -> query.Dataquery:
    target = query.Dataquery().expr(one.expression).ref_id(letter).legend_format(one.legend)
    if kind in OF_NOW:
        target.instant()
    else:
        target.range()
    if kind == "table":
        target.format(PromQueryFormat.TABLE)
    elif kind == "heatmap":
        target.format(PromQueryFormat.HEATMAP)
    return target


def _states(states: Sequence[tuple[str, str, str]]) -> model.ValueMap:
    options = {
        value: model.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, text, colour) in enumerate(states)
    }
    return model.ValueMap(options=options)


def _colour(found: Any, panel: Panel) -> None:
    if panel.steps:
        steps = [model.Threshold(value=value, color=colour) for value, colour in panel.steps]
        found.thresholds(build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
    elif panel.kind in OF_NOW:
        steps = [model.Threshold(value=None, color="blue")]
        found.thresholds(build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.kind in OF_NOW or panel.kind == "state-timeline":
        found.color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))


def _shape(found: Any, panel: Panel) -> None:
    """What each kind of panel has of its own."""
    legend = common.VizLegendOptions().show_legend(True).placement(style.LegendPlacement.BOTTOM)
    if panel.kind == "timeseries":
        calcs = ["lastNotNull", "max"]
        found.legend(legend.display_mode(style.LegendDisplayMode.TABLE).calcs(calcs))
        found.tooltip(common.VizTooltipOptions().mode(style.TooltipDisplayMode.MULTI).sort(style.SortOrder.DESCENDING))
        found.line_width(1).fill_opacity(25 if panel.stacked else 8).show_points(style.VisibilityMode.NEVER)
        if panel.stacked:
            found.stacking(common.StackingConfig().mode(style.StackingMode.NORMAL))
        if panel.steps:
            found.thresholds_style(common.GraphThresholdsStyleConfig().mode(style.GraphThresholdsStyleMode.LINE))
    elif panel.kind == "state-timeline":
        found.legend(legend.display_mode(style.LegendDisplayMode.LIST)).row_height(0.8)
        found.show_value(style.VisibilityMode.NEVER).merge_values(True)
    elif panel.kind == "stat":
        found.graph_mode(style.BigValueGraphMode.NONE).reduce_options(_last())
    elif panel.kind == "bargauge":
        found.orientation(style.VizOrientation.HORIZONTAL).reduce_options(_last())
        found.display_mode(style.BarGaugeDisplayMode.BASIC)
        found.text(common.VizTextDisplayOptions().title_size(13).value_size(15))
    elif panel.kind == "gauge":
        found.reduce_options(_last())
    elif panel.kind == "heatmap":
        found.calculate(False).y_axis(heatmap.YAxisConfig().unit(panel.unit))
        found.color(heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME).scheme("Blues").steps(64))


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
