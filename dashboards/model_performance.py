"""Dashboard: how models serve their requests, and how they keep what was promised."""

from __future__ import annotations

from dashboards.board import Board, Panel, Query, Row
from dashboards.words import BAD, INSTANCES, MODEL, MODELS, OK, RATE, WARN, quantile, share

LATENCY = "aim_model_request_latency_seconds"
WAIT = "aim_model_request_queue_wait_seconds"
ENDED = f"sum by (model) (rate(aim_model_requests_total{{{MODEL}}}{RATE}))"
DONE = f'sum by (model) (rate(aim_model_requests_total{{{MODEL},outcome="released"}}{RATE}))'
# What a floor counts: every lease that was given back (aimd/domain/traffic.py).
RETURNED = f'sum by (model) (rate(aim_model_requests_total{{{MODEL},outcome=~"released|late|failed"}}{RATE}))'
TAKEN_BACK = f'(sum by (model) (rate(aim_model_requests_total{{{MODEL},outcome="cancelled"}}{RATE})) or {ENDED} * 0)'
GOOD, SPENT = (
    f"sum by (model) (increase(aim_model_slo_{kind}_total{{{MODEL}}}[$__range]))" for kind in ("good", "bad")
)
OBJECTIVE = f"max by (model) (aim_model_slo_objective_ratio{{{MODEL}}})"

REQUEST_ROW = Row(
    "Requests",
    (
        Panel(
            "Requests that ended",
            "Requests of each model that came to an end, by any outcome.",
            (Query(ENDED, "{{model}}"),),
            unit="reqps",
        ),
        Panel(
            "Outcomes",
            "How requests ended: released is well and in time, late after the target of the claim.",
            (
                Query(
                    f"sum by (outcome) (rate(aim_model_requests_total{{{MODEL}}}{RATE}))",
                    "{{outcome}}",
                ),
            ),
            unit="reqps",
            stacked=True,
        ),
        Panel(
            "Success ratio",
            "Requests that were released well and in time, of all but those that clients took back.",
            (Query(share(f"{DONE} or {ENDED} * 0", f"{ENDED} - {TAKEN_BACK}"), "{{model}}"),),
            unit="percentunit",
            most=1,
        ),
        Panel(
            "Rejections by reason",
            "Requests that ended without a lease against their client's will, on all partitions.",
            (
                Query(
                    f"sum by (model, reason) (rate(aim_model_requests_rejected_total{{{MODEL}}}{RATE}))",
                    "{{model}}: {{reason}}",
                ),
            ),
            unit="reqps",
        ),
    ),
)

LATENCY_ROW = Row(
    "Latency",
    (
        Panel(
            "Latency, median and 99th percentile",
            "Seconds from acquire to release of leases that were given back.",
            (
                Query(quantile(0.5, LATENCY, MODEL, "model"), "{{model}} p50"),
                Query(quantile(0.99, LATENCY, MODEL, "model"), "{{model}} p99"),
            ),
            unit="s",
        ),
        Panel(
            "Latency by class, 95th percentile",
            "Seconds from acquire to release, apart by the class of the request.",
            (Query(quantile(0.95, LATENCY, MODEL, "class"), "{{class}}"),),
            unit="s",
        ),
        Panel(
            "Wait for a lease, 95th percentile",
            "Seconds from acquire to grant of requests that got a lease.",
            (Query(quantile(0.95, WAIT, MODEL, "model, class"), "{{model}} {{class}}"),),
            unit="s",
        ),
        Panel(
            "Distribution of latency",
            "Requests per second in each bucket of latency.",
            (Query(f"sum by (le) (rate({LATENCY}_bucket{{{MODEL}}}{RATE}))", "{{le}}"),),
            unit="s",
            kind="heatmap",
        ),
        Panel(
            "Requests in flight",
            "Leases that run now.",
            (Query(f"sum by (model) (aim_model_requests_in_flight{{{MODEL}}})", "{{model}}"),),
            decimals=0,
            stacked=True,
        ),
        Panel(
            "Time waited of the whole",
            "Time that requests waited for a lease, of the time that they waited or had one.",
            (
                Query(
                    share(
                        f"sum by (model) (rate({WAIT}_sum{{{MODEL}}}{RATE}))",
                        f"sum by (model) (rate({WAIT}_sum{{{MODEL}}}{RATE}))"
                        f" + sum by (model) (rate(aim_scheduler_slot_seconds_total{{{MODEL}}}{RATE}))",
                    ),
                    "{{model}}",
                ),
            ),
            unit="percentunit",
            most=1,
        ),
    ),
)

SLO_ROW = Row(
    "Service level objectives",
    (
        Panel(
            "Objective met",
            "Whether the objective was met in the last hour, by what it is about. Models without one are absent.",
            (Query(f"min by (model, objective) (aim_model_slo_met{{{MODEL}}})", "{{model}} {{objective}}"),),
            kind="state-timeline",
            states=(("0", "missed", BAD), ("1", "met", OK)),
            steps=((None, BAD), (1, OK)),
        ),
        Panel(
            "Burn rate",
            "How many times faster than it may a model uses up its error budget, over windows. 14.4 for an hour pages.",
            (Query(f"max by (model, window) (aim_model_slo_burn_rate{{{MODEL}}})", "{{model}} {{window}}"),),
            decimals=1,
            steps=((None, OK), (1, WARN), (14.4, BAD)),
        ),
        Panel(
            "Error budget left",
            "Of the budget for the requests in the time shown above: 1 is untouched, below 0 it is overdrawn.",
            (
                Query(
                    f"1 - (({SPENT} or {GOOD} * 0) / ({GOOD} + ({SPENT} or {GOOD} * 0))) / (1 - {OBJECTIVE})",
                    "{{model}}",
                ),
            ),
            unit="percentunit",
            kind="bargauge",
            least=-1,
            most=1,
            steps=((None, BAD), (0, WARN), (0.25, OK)),
        ),
        Panel(
            "What used up the budget",
            "Requests that were not good, by reason, in the time shown above.",
            (
                Query(
                    f"sum by (model, reason) (increase(aim_model_slo_bad_total{{{MODEL}}}[$__range])) > 0",
                    "{{model}}: {{reason}}",
                ),
            ),
            kind="bargauge",
            decimals=0,
        ),
        Panel(
            "Throughput and its floor",
            "Releases per second, well and in time or not, of models that have a floor, and the floor.",
            (
                Query(
                    f"{RETURNED} and on (model) max by (model) (aim_model_slo_throughput_floor{{{MODEL}}})", "{{model}}"
                ),
                Query(f"max by (model) (aim_model_slo_throughput_floor{{{MODEL}}})", "{{model}} floor"),
            ),
            unit="reqps",
        ),
        Panel(
            "Latency and its target",
            "The 99th percentile of models that have a target, and the target.",
            (
                Query(
                    f"{quantile(0.99, LATENCY, MODEL, 'model')} "
                    f"and on (model) max by (model) (aim_model_slo_latency_target_seconds{{{MODEL}}})",
                    "{{model}} p99",
                ),
                Query(f"max by (model) (aim_model_slo_latency_target_seconds{{{MODEL}}})", "{{model}} target"),
            ),
            unit="s",
        ),
    ),
)

BOARD = Board(
    "aimd-model-performance",
    "aimd / Model performance",
    "Requests, latency and service level objectives of the models that share the partitions.",
    (REQUEST_ROW, LATENCY_ROW, SLO_ROW),
    (INSTANCES, MODELS),
)
