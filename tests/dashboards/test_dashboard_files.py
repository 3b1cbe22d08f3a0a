"""The files of dashboards/: as generated, complete, and of metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import generate
from dashboards.rule import Recording
from dashboards.rules import GROUPS

FOLDER = generate.HERE
GOLDEN = Path(__file__).parents[1] / "unit" / "metrics" / "golden.txt"
SUFFIXES = ("_bucket", "_sum", "_count")
FROM_ELSEWHERE = {
    "up",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
}
BOARDS = [json.loads((FOLDER / name).read_text()) for name in generate.BOARDS]


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


EVERY = [pytest.param(panel, id=f"{board['uid']}: {panel['title']}") for board in BOARDS for panel in panels(board)]


@pytest.mark.parametrize(("path", "text"), generate.generated().items(), ids=lambda value: getattr(value, "name", ""))
def test_the_generated_files_are_those_of_the_tables(path: Path, text: str) -> None:
    assert path.read_text("utf-8") == text, "write them anew: python -m dashboards.generate"


def test_the_dashboards_that_were_asked_for_are_there_under_names_that_stay() -> None:
    assert {board["uid"]: board["title"] for board in BOARDS} == {
        "aimd-partition-utilization": "aimd / Partition utilization",
        "aimd-model-performance": "aimd / Model performance",
        "aimd-scheduler-metrics": "aimd / Scheduler",
        "aimd-node-health": "aimd / Node health",
    }
    assert all("dashboard" not in board for board in BOARDS), "a dashboard, not an answer of Grafana's API"


@pytest.mark.parametrize("panel", EVERY)
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["legendFormat"] not in ("", "__auto"), "a legend that a person reads"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["uid"])
def test_panels_have_numbers_of_their_own_and_do_not_overlap(board: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["uid"])
def test_every_choice_at_the_top_is_used(board: dict[str, Any]) -> None:
    text = json.dumps(board["panels"])
    for variable in board["templating"]["list"]:
        assert f"${variable['name']}" in text or f"${{{variable['name']}}}" in text


def families() -> set[str]:
    found = re.findall(r"^# TYPE (\S+) (\S+)$", GOLDEN.read_text(), re.MULTILINE)
    plain = {name for name, _ in found}
    return plain | {name + suffix for name, kind in found if kind == "histogram" for suffix in SUFFIXES}


def names_in(expression: str) -> set[str]:
    without_strings = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:aim|process|model:aim)\w*(?::\w+)*", without_strings)) - {"model"}


@pytest.mark.parametrize("panel", EVERY)
def test_panels_ask_for_metrics_that_aimd_has(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        used = names_in(target["expr"])
        assert used, target["expr"]
        assert used <= families() | FROM_ELSEWHERE


def test_rules_ask_for_metrics_that_aimd_has() -> None:
    recorded = {rule.name for group in GROUPS for rule in group.rules if isinstance(rule, Recording)}
    for group in GROUPS:
        for rule in group.rules:
            assert names_in(rule.expression) <= families() | FROM_ELSEWHERE | recorded, rule.name


def test_the_six_names_that_must_exist_are_shown() -> None:
    used = {
        name
        for board in BOARDS
        for panel in panels(board)
        for target in panel["targets"]
        for name in names_in(target["expr"])
    }
    for name in (
        "aim_gpu_partition_memory_bytes",
        "aim_gpu_partition_utilization",
        "aim_model_request_latency_seconds_bucket",
        "aim_model_requests_total",
        "aim_scheduler_operations_total",
        "aim_scheduler_queue_depth",
    ):
        assert name in used


def test_the_pod_monitor_has_the_job_and_the_instance_that_the_rules_know() -> None:
    folder = FOLDER.parent / "k8s/daemonset/overlays/prometheus-operator"
    monitor = yaml.safe_load((folder / "pod-monitor.yaml").read_text())
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    labels = {each["targetLabel"]: each for each in endpoint["relabelings"]}
    assert labels["job"]["replacement"] == "aimd"
    assert labels["instance"]["sourceLabels"] == ["__meta_kubernetes_pod_node_name"]
