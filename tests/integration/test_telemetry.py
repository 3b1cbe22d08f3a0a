"""The load of the simulated hardware follows the leases under which processes compute, and metrics tell it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.programs import Daemon
from tests.integration.unix_http import ask

GPU = "0000:05:00.0"
# A model server as it would be: a KFD client that computes while it has a lease, half of the time.
SERVER = """
import sys, time
from aimd.dispatch import Client
from aimd.sim.client import SimClient
with SimClient() as hardware, Client(sys.argv[1]) as client:
    hardware.join()
    print("ready", flush=True)
    while True:
        with client.lease("llama", timeout=20) as lease:
            gpu_id = hardware.gpu_id(lease.partition)
            hardware.compute(gpu_id, 1.0)
            time.sleep(0.05)
            hardware.compute(gpu_id, 0.0)
        time.sleep(0.05)
"""


def utilization(daemon: Daemon) -> tuple[dict[int, float], dict[str, float]]:
    """By partition, and which sources tell."""
    page = ask(daemon.runtime / "metrics.sock", "/metrics").body.decode()
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    shares = {int(s.labels["partition_id"]): s.value for s in samples if s.name == "aim_gpu_partition_utilization"}
    return shares, {s.labels["source"]: s.value for s in samples if s.name == "aim_gpu_telemetry_supported"}


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.1)


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def start(home: Path, *options: str) -> Daemon:
    daemon = Daemon(home, "mi300x:1", *options)
    daemon.start()
    return daemon


def test_it_follows_the_leases_that_run(home: Path) -> None:
    daemon = start(home)
    try:
        claimed = daemon.aimctl("claim", "llama", "--memory", "8", "--compute", "CPX")
        assert claimed.returncode == 0, claimed.stderr
        until(lambda: utilization(daemon) == (dict.fromkeys(range(8), 0.0), {"xcp_metrics": 1.0}))
        command = [sys.executable, "-c", SERVER, str(daemon.runtime / "dispatch.sock")]
        server = subprocess.Popen(command, env=daemon.environment, stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            until(lambda: 0.25 < max(utilization(daemon)[0].values()) < 0.75)
            shares = sorted(utilization(daemon)[0].values())
            assert shares[:7] == [0.0] * 7, "one partition has the lease"
            assert 0.25 < shares[7] < 0.75
        finally:
            server.kill()
            server.wait()
        until(lambda: set(utilization(daemon)[0].values()) == {0.0})
    finally:
        daemon.close()


def test_what_an_older_driver_cannot_tell_is_absent(home: Path) -> None:
    daemon = start(home, "--profile", "6.12")
    try:
        until(lambda: utilization(daemon) == ({0: 0.0}, {"xcp_metrics": 0.0, "gpu_metrics": 1.0}))
        switched = daemon.aimctl("set-mode", "gpu0", "CPX", "--wait", "20")
        assert switched.returncode == 0, switched.stderr
        assert utilization(daemon)[0] == {}, "gone with the partition"
        until(lambda: utilization(daemon)[1] == {"xcp_metrics": 0.0, "gpu_metrics": 0.0})
        assert utilization(daemon)[0] == {}
    finally:
        daemon.close()


def test_a_load_from_the_command_line(home: Path) -> None:
    daemon = start(home)
    try:
        process = daemon.hold("--load", "0.6")
        try:
            until(lambda: utilization(daemon)[0] == {0: 0.6})
        finally:
            process.kill()
            process.wait()
        until(lambda: utilization(daemon)[0] == {0: 0.0})
    finally:
        daemon.close()
