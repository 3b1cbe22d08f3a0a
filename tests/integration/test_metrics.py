"""The metrics of the real program: exact under load, served beside half-open connections, gone with their partition."""

from __future__ import annotations

import contextlib
import gzip
import math
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from aimd.dispatch import Client
from aimd.dispatch.client import ExpiredError
from tests.e2e.programs import Daemon
from tests.integration.unix_http import ask

HALF_OPEN = 1500
CLIENTS, EACH, SECONDS = 8, 40, 0.004


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Metrics(dict[tuple[str, ...], float]):
    """Values by name and label values."""

    def of(self, *key: str) -> float:
        """NaN if it is absent: nothing is equal to that, and nothing less or more."""
        return self.get(key, math.nan)


class MeteredDaemon(Daemon):
    def __init__(self, home: Path, *options: str) -> None:
        self.port = free_port()
        config = home / "aimd.toml"
        config.write_text(f'[metrics]\nlisten = "127.0.0.1:{self.port}"\n')
        super().__init__(home, "mi300x:1", "--config", str(config), *options)

    def page(self, **fields: str) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/metrics", headers=fields)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read().decode()

    def metrics(self) -> Metrics:
        time.sleep(0.06)  # a page is shared for 50 ms
        families = text_string_to_metric_families(self.page())
        samples = [sample for family in families for sample in family.samples]
        return Metrics({(sample.name, *sample.labels.values()): sample.value for sample in samples})


@pytest.fixture
def daemon() -> Iterator[MeteredDaemon]:
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        Path(folder).chmod(0o755)
        daemon = MeteredDaemon(Path(folder))
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.close()


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr
    return process.stdout


def dispatch(daemon: Daemon) -> str:
    return str(daemon.runtime / "dispatch.sock")


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def until(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.05)


def work(daemon: Daemon, failed: int) -> None:
    """One client's requests, of which so many fail."""
    with Client(dispatch(daemon)) as client:
        for number in range(EACH):
            lease = client.acquire("llama", timeout=20, klass="high")
            time.sleep(SECONDS)
            lease.release(ok=number >= failed)


def test_counts_are_exact_and_go_with_their_partition(daemon):
    slo = ("--slo-latency", "5", "--slo-objective", "0.99")
    done(daemon.aimctl("claim", "llama", "--memory", "8", "--qos", "high", "--limit", "2", "--compute", "SPX", *slo))
    clients = [threading.Thread(target=work, args=(daemon, 3)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    seen = []
    while any(client.is_alive() for client in clients):
        seen.append(daemon.metrics())
    gpu = ("0000:05:00.0", "0")
    llama = ("llama", *gpu, "high")
    assert max(found.of("aim_model_requests_in_flight", *llama) for found in seen) == 2
    assert max(found.of("aim_scheduler_queue_depth", *gpu, "llama", "high") for found in seen) == CLIENTS - 2
    found = daemon.metrics()
    total = CLIENTS * EACH
    assert found.of("aim_model_requests_total", *llama, "failed") == CLIENTS * 3
    assert found.of("aim_model_requests_total", *llama, "released") == total - CLIENTS * 3
    for name in ("aim_model_request_latency_seconds_count", "aim_model_request_queue_wait_seconds_count"):
        assert found.of(name, *llama) == total
    assert found.of("aim_model_request_latency_seconds_bucket", *llama, "0.0025") == 0, "each took 4 ms at least"
    assert found.of("aim_scheduler_slot_seconds_total", "llama", *gpu) >= total * SECONDS
    assert found.of("aim_scheduler_operations_total", "acquire", "granted") == total
    assert found.of("aim_scheduler_operations_total", "assign", "ok") == 1
    until(lambda: daemon.metrics().of("aim_model_slo_good_total", "llama") == total - CLIENTS * 3)
    assert daemon.metrics().of("aim_model_slo_bad_total", "llama", "failed") == CLIENTS * 3
    done(daemon.aimctl("release", "llama"))
    done(daemon.aimctl("set-mode", "gpu0", "CPX/NPS1", "--wait", "20"))
    found = daemon.metrics()
    assert {key[2] for key in found if key[0] == "aim_gpu_partition_memory_bytes"} == {str(n) for n in range(8)}
    assert not [key for key in found if "llama" in key]
    assert found.of("aim_scheduler_operations_total", "acquire", "granted") == total
    until(
        lambda: daemon.metrics().of("aim_gpu_partition_changes_total", gpu[0], "SPX/NPS1", "CPX/NPS1", "committed") == 1
    )


def test_a_request_that_expires_is_counted(daemon):
    done(daemon.aimctl("claim", "llama", "--memory", "8", "--limit", "1"))
    with Client(dispatch(daemon)) as client, client.lease("llama", timeout=5), pytest.raises(ExpiredError):
        client.acquire("llama", timeout=0.05)
    assert daemon.metrics().of("aim_model_requests_rejected_total", "llama", "expired") == 1


def test_both_sockets_and_both_formats(daemon):
    path = daemon.runtime / "metrics.sock"
    answer = ask(path, "/metrics", headers={"Accept-Encoding": "gzip"})
    assert (answer.status, answer.type) == (200, "text/plain")
    assert b"aim_node_ready 1\n" in gzip.decompress(answer.body)
    page = daemon.page(Accept="application/openmetrics-text")
    assert "aim_node_ready" in {family.name for family in openmetrics_parser.text_string_to_metric_families(page)}
    assert ask(path, "/readyz").json == {"status": "ok", "failing": {}}
    assert ask(path, "/v1/gpus").status == 404
    for page, line in (("metrics", "aim_node_ready 1\n"), ("healthz", '"status":"ok"')):
        command = ["curl", "--silent", "--fail", "--compressed", "--unix-socket", str(path), f"http://aimd/{page}"]
        assert line in done(subprocess.run(command, capture_output=True, text=True)), page
    daemon.stop()
    assert not path.exists()


@pytest.mark.alone
def test_served_beside_half_open_connections(daemon):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < HALF_OPEN + 64:
        pytest.skip(f"a process may have {hard} descriptors here")
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], HALF_OPEN + 64), hard)
    )

    def scrape() -> float:
        time.sleep(0.06)  # else it is the same page again
        began = time.perf_counter()
        assert "aim_node_ready 1" in daemon.page()
        return time.perf_counter() - began

    alone = [scrape() for _ in range(20)]
    files = descriptors(daemon.pid)
    with contextlib.ExitStack() as crowd:
        for number in range(HALF_OPEN):
            connection = crowd.enter_context(socket.create_connection(("127.0.0.1", daemon.port), timeout=20))
            connection.sendall(b"GET /metrics HTTP/1.1\r\n" if number % 2 else b"")
        crowded = [scrape() for _ in range(20)]
        more = descriptors(daemon.pid) - files
    print(
        f"median {statistics.median(alone) * 1e3:.1f} ms alone, {statistics.median(crowded) * 1e3:.1f} ms in the crowd, {more} files"
    )
    assert more <= 64 + 16
    assert statistics.median(crowded) < 0.05 + 3 * statistics.median(alone)


def test_an_address_that_is_taken_ends_the_start_unless_it_is_the_default(tmp_path):
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        daemon = MeteredDaemon(Path(folder))
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", daemon.port))
            taken.listen()
            config = str(Path(folder) / "aimd.toml")
            command = [sys.executable, "-m", "aimd", "run", "--simulate", "mi300x:1", "--config", config]
            directories = ["--runtime-dir", f"{folder}/r", "--state-dir", f"{folder}/s"]
            process = subprocess.run(
                command + directories, capture_output=True, text=True, timeout=30, env=daemon.environment
            )
        assert process.returncode != 0
        assert f"metrics cannot be served at 127.0.0.1:{daemon.port}: Address already in use" in process.stderr
        assert "Traceback" not in process.stderr


def test_off_is_off():
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        daemon = MeteredDaemon(Path(folder))
        (Path(folder) / "aimd.toml").write_text('[metrics]\nlisten = "off"\n')
        daemon.start()
        try:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", daemon.port), timeout=5)
            assert ask(daemon.runtime / "metrics.sock", "/healthz").status == 200
        finally:
            daemon.close()
