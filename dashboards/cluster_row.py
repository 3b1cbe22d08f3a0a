"""Row of the dashboard of node health: the nodes in their cluster. Empty where none is configured."""

from __future__ import annotations

from dashboards.board import Panel, Query, Row
from dashboards.words import BAD, NODE, OK, RATE, WARN, quantile

CONNECTED = (("0", "no", BAD), ("1", "yes", OK))


def _count(title: str, description: str, expression: str, legend: str, colour: str = WARN) -> Panel:
    """A number that should be 0."""
    steps = ((None, OK), (1, colour))
    return Panel(title, description, (Query(expression, legend),), kind="stat", width=4, height=4, steps=steps)


CLUSTER_ROW = Row(
    "Cluster",
    (
        Panel(
            "Nodes in step",
            "Nodes that have listed what they follow, and are told of changes.",
            (
                Query(
                    f"sum(min by (instance) (aim_kube_synced{{{NODE}}} * aim_kube_watch_connected{{{NODE}}}))", "nodes"
                ),
            ),
            kind="stat",
            width=4,
            height=4,
        ),
        _count(
            "Missing resources",
            "Resources that the API server does not have: a CRD is not installed.",
            f"sum(aim_kube_resource_missing{{{NODE}}})",
            "resources",
        ),
        _count(
            "Writes that fail",
            "What is to be written, and could not be at the last attempt.",
            f"sum(aim_kube_writes_failing{{{NODE}}})",
            "writes",
        ),
        _count(
            "Other managers",
            "Other managers of partitions that were found on the nodes: no mode is changed there.",
            f"sum(aim_kube_conflicting_managers{{{NODE}}})",
            "managers",
            BAD,
        ),
        _count(
            "Specs refused",
            "Nodes whose NodePartitions ask for what is not carried out.",
            f"sum(aim_kube_spec_refused{{{NODE}}})",
            "specs",
        ),
        _count(
            "Pods refused",
            "Pods that ask for what cannot be; their Events say why.",
            f"sum(aim_kube_pods_refused{{{NODE}}})",
            "pods",
        ),
        Panel(
            "Told of changes",
            "Whether the API server tells of changes, by node and resource.",
            (Query(f"min by (instance, resource) (aim_kube_watch_connected{{{NODE}}})", "{{instance}} {{resource}}"),),
            kind="state-timeline",
            states=CONNECTED,
            steps=((None, BAD), (1, OK)),
        ),
        Panel(
            "Since the last word",
            "Seconds since the API server last said anything; it does so each minute.",
            (
                Query(
                    f"time() - max by (instance, resource) (aim_kube_last_word_timestamp_seconds{{{NODE}}})",
                    "{{instance}} {{resource}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            "Requests to the API server",
            "Requests per second by verb and HTTP status, or what kept an answer from coming.",
            (Query(f"sum by (verb, code) (rate(aim_kube_requests_total{{{NODE}}}{RATE}))", "{{verb}} {{code}}"),),
            unit="reqps",
        ),
        Panel(
            "Requests, 99th percentile",
            "Seconds until the answer was read; of watches until they began.",
            (Query(quantile(0.99, "aim_kube_request_duration_seconds", NODE, "verb"), "{{verb}}"),),
            unit="s",
        ),
        Panel(
            "Ends of watches, and lists",
            "Watches that ended per second by reason, those that ended in their time included, and lists.",
            (
                Query(f"sum by (reason) (rate(aim_kube_watch_ends_total{{{NODE}}}{RATE}))", "{{reason}}"),
                Query(f"sum by (reason) (rate(aim_kube_lists_total{{{NODE}}}{RATE}))", "list: {{reason}}"),
            ),
            unit="ops",
        ),
        Panel(
            "Pauses after failures",
            "Share of the time in which what follows or writes waits before it tries again.",
            (Query(f"max by (part) (rate(aim_kube_backoff_seconds_total{{{NODE}}}{RATE}))", "{{part}}"),),
            unit="percentunit",
        ),
        Panel(
            "Writes",
            "Writes per second that succeeded, by kind; a status that was as it should be counts.",
            (Query(f"sum by (kind) (rate(aim_kube_writes_total{{{NODE}}}{RATE}))", "{{kind}}"),),
            unit="ops",
        ),
        Panel(
            "Writes that wait",
            "What is to be written, by kind.",
            (Query(f"sum by (kind) (aim_kube_writes_waiting{{{NODE}}})", "{{kind}}"),),
            decimals=0,
            stacked=True,
        ),
        Panel(
            "Until it was written, 99th percentile",
            "Seconds from when there was something to write, attempts and pauses included.",
            (Query(quantile(0.99, "aim_kube_write_duration_seconds", NODE, "kind"), "{{kind}}"),),
            unit="s",
        ),
        Panel(
            "Attempts again, and writes given up",
            "Attempts per second that have to be repeated, writes that were given up, and Events that were not sent.",
            (
                Query(
                    f"sum by (kind, reason) (rate(aim_kube_write_retries_total{{{NODE}}}{RATE}))", "{{kind}} {{reason}}"
                ),
                Query(
                    f"sum by (kind) (rate(aim_kube_writes_dropped_total{{{NODE}}}{RATE})) or vector(0)",
                    "{{kind}} given up",
                ),
                Query(f"sum(rate(aim_kube_events_held_back_total{{{NODE}}}{RATE}))", "Events held back"),
            ),
            unit="ops",
        ),
    ),
)
