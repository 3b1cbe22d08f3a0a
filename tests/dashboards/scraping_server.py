"""A Prometheus of its own that scrapes one daemon, with the rules of dashboards/, evaluated as often as it scrapes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import yaml

from tests.dashboards.prometheus_api import PrometheusApi, RefusedQuery

SECONDS = 30.0


class ScrapingServer:
    """Prometheus as a process.

    Args:
        binary: of Prometheus.
        home: an empty folder; its data are in `data`.
        port: where it serves its API, target: the daemon's address for metrics.
        rules: rule files; that their groups are evaluated more rarely is left out.
        every: seconds between scrapes.
        job: label of the target.
    """

    def __init__(
        self, binary: Path, home: Path, port: int, target: str, rules: tuple[Path, ...], every: float, job: str = "aimd"
    ) -> None:
        interval = f"{every * 1000:.0f}ms"
        for path in rules:
            groups = yaml.safe_load(path.read_text())["groups"]
            hasty = [{key: value for key, value in group.items() if key != "interval"} for group in groups]
            (home / path.name).write_text(yaml.safe_dump({"groups": hasty}, sort_keys=False))
        config = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(home / path.name) for path in rules],
            "scrape_configs": [{"job_name": job, "static_configs": [{"targets": [target]}]}],
        }
        (home / "prometheus.yml").write_text(json.dumps(config))
        self._command = [
            str(binary),
            f"--config.file={home / 'prometheus.yml'}",
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        self._log = home / "prometheus.log"
        self.api = PrometheusApi(f"http://127.0.0.1:{port}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it has scraped the target once."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + SECONDS
        while not self._scraped():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.1)

    def _scraped(self) -> bool:
        try:
            return [one.value for one in self.api.query("up")] == [1.0]
        except (OSError, RefusedQuery):  # it does not listen yet, or reads its database
            return False

    def close(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(SECONDS)
            self._process = None
