"""Families of the service level: objectives of claims, exact good and bad counts, and what ate the error budget. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from aimd.adapters.metrics.family import Descriptor, Family
from aimd.adapters.metrics.labels import ModelLabels
from aimd.adapters.metrics.view import View
from aimd.domain.budget import BAD_REASONS, budget_eaters
from aimd.domain.claim import NO_SLO, Claim
from aimd.domain.slo import Compliance, Objective, Verdict
from aimd.domain.traffic import ModelTraffic

MODEL = ("model",)
OBJECTIVE = Descriptor(
    "aim_model_slo_objective_ratio",
    "gauge",
    "Share of requests that are to be good, from the claim. This and all of aim_model_slo_* is absent for models whose claim"
    " has no objective, and for those under the label other.",
    MODEL,
)
TARGET = Descriptor(
    "aim_model_slo_latency_target_seconds",
    "gauge",
    "Seconds from acquire to release within which a request is good, from the claim. Absent without such a target.",
    MODEL,
)
FLOOR = Descriptor(
    "aim_model_slo_throughput_floor",
    "gauge",
    "Releases per second to be kept while something waits, from the claim. Absent without such an objective.",
    MODEL,
)
GOOD = Descriptor(
    "aim_model_slo_good",
    "counter",
    "Requests of the model that were released well within the target, on all its partitions, those that are gone included;"
    " exact, seconds old. Absent as the objective.",
    MODEL,
)
BAD = Descriptor(
    "aim_model_slo_bad",
    "counter",
    "Requests of the model that used up its error budget, by reason: late, failed, revoked, lost, expired, shed or a full"
    " queue. Exact, seconds old. Those that clients cancelled are neither good nor bad. Absent as the objective.",
    ("model", "reason"),
)
BURN = Descriptor(
    "aim_model_slo_burn_rate",
    "gauge",
    "How many times faster than it may the model uses up its error budget, over a window or what was counted of"
    " it since the daemon began. Absent while nothing was counted.",
    ("model", "window"),
)
MET = Descriptor(
    "aim_model_slo_met",
    "gauge",
    "1 if the objective (latency, throughput) was met in the last hour, 0 if not. Absent while too little was counted.",
    ("model", "objective"),
)
ALERT = Descriptor(
    "aim_model_slo_alert",
    "gauge",
    "1 for the severity (page, ticket) that the burn rates of a pair of windows call for now, 0 for the other. Absent as the objective.",
    ("model", "severity"),
)


def families(view: View, labels: ModelLabels) -> Iterator[Family]:
    """All of the service level."""
    claims = [
        claim for claim in view.snapshot.claims if claim.spec.slo != NO_SLO and labels.of(claim.name) == claim.name
    ]
    slos = [((claim.name,), claim.spec.slo) for claim in claims]
    default = Objective().good_ratio
    yield OBJECTIVE.of([(name, default if slo.objective is None else slo.objective) for name, slo in slos])
    yield TARGET.of([(name, slo.latency_seconds) for name, slo in slos if slo.latency_seconds is not None])
    yield FLOOR.of([(name, slo.throughput_floor) for name, slo in slos if slo.throughput_floor is not None])
    yield from _counted(view, claims)
    judged = [
        (claim.name, compliance)
        for claim, traffic in _traffic(view, claims)
        if (compliance := traffic.whole.compliance) is not None
    ]
    yield BURN.of(
        [
            ((name, window_text(seconds)), rate)
            for name, compliance in judged
            for seconds, rate in burn_rates(compliance).items()
            if rate is not None
        ]
    )
    yield MET.of(
        [
            ((name, objective), int(verdict is Verdict.MET))
            for name, compliance in judged
            for objective, verdict in (("latency", compliance.latency), ("throughput", compliance.throughput))
            if verdict is not Verdict.UNKNOWN
        ]
    )
    yield ALERT.of(
        [
            ((name, severity), int(any(burn.firing and burn.severity.value == severity for burn in compliance.burns)))
            for name, compliance in judged
            for severity in ("page", "ticket")
        ]
    )


def _counted(view: View, claims: list[Claim]) -> Iterator[Family]:
    counts = [(claim.name, traffic.whole.whole.counts) for claim, traffic in _traffic(view, claims)]
    yield GOOD.of([((name,), each.good) for name, each in counts])
    eaten = [(name, budget_eaters(each.outcomes, each.ends, each.bad)) for name, each in counts]
    yield BAD.of([((name, reason), reasons.get(reason, 0)) for name, reasons in eaten for reason in BAD_REASONS])


def _traffic(view: View, claims: list[Claim]) -> Iterator[tuple[Claim, ModelTraffic]]:
    models = view.board.models if view.board is not None else {}
    for claim in claims:
        if claim.name in models:
            yield claim, models[claim.name]


def burn_rates(compliance: Compliance) -> dict[int, float | None]:
    """The burn rate over each window, in seconds, the shortest first; one window is in two pairs."""
    rates = {burn.long_seconds: burn.long for burn in compliance.burns}
    rates |= {burn.short_seconds: burn.short for burn in compliance.burns}
    return dict(sorted(rates.items()))


def window_text(seconds: int) -> str:
    """As Prometheus writes durations: 5m, 6h, 3d."""
    size, unit = next(
        (size, unit) for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")) if seconds % size == 0
    )
    return f"{seconds // size}{unit}"
