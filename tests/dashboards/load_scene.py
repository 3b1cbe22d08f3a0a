"""A real daemon on a simulated node under dispatch load whose course is known: what Prometheus is shown.

gpu0 is in CPX: `chat` (high, two replicas, an objective of latency that some requests miss on purpose) and, on the same
partition as its first, `embed` (medium). gpu1 is one partition of `batch` (low), which always runs two leases of its limit
of two and has one waiting. gpu2 has no claims and is switched from one mode to another. A director does what operators do,
and troubles the cluster that the node is in.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.dashboards.load_cluster import LoadCluster
from tests.dashboards.load_truth import LEASE_SECONDS, Operation, Request, Truth
from tests.e2e.programs import AIMCTL, ROOT, Daemon

GIB = 1 << 30
GPUS = ("0000:05:00.0", "0000:27:00.0", "0000:47:00.0")
SLOTS, QUEUE_LIMIT = 8, 12
CHAT_TARGET_SECONDS, CHAT_OBJECTIVE = 0.25, 0.9
FLOORS = {"chat": 8.0, "embed": 2.0}
GRANTS = {
    "chat": ("--memory", "14", "--qos", "high", "--replicas", "2", "--guarantee", "2", "--limit", "4", "--compute", "CPX",
             "--slo-latency", str(CHAT_TARGET_SECONDS), "--slo-objective", str(CHAT_OBJECTIVE), "--slo-throughput", str(FLOORS["chat"])),
    "embed": ("--memory", "4", "--qos", "medium", "--partition", "gpu0/0", "--slo-throughput", str(FLOORS["embed"])),
    "batch": ("--memory", "40", "--qos", "low", "--limit", "2", "--partition", "gpu1/0"),
}  # fmt: skip
# Holds lie in the middle of a bucket: most in 50 to 100 ms, some in 100 to 250, some beyond the target, some fail.
CHAT_TURNS = [{"hold": 0.07}] * 6 + [{"hold": 0.16}] * 2 + [{"hold": 0.35}, {"hold": 0.07, "ok": False}]


def chat_streams() -> list[dict[str, Any]]:
    return [
        {"kind": "lease", "klass": "high", "period": 0.5, "delay": number / 8, "turns": CHAT_TURNS}
        for number in range(4)
    ]


EMBED_STREAMS = [
    {"kind": "lease", "klass": "medium", "period": 0.25, "hold": 0.035},
    {"kind": "lease", "klass": "low", "period": 0.5, "hold": 0.035},
    # A burst takes all slots but one: chat waits for its guarantee.
    {"kind": "burst", "klass": "medium", "period": 5.0, "delay": 1.0, "count": SLOTS - 1, "hold": 0.4},
    {"kind": "lease", "klass": "medium", "period": 6.0, "delay": 2.0, "hold": LEASE_SECONDS + 0.5},  # revoked
    {"kind": "lease", "klass": "medium", "period": 3.0, "model": "nobody"},
]
BATCH_STREAMS = [
    *({"kind": "lease", "klass": "low", "period": 0.0, "delay": 0.7 * number, "hold": 2.0} for number in range(3)),
    {"kind": "lease", "klass": "low", "period": 1.0, "delay": 2.0, "timeout": 0.1},  # expires
    {"kind": "nowait", "klass": "low", "period": 1.0, "delay": 2.3},
    {"kind": "cancel", "klass": "low", "period": 1.0, "delay": 2.6, "hold": 0.1},
    {"kind": "burst", "klass": "low", "period": 4.0, "delay": 3.0, "count": QUEUE_LIMIT + 6, "timeout": 0.2},
]
SERVERS = {
    "chat-0": ("chat", 0, "gpu0", 0.1, 3 * GIB, chat_streams()),
    "chat-1": ("chat", 1, "gpu0", 0.1, 2 * GIB, chat_streams()),
    "embed-0": ("embed", 0, "gpu0", 0.05, GIB, EMBED_STREAMS),
    "batch-0": ("batch", 0, "gpu1", 0.3, 20 * GIB, BATCH_STREAMS),
}
VICTIM = """
import sys, time
from aimd.dispatch import Client
client, begun = Client(sys.argv[1]), time.time()
lease = client.acquire("embed", timeout=20, klass="medium")
print(begun, time.time(), lease.partition, flush=True)
sys.stdin.read()
"""


class Scene:
    """The daemon and its load; `home` is a new folder whose path is short.

    Args:
        port: of metrics by TCP.
        library: a libamdhip64 that the daemon asks for free memory; None: it does not ask.
    """

    def __init__(self, home: Path, port: int, library: Path | None = None) -> None:
        self.home = home
        self.config = home / "aimd.toml"
        self.cluster = LoadCluster(home)
        probing = f'hip_library = "{library}"\nprobe_seconds = 1.0\n' if library else 'memory_probe = "off"\n'
        self.settings = (
            f"poll_seconds = 0.2\n{probing}"
            f"[placement]\nslots_per_partition = {SLOTS}\norphan_grace_seconds = 1.0\n"
            f"[dispatch]\nmodel_queue_cap = {QUEUE_LIMIT}\nlease_max_seconds = {LEASE_SECONDS}\n"
            f'[metrics]\nlisten = "127.0.0.1:{port}"\n'
            f"{self.cluster.settings}"
        )
        self.config.write_text(self.settings)
        self.daemon = Daemon(home, "mi300x:3", "--config", str(self.config))
        self.dispatch = str(self.daemon.runtime / "dispatch.sock")
        self.operations: list[Operation] = []
        self.began = self.ended = 0.0
        self._servers: list[subprocess.Popen[str]] = []
        self._over = threading.Event()
        self._director: threading.Thread | None = None
        self._lost: list[Request] = []
        self._failure: BaseException | None = None

    # -- begin and end -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """The daemon is ready and has the claims; nothing uses them."""
        self.daemon.start()
        deadline = time.monotonic() + 30
        while not self.cluster.written():
            assert time.monotonic() < deadline, self.daemon.log
            time.sleep(0.05)
        for name, options in GRANTS.items():
            self.operate("assign", "ok", "claim", name, *options)

    def load(self) -> None:
        """Begin the load."""
        self.began = time.time()
        for name, (model, replica, gpu, share, vram, streams) in SERVERS.items():
            plan = {"dispatch": self.dispatch, "model": model, "record": str(self.home / f"{name}.record"),
                    "gpu": gpu, "share": share, "vram": vram, "streams": streams}  # fmt: skip
            path = self.home / f"{name}.json"
            path.write_text(json.dumps(plan))
            program = (sys.executable, "-m", "tests.dashboards.load_worker", str(path))
            command = [*AIMCTL, "exec", "--replica", str(replica), model, "--", *program]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._servers.append(subprocess.Popen(command, env=self.daemon.environment, cwd=ROOT, **pipes))
        for server in self._servers:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
        self._director = threading.Thread(target=self._direct)
        self._director.start()

    def rest(self) -> None:
        """The operators have done what they do; the load goes on."""
        self._over.set()
        if self._director is not None:
            self._director.join()
        if self._failure is not None:
            raise self._failure
        deadline = time.monotonic() + 60
        while not self.cluster.followed():
            assert time.monotonic() < deadline, self.daemon.log
            time.sleep(0.1)

    def quiet(self) -> Truth:
        """End the load, with every request at its end, and tell what it was."""
        self.rest()
        for server in self._servers:
            assert server.stdin is not None
            server.stdin.close()
        for server in self._servers:
            assert server.wait(60) == 0
            assert server.stdout is not None
            server.stdout.close()
        self._servers = []
        self.ended = time.time()
        return self.truth()

    def truth(self) -> Truth:
        """Of what has ended so far."""
        truth = Truth.read(sorted(self.home.glob("*.record")), self.operations, self.began, self.ended or time.time())
        truth.requests.extend(self._lost)
        truth.asked.extend(self.cluster.asked())
        truth.cuts.extend(self.cluster.cuts)
        return truth

    def close(self) -> None:
        self._over.set()
        for server in self._servers:
            server.kill()
            server.wait()
        if self._director is not None:
            self._director.join()
        self.daemon.close()
        self.cluster.close()

    # -- what operators do -------------------------------------------------------------------------------------

    def operate(self, what: str, outcome: str, *command: str, **detail: str) -> subprocess.CompletedProcess[str]:
        """An aimctl command, and the operation of the metrics that it is; one that is to fail has another outcome than ok."""
        began = time.time()
        done = self.daemon.aimctl(*command)
        assert (done.returncode == 0) == (outcome in ("ok", "committed")), (command, done.stderr)
        self.operations.append(Operation(what, outcome, began, time.time(), detail))
        return done

    def _direct(self) -> None:
        acts = [self._switch, self._lose, self.cluster.trouble, self._visit, self._tend]
        number = 0
        try:
            while not self._over.wait(0.5):
                acts[number % len(acts)](number // len(acts))
                number += 1
        except BaseException as error:  # noqa: BLE001 -- told by quiet
            self._failure = error

    def _switch(self, number: int) -> None:
        before, after = ("SPX/NPS1", "CPX/NPS1")[:: -1 if number % 2 else 1]
        self.operate("switch", "committed", "set-mode", "gpu2", after, "--wait", "20", before=before, after=after)

    def _lose(self, _number: int) -> None:
        """A client is killed that has a lease."""
        command = [sys.executable, "-c", VICTIM, self.dispatch]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=self.daemon.environment, **pipes) as victim:
            assert victim.stdout is not None
            begun, granted, partition = victim.stdout.readline().split()
            releasing = time.time()
            victim.kill()
            victim.wait()
        times = {"submitted": float(begun), "sent": float(begun), "granted": float(granted), "releasing": releasing}
        self._lost.append(Request("embed", "medium", "lost", ended=time.time(), partition=partition, **times))

    def _visit(self, _number: int) -> None:
        self.operate("assign", "ok", "claim", "visitor", "--memory", "2", "--partition", "gpu0/7")
        self.operate("release", "ok", "release", "visitor")

    def _tend(self, number: int) -> None:
        if number % 2:
            self.operate("reload", "ok", "reload")
        else:
            self.operate("drain", "ok", "drain", "gpu1")
            self.operate("drain", "ok", "undrain", "gpu1")
