"""Dashboard: whether the daemons are well, and what of their nodes needs a person."""

from __future__ import annotations

from dashboards.board import Board, Panel, Query, Row
from dashboards.cluster_row import CLUSTER_ROW
from dashboards.words import BAD, INSTANCES, NODE, OK, RATE, WARN, quantile

YES_NO = (("0", "no", BAD), ("1", "yes", OK))
FINE = ((None, BAD), (1, OK))

STATE_ROW = Row(
    "State",
    (
        Panel(
            "Daemons ready",
            "Nodes whose inventory is complete and whose daemon can be used.",
            (Query(f"sum(aim_node_ready{{{NODE}}})", "ready"),),
            kind="stat",
            width=4,
            height=4,
        ),
        Panel(
            "Since the last restart",
            "Time since a daemon began, of the one that began last.",
            (Query(f"min(time() - process_start_time_seconds{{{NODE}}} and on (instance) aim_build_info)", "up"),),
            unit="s",
            kind="stat",
            width=4,
            height=4,
        ),
        Panel(
            "GPUs not ready",
            "GPUs that are lost, hidden from the daemon, or gone.",
            (Query(f'sum(aim_gpu_state{{{NODE},state!="ready"}}) or vector(0)', "GPUs"),),
            kind="stat",
            width=4,
            height=4,
            steps=((None, OK), (1, BAD)),
        ),
        Panel(
            "Warnings",
            "What the last look at the node could not make out, and what of the configuration cannot be carried out.",
            (Query(f"sum(aim_node_warnings{{{NODE}}})", "warnings"),),
            kind="stat",
            width=4,
            height=4,
            steps=((None, OK), (1, WARN)),
        ),
        Panel(
            "Orphans",
            "Processes of claims that were found dead and still keep their place.",
            (Query(f"sum(aim_orphans{{{NODE}}})", "orphans"),),
            kind="stat",
            width=4,
            height=4,
            steps=((None, OK), (1, WARN)),
        ),
        Panel(
            "Left behind",
            "Processes that go on after their claim was released; what they have stays reserved.",
            (Query(f"sum(aim_left_behind{{{NODE}}})", "processes"),),
            kind="stat",
            width=4,
            height=4,
            steps=((None, OK), (1, WARN)),
        ),
        Panel(
            "Health checks",
            "The checks of /healthz and /readyz; the pages say why one is not passed.",
            (Query(f"min by (instance, check) (aim_health_check{{{NODE}}})", "{{instance}} {{check}}"),),
            kind="state-timeline",
            states=YES_NO,
            steps=FINE,
        ),
        Panel(
            "GPU states",
            "The state that each GPU is in.",
            (Query(f"sum by (state) (aim_gpu_state{{{NODE}}})", "{{state}}"),),
            decimals=0,
            stacked=True,
        ),
    ),
)

CLAIM_ROW = Row(
    "Claims and ledger",
    (
        Panel(
            "Claims",
            "Claims in the ledger by state.",
            (Query(f"sum by (state) (aim_claims{{{NODE}}})", "{{state}}"),),
            decimals=0,
            stacked=True,
        ),
        Panel(
            "Assignments",
            "Replicas that have a place: held by a living process, orphaned, free.",
            (Query(f"sum by (state) (aim_assignments{{{NODE}}})", "{{state}}"),),
            decimals=0,
            stacked=True,
        ),
        Panel(
            "Commits of the ledger",
            "Commits per second by result; one that failed is tried again.",
            (Query(f"sum by (result) (rate(aim_ledger_commits_total{{{NODE}}}{RATE}))", "{{result}}"),),
            unit="ops",
        ),
        Panel(
            "Commit until durable, 99th percentile",
            "Seconds of a commit of the ledger.",
            (Query(quantile(0.99, "aim_ledger_commit_duration_seconds", NODE, "instance"), "{{instance}}"),),
            unit="s",
        ),
    ),
)

DAEMON_ROW = Row(
    "Daemon",
    (
        Panel(
            "Processor",
            "Seconds of processor time per second.",
            (
                Query(
                    f"rate(process_cpu_seconds_total{{{NODE}}}{RATE}) and on (instance) aim_build_info", "{{instance}}"
                ),
            ),
            unit="percentunit",
        ),
        Panel(
            "Resident memory",
            "Bytes that the daemon holds.",
            (Query(f"process_resident_memory_bytes{{{NODE}}} and on (instance) aim_build_info", "{{instance}}"),),
            unit="bytes",
        ),
        Panel(
            "Event loop too late, 99th percentile",
            "Seconds that the daemon's event loop came too late, seen every 0.5 s.",
            (Query(quantile(0.99, "aim_event_loop_lag_seconds", NODE, "instance"), "{{instance}}"),),
            unit="s",
        ),
        Panel(
            "Control loop idle",
            "Seconds since the control loop has ended a turn.",
            (Query(f"max by (instance) (aim_control_loop_idle_seconds{{{NODE}}})", "{{instance}}"),),
            unit="s",
        ),
        Panel(
            "Failures",
            "What the control loop could not handle, parts of the metrics page that could not be read, failed reloads.",
            (
                Query(f"sum(rate(aim_control_loop_failures_total{{{NODE}}}{RATE}))", "control loop"),
                Query(f"sum by (collector) (rate(aim_collector_errors_total{{{NODE}}}{RATE}))", "page: {{collector}}"),
                Query(f'sum(rate(aim_config_reloads_total{{{NODE},result!="ok"}}{RATE}))', "reloads"),
            ),
            unit="ops",
        ),
        Panel(
            "Open files",
            "File descriptors of the daemon.",
            (Query(f"process_open_fds{{{NODE}}} and on (instance) aim_build_info", "{{instance}}"),),
            decimals=0,
        ),
        Panel(
            "Parts of the metrics page",
            "Seconds that each part took on the last page.",
            (
                Query(
                    f"max by (collector) (aim_collector_duration_seconds{{{NODE}}})",
                    "{{collector}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Versions",
            "Daemons by version; simulated ones are told apart.",
            (
                Query(
                    f"count by (version, simulated) (aim_build_info{{{NODE}}})", "{{version}} simulated={{simulated}}"
                ),
            ),
            kind="bargauge",
            decimals=0,
        ),
    ),
)

BOARD = Board(
    "aimd-node-health",
    "aimd / Node health",
    "Whether the daemons are well, and what of their nodes needs a person.",
    (STATE_ROW, CLAIM_ROW, DAEMON_ROW, CLUSTER_ROW),
    (INSTANCES,),
)
