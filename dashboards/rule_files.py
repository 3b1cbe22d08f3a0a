"""Rules as Prometheus reads them, and as the Prometheus operator does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from dashboards.rule import Alert, Group, Recording

HEADER = "# Written by `python -m dashboards.generate` from dashboards/rules.py: change that one.\n"


def rule_file(groups: Sequence[Group]) -> str:
    """A file for `rule_files` of prometheus.yml."""
    return HEADER + _text(_spec(groups))


def manifest(groups: Sequence[Group]) -> str:
    """A PrometheusRule (monitoring.coreos.com/v1) with the same rules."""
    about = {"name": "aimd", "labels": {"app.kubernetes.io/part-of": "aimd"}}
    kind = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule"}
    return HEADER + _text({**kind, "metadata": about, "spec": _spec(groups)})


def _text(document: object) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


def _spec(groups: Sequence[Group]) -> dict[str, Any]:
    return {"groups": [{"name": group.name, "rules": [_rule(rule) for rule in group.rules]} for group in groups]}


def _rule(rule: Alert | Recording) -> dict[str, Any]:
    if isinstance(rule, Recording):
        return {"record": rule.name, "expr": rule.expression}
    return {
        "alert": rule.name,
        "expr": rule.expression,
        **({"for": rule.lasting} if rule.lasting else {}),
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": rule.summary,
            "description": rule.description,
            "runbook": f"dashboards/runbook.md#{rule.name.lower()}",
        },
    }
