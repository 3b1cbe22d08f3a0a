"""Many nodes in one process before a real API server: of each the control loop on a simulated node, watches and writer.

What they share that real nodes do not: one interpreter and the machine of the API server. What an API server does for
them is the same, and it is measured here: requests as the nodes count them, watches and processor time as the server
does.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aimd.adapters.amdgpu.driver import AmdgpuDriver
from aimd.adapters.ledger import SqliteLedger
from aimd.adapters.processes import LinuxProcesses, command_of
from aimd.config import Config, Kubernetes
from aimd.daemon.cluster import ClusterService
from aimd.daemon.cluster_setup import cluster_part, taking_part
from aimd.daemon.effective import Effective
from aimd.daemon.execute import Executor
from aimd.daemon.loop import ControlLoop, published_node
from aimd.daemon.simulation import Simulation
from aimd.planning.policy import Policy
from aimd.planning.reconcile import Reconciler
from aimd.rundirs import RunDirectories
from aimd.sim.node import SimulatedNode
from tests.cluster import authority
from tests.cluster.control_plane import API_SERVER, ControlPlane
from tests.cluster.test_lifecycle import NAMESPACE, PARTITIONS
from tests.fakes.dispatch import IdleDispatch
from tests.fakes.node import fast_state
from tests.systemd.machine import until

SECONDS_TO_START = 300
POLL_SECONDS = 30.0  # of a simulated node where nothing moves by itself
THREADS = 32  # for what all the nodes do beside their loops
_WATCHES = re.compile(r'^apiserver_longrunning_requests\{.*resource="(\w+)".*verb="WATCH".*\} (\d+)', re.MULTILINE)


class Fleet:
    """Takes part from its making until `close`; `names` are the nodes'."""

    def __init__(self, cluster: ControlPlane, folder: Path, count: int) -> None:
        self._cluster = cluster
        self.names = [f"fleet-{number}" for number in range(count)]
        self._services: dict[str, ClusterService] = {}
        configs = [self._joining(name, folder) for name in self.names]
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(configs,), name="fleet", daemon=True)
        self._thread.start()
        until(self._is_synced, lambda: f"not synced: {self._failure!r}", SECONDS_TO_START)

    def requests(self) -> Counter[str]:
        """Of all nodes since they began: `patch inferenceservices/status 200`."""
        total: Counter[str] = Counter()
        for service in self._services.values():
            for key, count in service.cluster.statistics().requests.items():
                total[" ".join(key)] += count
        return total

    def watches(self) -> list[int]:
        """How many each node has that are connected."""
        statistics = (service.cluster.statistics() for service in self._services.values())
        return [sum(watch.connected for watch in each.watches) for each in statistics]

    def is_idle(self) -> bool:
        """Nobody has anything to write."""
        return all(service.cluster.statistics().writes.waiting == 0 for service in self._services.values())

    def close(self) -> None:
        self._ending.set()
        self._thread.join(SECONDS_TO_START)
        for name in self.names:
            for path in (f"{PARTITIONS}/{name}", f"/api/v1/nodes/{name}"):
                if self._cluster.api.find(path):
                    self._cluster.api.delete(path)

    def _joining(self, name: str, folder: Path) -> Config:
        """A Node with a token bound to it, and the configuration that uses it."""
        if self._cluster.api.find(f"/api/v1/nodes/{name}") is None:
            self._cluster.api.create("/api/v1/nodes", {"metadata": {"name": name}})
        token = self._cluster.token("aimd", NAMESPACE, node=name)
        path = authority.kubeconfig(folder / f"{name}.kubeconfig", self._cluster.url, self._cluster.authority, token)
        return Config(kubernetes=Kubernetes(enabled=True, node=name, kubeconfig=str(path)), poll_seconds=POLL_SECONDS)

    def _is_synced(self) -> bool:
        time.sleep(0.1)
        assert self._failure is None, self._failure
        return len(self._services) == len(self.names) and all(one.cluster.synced for one in self._services.values())

    # -- the thread of all nodes -----------------------------------------------------------------------------

    def _run(self, configs: list[Config]) -> None:
        try:
            asyncio.run(self._live(configs))
        except BaseException as error:  # noqa: BLE001 - told where the test waits
            self._failure = error

    async def _live(self, configs: list[Config]) -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        async with contextlib.AsyncExitStack() as members:
            for config in configs:
                await members.enter_async_context(self._member(config))
            await asyncio.to_thread(self._ending.wait)

    @contextlib.asynccontextmanager
    async def _member(self, config: Config):
        """As wiring makes it of a node in a cluster, without sockets, counting and sampling."""
        sim = SimulatedNode(fast_state(count=1))
        ledger = SqliteLedger(Path(":memory:"), time.time())
        driver = AmdgpuDriver(sim, command_of)
        executor = Executor(driver, LinuxProcesses(), IdleDispatch(), None)
        reconciler = Reconciler(Policy(), sim.boot_id, 0)
        shown, effective = published_node(reconciler), Effective(config)
        loop = ControlLoop(reconciler, executor, ledger, POLL_SECONDS, None, shown)
        paths = RunDirectories("/run/aimd", "/var/lib/aimd")
        part = cluster_part(config, shown, loop, effective, sim.boot_id, paths, sim)
        assert part is not None
        started = effective.started(await executor.on_ledger(ledger.load))
        task = asyncio.create_task(loop.run(started, [Simulation(sim)]))
        try:
            async with taking_part(part):
                assert config.kubernetes.node is not None
                self._services[config.kubernetes.node] = part.service
                yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await executor.on_ledger(ledger.close)
            executor.close()


def watches_served(cluster: ControlPlane) -> Counter[str]:
    """Watches that the API server has open, by resource."""
    found: Counter[str] = Counter()
    for resource, count in _WATCHES.findall(cluster.api.get("/metrics")):
        found[resource] += int(count)
    return found


class Cost:
    """What the API server has spent since this was made."""

    def __init__(self, cluster: ControlPlane, fleet: Fleet | None = None) -> None:
        self._cluster, self._fleet = cluster, fleet
        self._requests = fleet.requests() if fleet is not None else Counter()
        self._began = time.monotonic()
        self._used = cluster.processor_seconds(API_SERVER)

    def processor(self) -> float:
        """Seconds of a processor."""
        return self._cluster.processor_seconds(API_SERVER) - self._used

    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def requests(self) -> Counter[str]:
        assert self._fleet is not None
        return self._fleet.requests() - self._requests
