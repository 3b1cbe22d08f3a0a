"""Dashboard: what waits for partitions, who gets their slots, and what the control path did."""

from __future__ import annotations

from dashboards.board import Board, Panel, Query, Row
from dashboards.words import (
    BAD,
    BY_PLACE,
    GPU,
    GPUS,
    INSTANCES,
    MODELS,
    NODE,
    OK,
    PARTITION,
    RATE,
    WARN,
    named,
    quantile,
    share,
)

HERE = f'{GPU},model=~"$model"'
DEPTH = f"sum by ({BY_PLACE}) (aim_scheduler_queue_depth{{{GPU}}})"

QUEUE_ROW = Row(
    "Queues",
    (
        Panel(
            "Waiting requests by class",
            "Requests that wait for a lease now.",
            (Query(f"sum by (class) (aim_scheduler_queue_depth{{{HERE}}})", "{{class}}"),),
            decimals=0,
            stacked=True,
        ),
        Panel(
            "Waiting requests by model",
            "Requests that wait for a lease now.",
            (Query(f"sum by (model) (aim_scheduler_queue_depth{{{HERE}}})", "{{model}}"),),
            decimals=0,
        ),
        Panel(
            "Queues by partition",
            "Share of the requests that may wait on a partition (dispatch.queue_cap). At 1 further ones are refused.",
            (Query(named(share(DEPTH, f"max by ({BY_PLACE}) (aim_scheduler_queue_limit{{{GPU}}})")), PARTITION),),
            unit="percentunit",
            kind="bargauge",
            most=1,
            steps=((None, OK), (0.5, WARN), (0.8, BAD)),
        ),
        Panel(
            "Time with a backlog",
            "Share of the time in which a request of the model was waiting.",
            (Query(f"max by (model) (rate(aim_scheduler_backlog_seconds_total{{{HERE}}}{RATE}))", "{{model}}"),),
            unit="percentunit",
            most=1,
        ),
    ),
)

SLOT_ROW = Row(
    "Slots",
    (
        Panel(
            "Slots that models had",
            "Mean of the slots in use by each model, exact between two scrapes.",
            (Query(f"sum by (model) (rate(aim_scheduler_slot_seconds_total{{{HERE}}}{RATE}))", "{{model}}"),),
            stacked=True,
            decimals=2,
        ),
        Panel(
            "Slots had beyond the guarantee",
            "Mean slots in use less the guarantee: above 0 a model has what others leave, below it could have more.",
            (
                Query(
                    f"sum by (model) (rate(aim_scheduler_slot_seconds_total{{{HERE}}}{RATE}))"
                    f" - sum by (model) (aim_scheduler_guarantee_slots{{{HERE}}})",
                    "{{model}}",
                ),
            ),
            least=None,
            decimals=2,
        ),
        Panel(
            "Until a guarantee is met, 99th percentile",
            "Seconds from when a model waits below its guarantee to the grant that ends this.",
            (Query(quantile(0.99, "aim_scheduler_guarantee_reclaim_seconds", HERE, "model"), "{{model}}"),),
            unit="s",
        ),
        Panel(
            "Partitions that let nobody in",
            "Partitions whose GPU is being switched.",
            (Query(f"sum(aim_scheduler_partition_closed{{{GPU}}})", "closed"),),
            decimals=0,
        ),
    ),
)

CONTROL_ROW = Row(
    "Operations",
    (
        Panel(
            "Operations",
            "What the daemons were asked for and did, by outcome.",
            (
                Query(
                    f"sum by (operation, outcome) (rate(aim_scheduler_operations_total{{{NODE}}}{RATE}))",
                    "{{operation}} {{outcome}}",
                ),
            ),
            unit="ops",
        ),
        Panel(
            "Decisions, 99th percentile",
            "Seconds that the control path took to decide.",
            (Query(quantile(0.99, "aim_scheduler_decision_duration_seconds", NODE, "instance"), "{{instance}}"),),
            unit="s",
        ),
        Panel(
            "Connections of clients",
            "Open connections of the dispatch socket.",
            (Query(f"sum by (instance) (aim_dispatch_connections{{{NODE}}})", "{{instance}}"),),
            decimals=0,
        ),
        Panel(
            "Clients turned away",
            "Connections that were refused, ended for not reading or for a broken protocol, and clients denied a model.",
            (
                Query(f"sum(rate(aim_dispatch_connections_refused_total{{{NODE}}}{RATE}))", "too many"),
                Query(f"sum(rate(aim_dispatch_connections_given_up_total{{{NODE}}}{RATE}))", "does not read"),
                Query(f"sum(rate(aim_dispatch_faults_total{{{NODE}}}{RATE}))", "broken protocol"),
                Query(f"sum by (outcome) (rate(aim_dispatch_denied_total{{{NODE}}}{RATE}))", "denied: {{outcome}}"),
            ),
            unit="ops",
        ),
    ),
)

BOARD = Board(
    "aimd-scheduler-metrics",
    "aimd / Scheduler",
    "What waits for partitions, who gets their slots, and what the control path did.",
    (QUEUE_ROW, SLOT_ROW, CONTROL_ROW),
    (INSTANCES, GPUS, MODELS),
)
