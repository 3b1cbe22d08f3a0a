"""What the gate counts, and its text for a Prometheus scraper (text format 0.0.4).

prometheus_client is the daemon's; a sidecar of a few counters writes the format itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass
class Counts:
    """A counter for each combination of label values."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    values: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add(self, *values: str) -> None:
        self.values[values] = self.values.get(values, 0) + 1

    def total(self) -> int:
        return sum(self.values.values())

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.meaning, "counter")
        if not self.labels and not self.values:
            yield f"{self.name} 0"
        for values, count in sorted(self.values.items()):
            yield f"{self.name}{_labels(zip(self.labels, values, strict=True))} {count}"


class Durations:
    """A histogram of seconds for each class."""

    def __init__(self, name: str, meaning: str) -> None:
        self.name = name
        self.meaning = meaning
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def add(self, klass: str, seconds: float) -> None:
        buckets = self._buckets.setdefault(klass, [0] * (len(SECONDS) + 1))
        buckets[bisect_left(SECONDS, seconds)] += 1
        self._sums[klass] = self._sums.get(klass, 0.0) + seconds

    def count(self, klass: str) -> int:
        return sum(self._buckets.get(klass, ()))

    def lines(self) -> Iterator[str]:
        yield from _head(self.name, self.meaning, "histogram")
        for klass, buckets in sorted(self._buckets.items()):
            below = 0
            for bound, count in zip((*map(repr, SECONDS), "+Inf"), buckets, strict=True):
                below += count
                yield f"{self.name}_bucket{_labels((('class', klass), ('le', bound)))} {below}"
            yield f"{self.name}_sum{_labels((('class', klass),))} {self._sums[klass]:.6f}"
            yield f"{self.name}_count{_labels((('class', klass),))} {below}"


class Counters:
    """All of one gate's."""

    def __init__(self) -> None:
        self.requests = Counts(
            "aim_gate_requests_total",
            "Requests by class and by what became of them: an outcome of the dispatch service (granted: it went on), "
            "free, passed, or the reason of the gate's own refusal.",
            ("class", "outcome"),
        )
        self.answers = Counts("aim_gate_responses_total", "Responses by status code.", ("code",))
        self.failures = Counts(
            "aim_gate_upstream_failures_total", "Requests that the model server failed, by reason.", ("reason",)
        )
        self.unreachable = Counts(
            "aim_gate_aimd_unreachable_total", "Requests for which aimd could not be asked.", ("policy",)
        )
        self.cut = Counts("aim_gate_cut_total", "Requests that ended before their answer was whole.", ("reason",))
        self.lost = Counts("aim_gate_lost_leases_total", "Leases that were taken back while their request ran.")
        self.turned_away = Counts("aim_gate_connections_refused_total", "Connections beyond --connections.")
        self.wait = Durations("aim_gate_wait_seconds", "From a request's arrival to its lease.")
        self.first_byte = Durations("aim_gate_first_byte_seconds", "From arrival to the first byte of the response.")
        self.duration = Durations("aim_gate_request_seconds", "From arrival to the end of the response.")

    def text(self, gauges: Iterable[tuple[str, str, int]]) -> str:
        """Everything; `gauges` are names, meanings and values of now."""
        lines = [
            line for family in vars(self).values() if isinstance(family, Counts | Durations) for line in family.lines()
        ]
        for name, meaning, value in gauges:
            lines += [*_head(name, meaning, "gauge"), f"{name} {value}"]
        return "\n".join(lines) + "\n"


def _head(name: str, meaning: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"


def _labels(pairs: Iterable[tuple[str, str]]) -> str:
    text = ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)
    return f"{{{text}}}" if text else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
