"""Every alert fires in its trouble, not before, and not after; as promtool evaluates the shipped rules."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from dashboards import generate
from dashboards.rule import Alert
from dashboards.rules import ALERTS, GROUPS
from tests.dashboards.alert_cases import CASES, Case

FOLDER = generate.HERE
RULES = FOLDER / "aimd.rules.yml"
BY_NAME = {alert.name: alert for alert in ALERTS}


def judged(promtool: str, *arguments: object) -> str:
    result = subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def as_test(case: Case) -> dict[str, object]:
    """A unit test of promtool: the alert as its series ALERTS, with all labels."""
    told = {"alertname": case.alert, "alertstate": "firing", "severity": BY_NAME[case.alert].severity, **case.labels}
    labels = ", ".join(f'{key}="{value}"' for key, value in told.items())
    expression = f'ALERTS{{alertname="{case.alert}",alertstate="firing"}}'
    sample = {"labels": f"ALERTS{{{labels}}}", "value": 1}
    times = [(time, []) for time in (*case.quiet, *case.clear)] + [(time, [sample]) for time in case.firing]
    return {
        "interval": case.step,
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [
            {"expr": expression, "eval_time": f"{time}m", "exp_samples": samples} for time, samples in sorted(times)
        ],
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert_fires_in_its_trouble_alone(promtool: str, tmp_path: Path, case: Case) -> None:
    names = [group.name for group in GROUPS]
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": case.step,
        "group_eval_order": names,
        "tests": [as_test(case)],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document, sort_keys=False))
    judged(promtool, "test", "rules", tmp_path / "test.yml")


def test_every_alert_has_a_case_that_fires_is_quiet_and_clears() -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for case in CASES:
        seen[case.alert] |= {name for name in ("quiet", "firing", "clear") if getattr(case, name)}
    assert seen == {alert.name: {"quiet", "firing", "clear"} for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_the_words_of_an_alert_name_labels_that_it_has(alert: Alert) -> None:
    used = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description))
    assert used
    for case in CASES:
        if case.alert == alert.name:
            assert used <= set(case.labels)


def test_the_rules_are_valid(promtool: str) -> None:
    count = sum(len(group.rules) for group in GROUPS)
    assert f"SUCCESS: {count} rules found" in judged(promtool, "check", "rules", RULES)


def test_the_manifest_has_the_same_rules() -> None:
    manifest = yaml.safe_load((FOLDER / "prometheus-rule.yaml").read_text())
    assert manifest["kind"] == "PrometheusRule"
    assert manifest["spec"] == yaml.safe_load(RULES.read_text())
