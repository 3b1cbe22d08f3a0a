"""Writes the dashboards, the rules and what else follows from the tables of this folder.

    python -m dashboards.generate

Needs the extra `dev`. A test generates them again and finds no difference.
"""

from __future__ import annotations

from pathlib import Path

from dashboards import model_performance, node_health, partition_utilization, rules, scheduler_metrics
from dashboards.board import rendered
from dashboards.rule_files import manifest, rule_file

HERE = Path(__file__).parent
BOARDS = {
    "partition-utilization.json": partition_utilization.BOARD,
    "model-performance.json": model_performance.BOARD,
    "scheduler-metrics.json": scheduler_metrics.BOARD,
    "node-health.json": node_health.BOARD,
}


def generated() -> dict[Path, str]:
    """The text of each file."""
    groups = rules.GROUPS
    return {
        **{HERE / name: rendered(board) for name, board in BOARDS.items()},
        HERE / "aimd.rules.yml": rule_file(groups),
        HERE / "prometheus-rule.yaml": manifest(groups),
    }


def main() -> None:
    """Write them."""
    for path, text in generated().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
