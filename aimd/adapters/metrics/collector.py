"""The families of a page in their order, from one view. A Collector of prometheus_client, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from aimd.adapters.metrics import cluster_families, daemon_families, model_families, node_families, slo_families
from aimd.adapters.metrics.family import Descriptor, Family, as_metric
from aimd.adapters.metrics.instruments import Instruments
from aimd.adapters.metrics.labels import ModelLabels
from aimd.adapters.metrics.view import View
from aimd.domain.metering import DispatchReading

OPERATIONS = ("operation", "outcome")
CANCELLED = "cancelled"


class NodeCollector(Collector):
    """Turns views into families; one thread at a time.

    Args:
        instruments: what is counted when it happens.
        labels: of models.
        process: whether to tell of this process, too (process_*).
        view: what `collect` takes views from.
    """

    def __init__(
        self,
        instruments: Instruments,
        labels: ModelLabels | None = None,
        *,
        process: bool = True,
        view: Callable[[], View] | None = None,
    ) -> None:
        self._instruments = instruments
        self._process = ProcessCollector(registry=None) if process else None
        self._labels = labels or ModelLabels()
        self._view = view
        self._errors = dict.fromkeys(daemon_families.COLLECTORS, 0)
        self._render_seconds: float | None = None

    def rendered(self, seconds: float) -> None:
        """How long the last page took to be made; the next one tells it."""
        self._render_seconds = seconds

    def collect(self) -> Iterator[Metric]:
        """For a registry of prometheus_client: needs `view`."""
        assert self._view is not None
        for family in self.families(self._view()):
            yield as_metric(family) if isinstance(family, Family) else family

    def families(self, view: View) -> Iterator[Family | Metric]:
        """All families, those with the six names that everybody asks for first."""
        self._labels.keep(claim.name for claim in sorted(view.snapshot.claims, key=lambda claim: claim.created_at))
        reading = view.dispatch or model_families.NOTHING
        meters = model_families.folded(reading.models, self._labels)
        yield from node_families.required(view)
        yield from model_families.required(meters)
        yield self._operations(reading)
        yield from node_families.families(view)
        yield from model_families.families(reading, meters, view.snapshot, self._labels)
        yield from slo_families.families(view, self._labels)
        yield from daemon_families.families(view)
        if view.cluster is not None:
            yield from cluster_families.families(view.cluster)
        yield from self._own(view)
        yield from self._instruments.collect()
        if self._process is not None:
            yield from self._process.collect()

    def _operations(self, reading: DispatchReading) -> Family:
        """Of the control path and of requests, in one family."""
        [metric] = self._instruments.operations.collect()
        what = Descriptor(metric.name, "counter", metric.documentation, OPERATIONS)
        samples = [
            ((sample.labels["operation"], sample.labels["outcome"]), int(sample.value))
            for sample in metric.samples
            if sample.name == what.sample_name
        ]
        if reading.acquires:
            samples += [(("acquire", outcome), count) for outcome, count in reading.acquires.items()]
            samples.append((("cancel", "ok"), reading.acquires.get(CANCELLED, 0)))
        return what.of(samples)

    def _own(self, view: View) -> Iterator[Family]:
        for part in view.unreadable:
            self._errors[part] = self._errors.get(part, 0) + 1
        seconds = [((part,), spent) for part, spent in view.reading_seconds.items()]
        if self._render_seconds is not None:
            seconds.append((("render",), self._render_seconds))
        yield daemon_families.COLLECTOR_SECONDS.of(seconds)
        yield daemon_families.COLLECTOR_ERRORS.of([((part,), count) for part, count in self._errors.items()])
        yield daemon_families.OVERFLOW.of([((), self._labels.overflows)])
