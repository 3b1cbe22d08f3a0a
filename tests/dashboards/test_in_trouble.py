"""A daemon in every kind of trouble, as Prometheus sees it: what alerts look at, brought about by real faults."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dashboards.panel_targets import DASHBOARDS
from tests.dashboards.prometheus_api import PrometheusApi
from tests.dashboards.scraping_server import ScrapingServer
from tests.dashboards.trouble_scene import FAILED, GPUS, TroubleScene
from tests.integration.test_metrics import free_port

FAULTS = Path(__file__).parents[1] / "integration" / "disk_faults.c"
SCRAPE_SECONDS = 0.5
WAITING = "sum by (gpu_id, partition_id) (aim_scheduler_queue_depth)"
# What can be seen of each trouble.
SIGNS = [
    ("orphan", "aim_orphans", 1),
    ("orphan", 'aim_assignments{state="orphaned"}', 1),
    ("memory_overrun", 'aim_gpu_partition_memory_finding{kind="over-limit",model="llama"}', 1),
    (
        "memory_overrun",
        "max(aim_gpu_partition_memory_used_bytes / aim_gpu_partition_memory_allocated_bytes) > bool 1",
        1,
    ),
    ("burning", 'aim_model_slo_bad_total{model="llama",reason="failed"}', FAILED),
    ("burning", 'aim_model_slo_burn_rate{model="llama",window="1h"}', 100),
    ("burning", 'aim_model_slo_alert{model="llama",severity="page"}', 1),
    ("burning", 'aim_model_slo_alert{model="llama",severity="ticket"}', 1),
    ("burning", 'aim_model_slo_met{model="llama",objective="latency"}', 0),
    ("full_queue", f"max({WAITING} / on (gpu_id, partition_id) aim_scheduler_queue_limit)", 1),
    ("failed_change", f'sum(aim_gpu_partition_changes_total{{gpu_id="{GPUS[1]}",result!="committed"}})', 1),
    ("failed_change", f'aim_gpu_partition_drift{{gpu_id="{GPUS[1]}"}}', 1),
    ("failed_change", f'aim_gpu_state{{gpu_id="{GPUS[1]}",state="lost"}}', 1),
    ("failed_change", f'aim_gpu_partitions{{gpu_id="{GPUS[1]}"}}', 0),
    ("stuck_change", "sum(aim_gpu_partition_change_in_progress)", 1),
    ("stuck_change", f'aim_gpu_holders{{gpu_id="{GPUS[2]}"}}', 1),
    ("failing_ledger", 'aim_ledger_commits_total{result="error"} > bool 0', 1),
    ("failing_ledger", 'aim_health_check{check="ledger"}', 0),
    ("failed_reload", "aim_config_last_reload_successful", 0),
    ("failed_reload", 'aim_config_reloads_total{result="error"}', 1),
    ("failed_reload", 'aim_health_check{check="ledger"}', 1),
    ("restarting", "changes(process_start_time_seconds[30s]) >= bool 3", 1),
    ("restarting", "aim_config_last_reload_successful", 1),
    ("down", "up", 0),
]


class Troubled:
    def __init__(self, api: PrometheusApi, instants: dict[str, float]) -> None:
        self.api = api
        self.instants = instants


@pytest.fixture(scope="module")
def troubled(tmp_path_factory) -> Iterator[Troubled]:
    binary, compiler = shutil.which("prometheus"), shutil.which("cc")
    if binary is None or compiler is None:
        pytest.skip("no prometheus, or no C compiler, here")
    library = tmp_path_factory.mktemp("faults") / "disk_faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, FAULTS, "-ldl"], check=True)
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        home, port = Path(folder), free_port()
        home.chmod(0o755)
        rules = tuple(sorted(DASHBOARDS.glob("*rules.y*ml")))
        data = tmp_path_factory.mktemp("prometheus")
        server = ScrapingServer(Path(binary), data, free_port(), f"127.0.0.1:{port}", rules, SCRAPE_SECONDS)
        scene = TroubleScene(home, port, library, lambda: time.sleep(2.5 * SCRAPE_SECONDS))
        try:
            scene.start()
            server.start()
            scene.run()
            yield Troubled(server.api, scene.instants)
        finally:
            scene.close()
            server.close()


@pytest.mark.parametrize(("trouble", "expression", "expected"), SIGNS)
def test_the_signs_of_trouble(troubled: Troubled, trouble: str, expression: str, expected: float) -> None:
    found = [one.value for one in troubled.api.query(expression, troubled.instants[trouble])]
    assert found == [pytest.approx(expected)]
