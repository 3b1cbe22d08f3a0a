"""Counters and histograms of what happens on the control path, counted when it happens. Implements ports.Meters."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import Metric

from aimd.domain.modes import PartitionMode

OPERATIONS = {
    "assign": ("ok", "refused", "conflict", "failed"),
    "release": ("ok", "not_found", "failed"),
    "plan": ("ok", "refused", "failed"),
    "switch": ("committed", "failed", "needs_operator", "refused", "conflict"),
    "drain": ("ok", "failed"),
}
OPERATIONS_HELP = (
    "Operations of the daemon by outcome. assign, release, plan, drain: requests of claims and plans; switch: steps of mode"
    " changes that ended, and changes that were refused; acquire: requests of models, granted or why not; cancel: requests"
    " that their clients took back. Of this daemon's life. Absent: it has not happened."
)
CHANGES_HELP = "Mode changes of a GPU that ended, by modes and result: committed, failed, needs_operator. An unknown mode is ?. Of this daemon's life. Absent: it has not happened."
RECOVERIES_HELP = "What the ledger had to do to itself at this daemon's start, by kind of event (ledger_quarantined, ...). Of this daemon's life. Absent: it has not happened."
CHANGE_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120)
SHORT_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Instruments:
    """Everything counted since the daemon began; safe to use from any thread.

    Attributes:
        operations: of the control path; the page adds those of requests, which the dispatch core counts.
    """

    def __init__(self) -> None:
        self.operations = _counter("aim_scheduler_operations", OPERATIONS_HELP, "operation", "outcome")
        self._changes = _counter("aim_gpu_partition_changes", CHANGES_HELP, "gpu_id", "from", "to", "result")
        self._change_seconds = Histogram(
            "aim_gpu_partition_change_duration_seconds",
            "Seconds of mode changes of a GPU from their step's beginning to its end, the wait for its users included. Of this daemon's life. Absent: it has not happened.",
            ("gpu_id", "result"),
            buckets=CHANGE_SECONDS,
            registry=None,
        )
        self._decision = _short(
            "aim_scheduler_decision_duration_seconds",
            "Seconds that the control path took to decide. Of this daemon; never absent.",
        )
        self._commits = _counter(
            "aim_ledger_commits",
            "Commits of the ledger by result; one that failed is tried again. Of this daemon's life. Absent: it has not happened.",
            "result",
        )
        self._commit = _short(
            "aim_ledger_commit_duration_seconds",
            "Seconds of a commit of the ledger, until it is durable. Of this daemon; never absent.",
        )
        self._recoveries = _counter("aim_ledger_recoveries", RECOVERIES_HELP, "kind")
        self._reloads = _counter(
            "aim_config_reloads",
            "Reloads of the configuration by result; one with an error changed nothing. Of this daemon's life. Absent: it has not happened.",
            "result",
        )
        self._reload_ok = Gauge(
            "aim_config_last_reload_successful",
            "1 if the last reload of the configuration, or the start, was. Of this daemon; never absent.",
            registry=None,
        )
        self._lag = _short(
            "aim_event_loop_lag_seconds",
            "Seconds that the daemon's event loop came too late, seen every 0.5 s. Of this daemon; never absent.",
        )
        self._begin()

    def _begin(self) -> None:
        """Have a 0 of what may well happen: a rate over its first time needs it."""
        for operation, outcomes in OPERATIONS.items():
            for outcome in outcomes:
                self.operations.labels(operation, outcome)
        for result in ("ok", "error"):
            self._commits.labels(result)
            self._reloads.labels(result)
        self._reload_ok.set(1)

    def operation(self, operation: str, outcome: str) -> None:
        self.operations.labels(operation, outcome).inc()

    def mode_changed(
        self, gpu: str, before: PartitionMode, after: PartitionMode, result: str, seconds: float | None
    ) -> None:
        self._changes.labels(gpu, str(before), str(after), result).inc()
        if seconds is not None:
            self._change_seconds.labels(gpu, result).observe(seconds)

    def decided(self, seconds: float) -> None:
        self._decision.observe(seconds)

    def committed(self, seconds: float, *, ok: bool) -> None:
        self._commits.labels("ok" if ok else "error").inc()
        if ok:
            self._commit.observe(seconds)

    def recovered(self, kind: str) -> None:
        self._recoveries.labels(kind).inc()

    def reloaded(self, *, ok: bool) -> None:
        self._reloads.labels("ok" if ok else "error").inc()
        self._reload_ok.set(int(ok))

    def lagged(self, seconds: float) -> None:
        self._lag.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """All but `operations`."""
        for one in (
            self._changes, self._change_seconds, self._decision, self._commits, self._commit, self._recoveries,
            self._reloads, self._reload_ok, self._lag,
        ):  # fmt: skip
            yield from one.collect()


def _short(name: str, words: str) -> Histogram:
    return Histogram(name, words, buckets=SHORT_SECONDS, registry=None)


def _counter(name: str, words: str, *labels: str) -> Counter:
    return Counter(name, words, labels, registry=None)
