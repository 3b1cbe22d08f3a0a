"""The page of a node that is always the same, to be read as a diff; and what Prometheus itself says of it."""

import re
import subprocess

from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.metrics import scene

REQUIRED = [
    "aim_gpu_partition_memory_bytes",
    "aim_gpu_partition_utilization",
    "aim_model_request_latency_seconds",
    "aim_model_requests_total",
    "aim_scheduler_queue_depth",
    "aim_scheduler_operations_total",
]


def test_golden_page():
    assert scene.HEADER + scene.page() == scene.GOLDEN.read_text(), "python -m tests.unit.metrics.scene writes it anew"


def test_promtool_finds_no_fault(promtool):
    result = subprocess.run(
        [promtool, "check", "metrics"], input=scene.GOLDEN.read_text(), capture_output=True, text=True
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_required_names_come_first():
    types = [line.split()[2] for line in scene.GOLDEN.read_text().splitlines() if line.startswith("# TYPE")]
    assert types[: len(REQUIRED)] == REQUIRED


def test_every_family_has_help_and_one_head():
    lines = scene.GOLDEN.read_text().splitlines()
    helped = [line.split(maxsplit=3) for line in lines if line.startswith("# HELP")]
    assert len({name for _, _, name, _ in helped}) == len(helped)
    assert all(len(words) > 20 and words.endswith(".") for *_, words in helped)


def test_both_formats_say_the_same():
    text = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(scene.page())
        for sample in family.samples
    }
    openmetrics = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in openmetrics_parser.text_string_to_metric_families(scene.page(openmetrics=True))
        for sample in family.samples
    }
    assert openmetrics == text
    assert len(text) > 400


def test_every_help_says_what_it_means_that_a_series_is_absent():
    helps = re.findall(r"^# HELP (aim_\S+) (.*)$", scene.GOLDEN.read_text(), re.MULTILINE)
    assert len(helps) > 70
    assert [name for name, text in helps if "bsent" not in text] == []
