"""Puts the daemon together: the one place that chooses between the real node and a simulated one."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import pwd
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from aimd.adapters.amdgpu.driver import AmdgpuDriver
from aimd.adapters.amdgpu.layout import SYSTEM
from aimd.adapters.amdgpu.sysfs import OsSysfs
from aimd.adapters.amdgpu.telemetry import AmdgpuTelemetry
from aimd.adapters.callers import holder_of, pod_of
from aimd.adapters.http.server import LocalApi, NodeFacts
from aimd.adapters.journal import about
from aimd.adapters.ledger import SqliteLedger
from aimd.adapters.metrics.instruments import Instruments
from aimd.adapters.processes import LinuxProcesses, boot_id, command_of, start_time_of
from aimd.adapters.unix.peer import Operators
from aimd.config import Config
from aimd.daemon.cluster_setup import cluster_part, standing_of, taking_part
from aimd.daemon.counting import CountedControl, CountedLedger, TimedReconciler, counted_reload
from aimd.daemon.dispatch_service import DispatchService
from aimd.daemon.dispatch_setup import dispatch_service
from aimd.daemon.effective import Effective
from aimd.daemon.execute import Executor
from aimd.daemon.loop import ControlLoop, Reload, published_node
from aimd.daemon.metering import DispatchMeter
from aimd.daemon.metrics import Pods, Sources, metrics_served
from aimd.daemon.probing import Prober, memory_probe
from aimd.daemon.reload import policy_of, reloading
from aimd.daemon.sampling import Observer
from aimd.daemon.supervision import Supervision
from aimd.daemon.telemetry import TelemetrySampler
from aimd.daemon.totals import AcquireTotals
from aimd.errors import ConfigError, ConflictError, InvalidInputError, UnreachableError
from aimd.ports import DriverEvents, Meters, Sysfs
from aimd.rundirs import API_SOCKET, RunDirectories

log = logging.getLogger("aimd")

FOLLOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Node:
    """What the daemon runs on: files, driver events, boot id, and a description if it is simulated."""

    sysfs: Sysfs
    sources: tuple[DriverEvents, ...]
    boot_id: str
    simulated: str | None = None


@contextlib.contextmanager
def directories(paths: RunDirectories) -> Iterator[None]:
    """Make the directories and hold the locks that keep a second daemon away from either.

    Raises:
        InvalidInputError: a directory cannot be made or written.
        ConflictError: another daemon uses one of them.
    """
    for path, mode in ((paths.runtime, 0o755), (paths.state, 0o700)):
        try:
            Path(path).mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInputError(
                f"directory {path} cannot be made ({error.strerror})", hint="choose others: --runtime-dir, --state-dir"
            ) from error
    with contextlib.ExitStack() as locks:
        for path in (paths.state, paths.runtime):
            lock = _lock_file(path)
            locks.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConflictError(
                    f"another aimd uses the directory {path}",
                    code="already_running",
                    hint="one daemon runs per node; for a second simulated one choose --state-dir and --runtime-dir",
                ) from error
        yield


def _lock_file(folder: str) -> int:
    try:
        return os.open(f"{folder}/aimd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidInputError(
            f"directory {folder} cannot be written ({error.strerror}), expected one that is this user's, with space",
            hint="check its owner, mode and free space, or choose others: --runtime-dir, --state-dir",
        ) from error


@contextlib.asynccontextmanager
async def node(config: Config, paths: RunDirectories, simulate: tuple[str, str] | None) -> AsyncIterator[Node]:
    """The node to run on; `simulate` is a spec such as mi300x:8 and a driver profile."""
    if simulate is not None:
        from aimd.daemon.simulation import Simulation  # noqa: PLC0415 - a real node's daemon does not load the simulator

        async with Simulation.start(*simulate, paths) as simulation:
            yield Node(simulation.node, (simulation,), simulation.node.boot_id, simulation.node.description)
        return
    from aimd.adapters.uevents import UeventListener  # noqa: PLC0415 - pyroute2 is not needed by a simulated node

    sources: list[DriverEvents] = []
    try:
        sources.append(UeventListener())
    except UnreachableError as error:
        log.warning("%s; the poll finds what moved", error)
    try:
        yield Node(OsSysfs(Path(config.sysfs_root)), tuple(sources), boot_id())
    finally:
        for source in sources:
            await source.close()


def operator_uids(config: Config) -> frozenset[int]:
    """Uids of root, of this process and of the configured operators; raises ConfigError for an unknown user."""
    uids = {0, os.getuid()}
    for operator in config.operators:
        if isinstance(operator, int):
            uids.add(operator)
            continue
        try:
            uids.add(pwd.getpwnam(operator).pw_uid)
        except KeyError as error:
            raise ConfigError(f"operators: user {operator!r} does not exist on this machine") from error
    return frozenset(uids)


async def run(
    config: Config,
    paths: RunDirectories,
    simulate: tuple[str, str] | None,
    config_path: Path | None = None,
    supervision: Supervision | None = None,
) -> None:
    """Run the daemon until SIGTERM or SIGINT; `config_path` is what a reload reads. Raises AimdError."""
    supervision = supervision or Supervision()
    started = time.monotonic()
    operators = Operators(operator_uids(config))
    stop = _stopping()
    with directories(paths):
        async with node(config, paths, simulate) as machine:
            instruments, totals = Instruments(), AcquireTotals()
            ledger = CountedLedger(SqliteLedger(Path(paths.state) / "ledger.db", time.time()), instruments)
            effective = Effective(config)
            generation = time.time_ns() // 1_000_000  # grows across restarts, so that watchers notice one
            reconciler = TimedReconciler(policy_of(config), machine.boot_id, generation, instruments)
            shown = published_node(reconciler)
            sockets, given = Path(paths.runtime), supervision.sockets
            service, listening = dispatch_service(
                config, paths, machine.boot_id, operators, shown.latest, given.get("dispatch")
            )
            probe = memory_probe(config, machine.sysfs, paths, simulated=machine.simulated is not None)
            executor = Executor(_driver(config, machine), LinuxProcesses(), service, probe)
            reload = _reload(config_path, config, service, effective, instruments, supervision)
            loop = ControlLoop(reconciler, executor, ledger, config.poll_seconds, reload, shown)
            cluster = cluster_part(config, shown, loop, effective, machine.boot_id, paths, machine.sysfs)
            root = config.sysfs_root if machine.simulated is None else None
            observer = Observer(service, shown.latest, generation, totals)
            prober = Prober(probe, shown.latest, shown.newer, config.probe_seconds, loop.post)
            facts = NodeFacts(machine.boot_id, machine.simulated, started, root)
            api = LocalApi(CountedControl(loop, instruments), operators, facts, observer, cluster=standing_of(cluster))
            meter = DispatchMeter(service, shown.latest, totals)
            telemetry = TelemetrySampler(AmdgpuTelemetry(machine.sysfs), shown.latest)
            sources = Sources(loop, observer, meter, root is None, Pods(), telemetry, standing_of(cluster))
            metrics = metrics_served(sources, instruments, config.metrics, sockets, given.get("metrics"))
            try:
                first = effective.started(await executor.on_ledger(ledger.load))
                running = asyncio.create_task(loop.run(first, machine.sources))
                async with prober.running(), telemetry.running(), taking_part(cluster):
                    await _serve(loop, api, service, observer, sockets, stop, running, machine, supervision, metrics)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await api.close()
                service.close()
                await _close(listening, executor, ledger)
                supervision.remove_sockets(sockets)


async def _close(listening: socket.socket, executor: Executor, ledger: CountedLedger) -> None:
    listening.close()
    await executor.on_ledger(ledger.close)
    executor.close()


def _reload(
    path: Path | None,
    config: Config,
    service: DispatchService,
    effective: Effective,
    meters: Meters,
    supervision: Supervision,
) -> Reload | None:
    if path is None:
        return None
    reload = reloading(path, config, service.reconfigure, effective.configured)
    return supervision.announced(counted_reload(reload, meters))


def _driver(config: Config, machine: Node) -> AmdgpuDriver:
    layout = replace(SYSTEM, root=config.sysfs_root) if machine.simulated is None else SYSTEM
    return AmdgpuDriver(machine.sysfs, command_of, layout, holder_of, start_time_of, pod_of)


def _stopping() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _serve(
    loop: ControlLoop,
    api: LocalApi,
    service: DispatchService,
    observer: Observer,
    sockets: Path,
    stop: asyncio.Event,
    running: asyncio.Task[None],
    machine: Node,
    supervision: Supervision,
    metrics: contextlib.AbstractAsyncContextManager[None],
) -> None:
    """Open API and dispatch when the node was looked at, say when the inventory is there, and wait for the end."""
    socket = sockets / API_SOCKET
    stopping, dead = asyncio.create_task(stop.wait()), asyncio.create_task(service.ended.wait())
    looked, ready = asyncio.create_task(loop.looked.wait()), asyncio.create_task(loop.ready.wait())
    beside = [asyncio.create_task(service.follow(lambda generation: loop.changed(generation, FOLLOW_SECONDS)))]
    try:
        await asyncio.wait({looked, stopping, running}, return_when=asyncio.FIRST_COMPLETED)
        if looked.done():
            held = service.begin()
            if held:
                log.info("%d lease(s) of processes that go on were taken over", held)
            beside.append(observer.begin())
            await api.start(socket, supervision.sockets.get("api"))
            if not loop.ready.is_set():
                warnings = "; ".join(loop.snapshot.warnings)
                log.warning("not ready: %s; API on %s", warnings, socket, extra=about("not_ready", "node"))
            async with metrics, supervision.watching(loop, service):
                await asyncio.wait({ready, stopping, running, dead}, return_when=asyncio.FIRST_COMPLETED)
                if loop.ready.is_set():
                    supervision.ready(_ready_line(loop, machine, socket), loop.snapshot)
                    await asyncio.wait({stopping, running, dead}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        if dead.done():
            raise UnreachableError(
                "the dispatch thread has ended", hint="the log says why; the daemon is to be restarted"
            )
    finally:
        for task in (stopping, looked, ready, dead, *beside):
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


def _ready_line(loop: ControlLoop, machine: Node, socket: Path) -> str:
    snapshot = loop.snapshot
    partitions = sum(len(status.gpu.partitions) for status in snapshot.gpus)
    kind = f"simulated node {machine.simulated}" if machine.simulated else "node"
    return f"aimd is ready: {kind}, {len(snapshot.gpus)} GPUs, {partitions} partitions, API on {socket}"
