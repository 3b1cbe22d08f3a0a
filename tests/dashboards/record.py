"""Records what the dashboards show of the load scene: for pictures of them, and for whoever wants to look at the data.

    python -m tests.dashboards.record OUT [--seconds 300] [--every 2]

Needs Debian's prometheus (apt-get install prometheus). OUT gets a folder for each dashboard, and in it a file for each
expression of a panel, `<panel id>-<ref>.json`: {"dashboard", "panel", "panel_id", "ref", "expression", "legend", "unit",
"kind", "instant", "start", "end", "step", "range", "vector"} with `range` and `vector` as Prometheus answered
(query_range over the whole time, query at its end). OUT/rules.json has all rules with their state, OUT/scene.json what the
load was. OUT/data is the database: prometheus --storage.tsdb.path=OUT/data shows it again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.dashboards.load_scene import Scene
from tests.dashboards.load_truth import Truth
from tests.dashboards.panel_targets import DASHBOARDS, Target, targets
from tests.dashboards.prometheus_api import PrometheusApi
from tests.dashboards.scraping_server import ScrapingServer
from tests.hip.conftest import Stubs
from tests.integration.test_metrics import free_port

BINARIES = ("prometheus", "cc")


def record(out: Path, seconds: float, every: float) -> None:
    """Run the scene for so long, and write what there is to see."""
    paths = {name: shutil.which(name) for name in BINARIES}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        raise SystemExit(f"{' and '.join(missing)} not found, expected Debian's packages prometheus and gcc")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "stub").mkdir()
        port = free_port()
        scene = Scene(home, port, Stubs(home / "stub", str(paths["cc"])).build())
        rules = tuple(sorted(DASHBOARDS.glob("*rules.y*ml")))
        server = ScrapingServer(Path(str(paths["prometheus"])), out, free_port(), f"127.0.0.1:{port}", rules, every)
        try:
            scene.start()
            server.start()
            scene.load()
            time.sleep(seconds)
            end = time.time()
            _write(out, server.api, (scene.began, end), every)
            _write_scene(out / "scene.json", scene.quiet())
        finally:
            scene.close()
            server.close()


def _write(out: Path, api: PrometheusApi, span: tuple[float, float], every: float) -> None:
    start, end = span
    step = max(every, (end - start) / 300)
    window = max(4 * every, step + every)
    for dashboard in sorted(DASHBOARDS.glob("*.json")):
        folder = out / dashboard.stem
        folder.mkdir(exist_ok=True)
        for target in targets(dashboard, {}, window, end - start):
            answers = {
                "range": api.query_range(target.expression, start, end, step),
                "vector": api.get("query", query=target.expression, time=end),
            }
            found = {**_shown(target), "start": start, "end": end, "step": step, **answers}
            (folder / f"{target.panel_id}-{target.ref}.json").write_text(json.dumps(found, indent=1))
    (out / "rules.json").write_text(json.dumps(api.get("rules"), indent=1))


def _shown(target: Target) -> dict[str, Any]:
    return target._asdict()


def _write_scene(path: Path, truth: Truth) -> None:
    counts = [{"model": m, "class": k, "outcome": o, "count": n} for (m, k, o), n in sorted(truth.counts().items())]
    told = {"began": truth.began, "ended": truth.ended, "memory_bytes": truth.memory, "requests": counts}
    operations = [one.__dict__ for one in truth.operations]
    path.write_text(json.dumps({**told, "operations": operations}, indent=1))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.dashboards.record", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--seconds", type=float, default=300.0, help="of load (300)")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between scrapes (2)")
    chosen = parser.parse_args(arguments)
    record(chosen.out, chosen.seconds, chosen.every)


if __name__ == "__main__":
    main(sys.argv[1:])
