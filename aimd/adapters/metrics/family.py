"""Families of metrics and their series, in a form that costs little: a scrape makes thousands of series anew.

`as_metric` shows one as prometheus_client has them, for its registries, parser and encoders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import Metric

from aimd.domain.metering import Histogram

Kind = Literal["gauge", "counter", "histogram", "info"]
UNITS = ("seconds", "bytes", "ratio")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A family without its series.

    Attributes:
        name: without `_total` of a counter and `_info` of an info.
        help: unit, source, and what it means that a series is absent.
        labels: names, in the order in which series give their values.
        bounds: of a histogram's buckets, without infinity.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    @property
    def sample_name(self) -> str:
        """What its series are called; the family itself, too, in the format of Prometheus."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")

    @property
    def unit(self) -> str:
        """The unit that its name ends in."""
        return next((unit for unit in UNITS if self.name.endswith(f"_{unit}")), "")

    def of(self, samples: Sequence[tuple[tuple[str, ...], float]]) -> Family:
        """The family with these series: label values, value."""
        return Family(self, samples, ())

    def histograms(self, histograms: Sequence[tuple[tuple[str, ...], Histogram]]) -> Family:
        return Family(self, (), histograms)


@dataclass(frozen=True, slots=True)
class Family:
    """A family with the series of one scrape: `samples`, or `histograms` where it is one."""

    descriptor: Descriptor
    samples: Sequence[tuple[tuple[str, ...], float]]
    histograms: Sequence[tuple[tuple[str, ...], Histogram]]


def number_text(value: float) -> str:
    """A value as both formats have it."""
    if isinstance(value, int) or math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def bucket_names(bounds: Sequence[float]) -> list[str]:
    """Values of the label `le`; OpenMetrics wants floats, 1.0 and not 1."""
    return [number_text(float(bound)) for bound in (*bounds, math.inf)]


def as_metric(family: Family) -> Metric:
    """The same for prometheus_client."""
    what = family.descriptor
    metric = Metric(what.name, what.help, what.kind, what.unit)
    for values, value in family.samples:
        metric.add_sample(what.sample_name, dict(zip(what.labels, values, strict=True)), value)
    for values, histogram in family.histograms:
        labels = dict(zip(what.labels, values, strict=True))
        for bound, count in zip(bucket_names(what.bounds), histogram.counts, strict=True):
            metric.add_sample(f"{what.name}_bucket", {**labels, "le": bound}, count)
        metric.add_sample(f"{what.name}_count", labels, histogram.counts[-1])
        metric.add_sample(f"{what.name}_sum", labels, histogram.sum_seconds)
    return metric
