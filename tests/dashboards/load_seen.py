"""The load scene as tests see it: run once, stored by a Prometheus, with what the load was beside it."""

from __future__ import annotations

import math
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.dashboards.load_scene import GPUS, Scene
from tests.dashboards.load_truth import Truth
from tests.dashboards.panel_targets import DASHBOARDS
from tests.dashboards.prometheus_api import PrometheusApi
from tests.dashboards.scraping_server import ScrapingServer
from tests.hip.conftest import Stubs
from tests.integration.test_metrics import free_port

SCRAPE_SECONDS, LOAD_SECONDS, REST_SECONDS = 0.5, 30.0, 3.0
WINDOW = 15  # seconds of rates
OLD_SECONDS = 0.25  # as old may a page be, and what it knows of a release (which nobody waits for)
SLOW_SECONDS = 0.5  # as long may a scrape take
SAMPLE_AGE_SECONDS = 5.0  # of what the daemon samples every 2 s, at most
PLACES = {"chat": (f"{GPUS[0]}/0", f"{GPUS[0]}/1"), "embed": (f"{GPUS[0]}/0",), "batch": (f"{GPUS[1]}/0",)}


@dataclass(frozen=True)
class Process:
    """What the kernel says of the daemon."""

    resident_bytes: int
    open_files: int
    processor_seconds: float

    @classmethod
    def read(cls, pid: int) -> Process:
        folder = Path(f"/proc/{pid}")
        resident = int((folder / "statm").read_text().split()[1]) * resource.getpagesize()
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return cls(resident, len(list((folder / "fd").iterdir())), ticks / os.sysconf("SC_CLK_TCK"))


@dataclass(frozen=True)
class Seen:
    """`during`: an instant near the end of the load, at which no operator does anything, and what the daemon was then;
    `busy` is the share of a processor that
    it had before. `after`: when all was quiet and had been scraped.
    """

    api: PrometheusApi
    truth: Truth
    during: float
    after: float
    process: Process
    busy: float

    @property
    def seconds(self) -> float:
        return self.after - self.truth.began + 5

    def values(self, selector: str, at: float | None = None) -> dict[tuple[str, ...], float]:
        """By the values of all labels but those of Prometheus and the GPU's, in the order of their names."""
        return {key(one.labels): one.value for one in self.api.query(selector, at or self.after)}


def key(labels: dict[str, str]) -> tuple[str, ...]:
    own = {name: value for name, value in labels.items() if name not in ("__name__", "instance", "job")}
    if "partition_id" in own:
        own["partition_id"] = f"{own.pop('gpu_id')}/{own['partition_id']}"
    return tuple(own[name] for name in sorted(own))


@pytest.fixture(scope="session")
def seen(promtool, tmp_path_factory) -> Iterator[Seen]:
    binary, compiler = Path(promtool).with_name("prometheus"), shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        home, port = Path(folder), free_port()
        home.chmod(0o755)
        scene = Scene(home, port, Stubs(tmp_path_factory.mktemp("hip"), compiler).build())
        rules = tuple(sorted(DASHBOARDS.glob("*rules.y*ml")))
        data = tmp_path_factory.mktemp("prometheus")
        server = ScrapingServer(binary, data, free_port(), f"127.0.0.1:{port}", rules, SCRAPE_SECONDS)
        try:
            scene.start()
            server.start()
            time.sleep(2 * SCRAPE_SECONDS)
            scene.load()
            time.sleep(LOAD_SECONDS - WINDOW)
            before, began = Process.read(scene.daemon.pid), time.time()
            time.sleep(WINDOW - REST_SECONDS)
            scene.rest()
            time.sleep(REST_SECONDS)
            during, process = time.time(), Process.read(scene.daemon.pid)
            busy = (process.processor_seconds - before.processor_seconds) / (during - began)
            truth = scene.quiet()
            time.sleep(SAMPLE_AGE_SECONDS + 2 * SCRAPE_SECONDS)
            yield Seen(server.api, truth, during, time.time(), process, busy)
        finally:
            scene.close()
            server.close()


def latencies(
    truth: Truth, family: str, model: str, since: float = -math.inf, until: float = math.inf
) -> list[tuple[float, float]]:
    if "wait" in family:
        return [one.wait() for one in truth.granted(model, since, until)]
    return [one.total() for one in truth.leases(model, since, until)]
