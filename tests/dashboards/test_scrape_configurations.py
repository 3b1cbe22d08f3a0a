"""The ready scrape configurations, and what they find: promtool reads the page of the real program at both places."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from aimd.config import METRICS_ADDRESS
from aimd.rundirs import METRICS_SOCKET, daemon_directories
from dashboards import generate
from tests.integration.test_metrics import MeteredDaemon
from tests.integration.unix_http import ask

TCP, UNIX = generate.HERE / "prometheus.yml", generate.HERE / "prometheus-unix.yml"
ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"  # asks for either


@pytest.fixture(scope="module")
def daemon() -> Iterator[MeteredDaemon]:
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        Path(folder).chmod(0o755)
        daemon = MeteredDaemon(Path(folder))
        daemon.start()
        try:
            claim = daemon.aimctl("claim", "llama", "--memory", "8", "--slo-latency", "1", "--slo-objective", "0.99")
            assert claim.returncode == 0, claim.stderr
            yield daemon
        finally:
            daemon.close()


def group(path: Path) -> dict[str, Any]:
    """What is scraped, of a configuration with one job."""
    [job] = yaml.safe_load(path.read_text())["scrape_configs"]
    assert job["job_name"] == "aimd"
    [group] = job["static_configs"]
    return group


@pytest.mark.parametrize("path", [TCP, UNIX], ids=lambda path: path.name)
def test_prometheus_takes_it_with_the_rules(promtool: str, path: Path) -> None:
    result = subprocess.run([promtool, "check", "config", str(path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 rule files found" in result.stdout


def test_tcp_is_where_the_daemon_listens_by_default() -> None:
    assert group(TCP)["targets"] == [METRICS_ADDRESS]


def test_the_socket_is_where_a_daemon_of_root_has_it() -> None:
    runtime = daemon_directories({}, 0).runtime
    assert group(UNIX)["labels"]["__unix_socket__"] == f"{runtime}/{METRICS_SOCKET}"


def judged(promtool: str, page: str) -> None:
    result = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not result.stdout + result.stderr


def test_promtool_finds_no_fault_in_the_page_by_tcp(promtool: str, daemon: MeteredDaemon) -> None:
    page = daemon.page()
    assert 'aim_model_slo_objective_ratio{model="llama"} 0.99' in page
    judged(promtool, page)


def test_promtool_finds_no_fault_in_the_page_by_the_socket(promtool: str, daemon: MeteredDaemon) -> None:
    [host] = group(UNIX)["targets"]
    wishes = {"Host": host, "Accept": "text/plain;version=0.0.4", "Accept-Encoding": "gzip"}
    answer = ask(daemon.runtime / METRICS_SOCKET, "/metrics", headers=wishes)
    assert answer.status == 200
    judged(promtool, gzip.decompress(answer.body).decode())


def test_what_prometheus_asks_for_it_gets_by_the_socket(daemon: MeteredDaemon) -> None:
    [host] = group(UNIX)["targets"]
    answer = ask(daemon.runtime / METRICS_SOCKET, "/metrics", headers={"Host": host, "Accept": ACCEPT})
    assert answer.status == 200
    assert answer.type.startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


def test_curl_reads_the_socket(daemon: MeteredDaemon) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl here")
    command = [curl, "-sS", "--compressed", "--unix-socket", daemon.runtime / METRICS_SOCKET, "http://aimd/metrics"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "\naim_node_ready 1\n" in result.stdout
