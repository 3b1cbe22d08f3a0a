"""A daemon in trouble of every kind that alerts are about, each of which a real fault brings about.

Troubles come one after the other and stay until the daemon is stopped; the last ones stop it. `instants` says when each
could be seen: after it had come, and two scrapes later.
"""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aimd.adapters.metrics.labels import MOST_MODELS
from aimd.dispatch import Client
from aimd.sim.client import SimClient
from tests.dashboards.load_cluster import NODE, LoadCluster
from tests.e2e.programs import AIMCTL, ROOT, Daemon
from tests.fakes.kube_api import NODES, PARTITIONS
from tests.integration.unix_http import ask

GIB = 1 << 30
GPUS = ("0000:05:00.0", "0000:27:00.0", "0000:47:00.0", "0000:65:00.0")
QUEUE_CAP, FAILED, LATE, RESTARTS = 8, 30, 30, 3
LATE_SECONDS = 0.05
# Allocates so much on a partition of gpu0.
GREEDY = """
import sys
from aimd.sim.client import SimClient
sim = SimClient()
sim.join(["gpu0"])
sim.use(sim.gpu_id("0000:05:00.0/" + sys.argv[1]), int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.read()
"""
HOLDER = "import sys; print('ready', flush=True); sys.stdin.read()"


class TroubleScene:
    """Args:
    home: a new folder whose path is short.
    port: of metrics by TCP.
    faults: tests/integration/disk_faults.c as a shared library.
    scraped: returns when what is so now has been scraped.
    """

    def __init__(self, home: Path, port: int, faults: Path, scraped: Callable[[], None]) -> None:
        self._config = home / "aimd.toml"
        self._settings = (
            "poll_seconds = 0.2\nmemory_overrun_seconds = 0.3\n"
            f'[dispatch]\nqueue_cap = {QUEUE_CAP}\n[metrics]\nlisten = "127.0.0.1:{port}"\n'
        )
        self._cluster = LoadCluster(home)
        self._settings += self._cluster.settings
        self._config.write_text(self._settings)
        self._faults = home / "faults"
        self.daemon = Daemon(home, "mi300x:4", "--config", str(self._config))
        self.daemon.environment |= {"LD_PRELOAD": str(faults), "AIMD_FAULTS": str(self._faults)}
        self._scraped = scraped
        self._processes: list[subprocess.Popen[str]] = []
        self._client: Client | None = None
        self.instants: dict[str, float] = {}
        self.ended = False

    def start(self) -> None:
        self.daemon.start()
        self._until(lambda: self._cluster.written() and self._in_cluster("conflicting_managers") == [])
        slo = ("--slo-latency", str(LATE_SECONDS), "--slo-objective", "0.99")
        self._done("claim", "llama", "--memory", "4", "--compute", "CPX", "--partition", "gpu0/0", "--limit", "2", *slo)
        self._done("claim", "gone", "--memory", "4", "--partition", "gpu0/1", "--guarantee", "2")
        self._done("claim", "released", "--memory", "4", "--partition", "gpu0/3")

    def run(self) -> None:
        """First none, then all troubles, one after the other."""
        self._scraped()
        self.instants["nothing"] = time.time()
        self.instants["before"] = time.time() - 3600
        troubles = (
            self.orphan, self.memory_overrun, self.burning, self.full_queue, self.failed_change, self.unfit_settings,
            self.stuck_change, self.left_behind, self.unattributed, self.failing_ledger, self.failed_reload,
            self.many_models, self.refused_write, self.failing_write, self.rival, self.missing_resource,
            self.cluster_away, self.restarting, self.broken_ledger, self.down,
        )  # fmt: skip
        for trouble in troubles:
            trouble()
            self._scraped()
            self.instants[trouble.__name__] = time.time()
            if trouble == self.failing_ledger:
                self._faults.unlink()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        if self._client is not None:
            self._client.close()
        self.daemon.close()
        self._cluster.close()

    # -- troubles ----------------------------------------------------------------------------------------------

    def memory_overrun(self) -> None:
        self._ready(*AIMCTL, "exec", "llama", "--", sys.executable, "-c", GREEDY, "0", str(5 * GIB))
        self._until(lambda: "memory_over_limit" in self._kinds() or any("over" in kind for kind in self._kinds()))

    def orphan(self) -> None:
        """A process that held a claim ended while no daemon was there: its place stays taken for a minute."""
        holder = self._ready(*AIMCTL, "exec", "gone", "--", sys.executable, "-c", HOLDER)
        self.daemon.stop(signal.SIGKILL)
        holder.kill()
        holder.wait()
        self.daemon.start()

    def burning(self) -> None:
        """All requests of the model fail or are late."""
        self._client = Client(str(self.daemon.runtime / "dispatch.sock"))
        for _ in range(FAILED):
            self._client.acquire("llama", timeout=5).release(ok=False)
        for _ in range(LATE):
            with self._client.lease("llama", timeout=5):
                time.sleep(1.5 * LATE_SECONDS)
        time.sleep(2.5)  # the observer's sample

    def full_queue(self) -> None:
        assert self._client is not None
        self._kept: list[Any] = [self._client.acquire("llama", timeout=5, renew=True) for _ in range(2)]
        self._kept += [self._client.submit("llama", timeout=600) for _ in range(QUEUE_CAP)]

    def failed_change(self) -> None:
        """The driver fails in the middle: the GPU has no partitions any more."""
        with SimClient(self.daemon.environment["AIMD_SIM_SOCKET"]) as sim:
            sim.fault("kfd-failure", "gpu1")
        assert self.daemon.aimctl("set-mode", "gpu1", "CPX", "--wait", "5").returncode != 0

    def stuck_change(self) -> None:
        """Somebody uses the GPU, and the change waits for them."""
        self._processes.append(self.daemon.hold("--gpu", "gpu2"))
        self._process(*AIMCTL, "set-mode", "gpu2", "CPX", "--wait", "300")
        self._until(
            lambda: any(plan["state"] not in ("committed", "failed") for plan in self.daemon.get("plans")["plans"])
        )

    def left_behind(self) -> None:
        """A claim is released whose process goes on."""
        self._ready(*AIMCTL, "exec", "released", "--", sys.executable, "-c", HOLDER)
        self._done("release", "released")

    def unattributed(self) -> None:
        """A process of no claim uses memory."""
        self._ready(sys.executable, "-c", GREEDY, "4", str(2 * GIB))
        time.sleep(0.5)

    def failing_ledger(self) -> None:
        self._faults.write_text(f"{errno.EIO} pwrite fdatasync")
        self._process(*AIMCTL, "claim", "another", "--memory", "1", "--partition", "gpu0/2")
        self._until(lambda: ask(self.daemon.socket, "/readyz").status == 503)

    def failed_reload(self) -> None:
        self._config.write_text(self._settings + "nonsense = 1\n")
        assert self.daemon.aimctl("reload").returncode != 0
        self._config.write_text(self._settings)

    def unfit_settings(self) -> None:
        """A partition has fewer slots than were promised."""
        self._config.write_text("placement.slots_per_partition = 1\n" + self._settings)
        self._done("reload")
        self._scraped()
        self._config.write_text(self._settings)

    def many_models(self) -> None:
        """More than have a label of their own."""
        for number in range(MOST_MODELS):
            answer = ask(self.daemon.socket, f"/v1/claims/m{number}", "PUT", {"memory_gb": 0.01, "partition": "gpu3/0"})
            assert answer.status in (200, 201), answer

    def refused_write(self) -> None:
        """The node's record asks for a mode that there is not, and the API server does not take what is said of it."""
        self._cluster.api.fail("patch", PARTITIONS, code=422)
        self._ask_for("XYZ")
        self._until(lambda: self._writes("dropped") == 1)

    def failing_write(self) -> None:
        self._cluster.api.fail("patch", PARTITIONS, times=1 << 30, code=503)
        self._ask_for("ZYX")
        self._until(lambda: self._writes("failing") == 1)

    def rival(self) -> None:
        """Another manager has labelled the node; whether there is one is looked up when a daemon begins."""
        self._cluster.api.heal()
        labels = {"dcm.amd.com/gpu-config-profile-state": "success"}
        self._cluster.api.put(NODES, {"metadata": {"name": NODE, "labels": labels}})
        self.daemon.stop(signal.SIGKILL)
        self.daemon.start()
        self._until(lambda: bool(self._in_cluster("conflicting_managers")))

    def missing_resource(self) -> None:
        """Somebody removes the CRD."""
        self._cluster.api.unserved.add(PARTITIONS)
        self._cluster.api.end_watches()
        self._until(lambda: any(watch["missing"] for watch in self._in_cluster("watches")))

    def cluster_away(self) -> None:
        """The API server answers nothing but errors, also to the daemons that begin meanwhile."""
        self._cluster.api.fail("*", "*", times=1 << 30, code=503)
        self._cluster.api.cut_watches()
        self._until(lambda: not any(watch["connected"] for watch in self._in_cluster("watches")))

    def restarting(self) -> None:
        for _ in range(RESTARTS):
            self.daemon.stop(signal.SIGKILL)
            self.daemon.start()
            self._scraped()

    def broken_ledger(self) -> None:
        """A daemon finds a ledger that it cannot read, puts it aside and begins a new one."""
        self.daemon.stop(signal.SIGKILL)
        for path in self.daemon.state.glob("ledger.db*"):
            path.write_bytes(b"no ledger" * 1000)
        self.daemon.start()

    def down(self) -> None:
        self.daemon.stop()
        self.ended = True

    # -- the cluster -------------------------------------------------------------------------------------------

    def _ask_for(self, mode: str) -> None:
        record = self._cluster.api.get(PARTITIONS, NODE)
        generation = record["metadata"].get("generation", 1) + 1
        metadata = {**record["metadata"], "generation": generation}
        self._cluster.api.put(PARTITIONS, {**record, "metadata": metadata, "spec": {"layout": {"gpu3": mode}}})

    def _in_cluster(self, field: str) -> Any:
        return self.daemon.get("cluster")[field]

    def _writes(self, field: str) -> int:
        [node] = [each for each in self._in_cluster("writes") if each["kind"] == "node"]
        return node[field]

    # -- means -------------------------------------------------------------------------------------------------

    def _done(self, *command: str) -> None:
        done = self.daemon.aimctl(*command)
        assert done.returncode == 0, done.stderr

    def _process(self, *command: str) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self._processes.append(subprocess.Popen(command, env=self.daemon.environment, cwd=ROOT, **pipes))
        return self._processes[-1]

    def _ready(self, *command: str) -> subprocess.Popen[str]:
        """A process that says when it is ready."""
        process = self._process(*command)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def _kinds(self) -> list[str]:
        return [event["kind"] for event in self.daemon.get("events")["events"]]

    def _until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self._kinds(), self.daemon.log[-2000:])
            time.sleep(0.05)
