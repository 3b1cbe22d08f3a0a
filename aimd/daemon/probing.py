"""Asks HIP for the memory of every GPU once in a while, and never while a mode change is planned or runs.

That the helper is gone before a GPU is switched does not rest on this: the executor holds the probe itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from aimd.config import Config
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.domain.probe import ProbeReport, ProbeState
from aimd.planning import effects as fx
from aimd.ports import MemoryProbe, Sysfs
from aimd.rundirs import RunDirectories

if TYPE_CHECKING:
    from aimd.adapters.hip.probe import HipProbe

log = logging.getLogger("aimd.memory")

RETRY_SECONDS = 1.0  # after a probe that was held or met a topology that moved
SYSTEM_ROOT = "/sys"
OF_ALL_GPUS = (ProbeState.OFF, ProbeState.NO_LIBRARY, ProbeState.WRONG_LIBRARY)
Changed = Callable[[int, float], Awaitable[NodeSnapshot]]
Told = Callable[[fx.Probed], None]


class NoProbe:
    """ports.MemoryProbe that never asks."""

    pids: frozenset[int] = frozenset()

    async def probe(self, gpu: str) -> ProbeReport:
        return ProbeReport(gpu, ProbeState.OFF)

    async def hold(self, key: str) -> bool:  # noqa: ARG002 -- nothing is there to be held
        return True

    def resume(self, key: str) -> None:
        pass

    async def close(self) -> None:
        pass


def memory_probe(config: Config, sysfs: Sysfs, paths: RunDirectories, *, simulated: bool) -> NoProbe | HipProbe:
    """The probe that the configuration asks for.

    The system's library speaks of this machine's GPUs: other roots and simulated nodes have one if it is named.
    """
    own = not simulated and config.sysfs_root == SYSTEM_ROOT
    if config.memory_probe == "off" or (config.hip_library is None and not own):
        return NoProbe()
    from aimd.adapters.hip.probe import HipProbe, ProbeSettings  # noqa: PLC0415 -- not needed where HIP is off

    environment = {}
    if simulated:
        from aimd.daemon.simulation import environment_of  # noqa: PLC0415 -- not loaded on a real node

        environment = environment_of(paths)
    return HipProbe(sysfs, ProbeSettings(config.hip_library, environment=environment))


class Prober:
    """Keeps a report per GPU.

    Args:
        probe: asked.
        snapshot, changed: the node as published last, and ports.ControlPlane.changed.
        seconds: between two probes of a GPU.
        told: is given each new report with the mode epoch that was asked about.

    Attributes:
        reports: the last one by PCI address.
    """

    def __init__(
        self,
        probe: MemoryProbe,
        snapshot: Callable[[], NodeSnapshot],
        changed: Changed,
        seconds: float,
        told: Told = lambda _probed: None,
    ) -> None:
        self._probe = probe
        self._snapshot = snapshot
        self._changed = changed
        self._seconds = seconds
        self._told = told
        self._due: dict[str, tuple[int, float]] = {}  # mode epoch that was asked about, and when to ask again
        self.reports: dict[str, ProbeReport] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask meanwhile; afterwards no helper is left."""
        asking = asyncio.create_task(self.run())
        asking.add_done_callback(_ended)
        try:
            yield
        finally:
            asking.cancel()
            await asyncio.wait({asking})
            await self._probe.close()

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            snapshot, now = self._snapshot(), time.monotonic()
            gpu = None if under_way(snapshot) else self._next(snapshot, now)
            if gpu is None:
                await self._changed(snapshot.generation, RETRY_SECONDS)
                continue
            self._keep(gpu, await self._probe.probe(gpu.gpu.pci_address), snapshot)

    def _next(self, snapshot: NodeSnapshot, now: float) -> GpuStatus | None:
        for status in snapshot.gpus:
            epoch, due = self._due.get(status.gpu.pci_address, (-1, 0.0))
            if status.gpu.partitions and (now >= due or epoch != status.mode_epoch):
                return status
        return None

    def _keep(self, status: GpuStatus, report: ProbeReport, snapshot: NodeSnapshot) -> None:
        """Take the report; what it says of the library holds for all GPUs, and is told once."""
        now = time.monotonic()
        for other in snapshot.gpus if report.state in OF_ALL_GPUS else (status,):
            pause = RETRY_SECONDS if report.state in (ProbeState.HELD, ProbeState.MOVED) else self._seconds
            self._due[other.gpu.pci_address] = (other.mode_epoch, now + pause)
            before = self.reports.get(other.gpu.pci_address)
            if report.state is not ProbeState.HELD or before is None:
                self.reports[other.gpu.pci_address] = replace(report, gpu=other.gpu.pci_address)
                self._told(fx.Probed(self.reports[other.gpu.pci_address], other.mode_epoch))
            if other is status and (before is None or before.state is not report.state):
                told = f": {report.message}" if report.message else ""
                log.log(_level(report.state), "%s: memory by HIP is %s%s", status.name, report.state, told)


def _level(state: ProbeState) -> int:
    if state in (ProbeState.OFF, ProbeState.HELD, ProbeState.MOVED):
        return logging.DEBUG
    return logging.INFO if state is ProbeState.READ else logging.WARNING


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("HIP is not asked any more", exc_info=error)


def under_way(snapshot: NodeSnapshot) -> bool:
    """Whether a mode change is planned or runs, or waits for a driver load: that needs idle GPUs, too."""
    return any(change.current is not None for change in snapshot.changes)
