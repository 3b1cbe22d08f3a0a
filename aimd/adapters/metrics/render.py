"""Families as text, in Prometheus' format 0.0.4 or as OpenMetrics 1.0.0.

Nearly all of a page is names and labels, which are the same from scrape to scrape: they are kept, and only values are
written anew. Sources: prometheus.io/docs/instrumenting/exposition_formats and the OpenMetrics specification 1.0.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import Metric

from aimd.adapters.metrics.family import Descriptor, Family, bucket_names, number_text

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

SPARE = 64  # kept texts of series that are no more, beyond as many as there are
_LABEL = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})

Values = tuple[str, ...]


class Renderer:
    """Keeps the texts of series; one thread at a time."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[Values, str]] = {}

    def render(self, families: Iterable[Family | Metric], *, openmetrics: bool) -> bytes:
        """The page; what prometheus_client made itself may be among the families."""
        parts: list[str] = []
        for family in families:
            if isinstance(family, Family):
                self._family(family, parts, openmetrics=openmetrics)
            else:
                _metric(family, parts, openmetrics=openmetrics)
        if openmetrics:
            parts.append("# EOF\n")
        return "".join(parts).encode("utf-8", "backslashreplace")

    def _family(self, family: Family, parts: list[str], *, openmetrics: bool) -> None:
        what = family.descriptor
        parts.append(_head(what.name, what.sample_name, what.kind, what.help, what.unit, openmetrics=openmetrics))
        kept = self._kept.setdefault(what.name, {})
        series = len(family.samples) + len(family.histograms)
        if len(kept) > 2 * series + SPARE:
            kept = self._kept[what.name] = {}
        for values, value in family.samples:
            text = kept.get(values)
            if text is None:
                text = kept[values] = f"{what.sample_name}{_labels(what.labels, values)} "
            parts.append(f"{text}{number_text(value)}\n")
        for values, histogram in family.histograms:
            text = kept.get(values)
            if text is None:
                text = kept[values] = _histogram(what, values)
            parts.append(text % (*histogram.counts, histogram.counts[-1], number_text(histogram.sum_seconds)))


def _head(name: str, sample_name: str, kind: str, words: str, unit: str, *, openmetrics: bool) -> str:
    if openmetrics:
        unit_line = f"# UNIT {name} {unit}\n" if unit else ""
        return f"# HELP {name} {words.translate(_LABEL)}\n# TYPE {name} {kind}\n{unit_line}"
    shown = "gauge" if kind == "info" else kind
    return f"# HELP {sample_name} {words.translate(_HELP)}\n# TYPE {sample_name} {shown}\n"


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = zip(names, values, strict=True)
    return "{" + ",".join(f'{name}="{value.translate(_LABEL)}"' for name, value in pairs) + "}"


def _histogram(what: Descriptor, values: Values) -> str:
    """All lines of a histogram, with places for its numbers."""
    lines = [
        f"{what.name}_bucket{_labels((*what.labels, 'le'), (*values, bound))}" for bound in bucket_names(what.bounds)
    ]
    labels = _labels(what.labels, values)
    texts = [f"{each.replace('%', '%%')} %d\n" for each in (*lines, f"{what.name}_count{labels}")]
    return "".join(texts) + f"{what.name}_sum{labels}".replace("%", "%%") + " %s\n"


def _metric(metric: Metric, parts: list[str], *, openmetrics: bool) -> None:
    """One that prometheus_client made: when its series were created is left out, as by default in newer versions."""
    sample_name = metric.name + ("_total" if metric.type == "counter" else "")
    parts.append(
        _head(metric.name, sample_name, metric.type, metric.documentation, metric.unit, openmetrics=openmetrics)
    )
    for sample in metric.samples:
        if not sample.name.endswith("_created"):
            labels = _labels(tuple(sample.labels), tuple(sample.labels.values()))
            parts.append(f"{sample.name}{labels} {number_text(sample.value)}\n")
