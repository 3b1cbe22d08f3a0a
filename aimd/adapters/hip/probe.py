"""ports.MemoryProbe by a helper process: which devices it may see, how long it may take, when it may not be there.

In a pid namespace of its own the daemon cannot tell its helper in the driver's list: then it is a holder like any
other, and a switch waits for the driver to release it.
"""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from aimd.adapters.amdgpu.layout import SYSTEM, SysfsLayout
from aimd.adapters.amdgpu.topology import KfdNode, Topology, read_generation, read_topology
from aimd.adapters.hip import helper
from aimd.adapters.hip.answer import judge, told
from aimd.domain.gpu import pci_address
from aimd.domain.probe import ProbeReport, ProbeState
from aimd.errors import AimdError
from aimd.ports import Sysfs

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.001, 0.02


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How HIP is asked.

    Attributes:
        library: file of libamdhip64; None for what the loader finds.
        deadline_seconds: of one helper; the first use of HIP takes long on a node with many partitions.
        environment: further variables of the helper's.
        release_seconds: that the driver may take to release a dead helper.
    """

    library: str | None = None
    deadline_seconds: float = 30.0
    environment: Mapping[str, str] | None = None
    release_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class _Target:
    """The GPU's partitions: places among all GPU nodes of KFD, sizes by bus id, and when that was so."""

    ordinals: tuple[int, ...]
    sizes: Mapping[str, int | None]
    generation: int | None


class HipProbe:
    """ports.MemoryProbe; `sysfs` shows the topology and the driver's list of clients."""

    def __init__(self, sysfs: Sysfs, settings: ProbeSettings | None = None, layout: SysfsLayout = SYSTEM) -> None:
        self._sysfs = sysfs
        self._layout = layout
        self._settings = settings or ProbeSettings()
        self._keys: set[str] = set()
        self._closed = False
        self._turn = asyncio.Lock()
        self._stop = asyncio.Event()
        self._asking: asyncio.Task[ProbeReport] | None = None
        self._pids: set[int] = set()
        self._outlived: set[int] = set()

    # -- ports.MemoryProbe -----------------------------------------------------------------------------------

    @property
    def pids(self) -> frozenset[int]:
        return frozenset(self._pids)

    async def probe(self, gpu: str) -> ProbeReport:
        async with self._turn:
            if self._closed or self._keys:
                return ProbeReport(gpu, ProbeState.HELD, "a mode switch is planned or runs: HIP is not asked meanwhile")
            self._stop.clear()
            # A task of its own: whoever gives up waiting must not leave a helper behind.
            self._asking = asyncio.ensure_future(self._ask(gpu))
            try:
                return await asyncio.shield(self._asking)
            except asyncio.CancelledError:
                self._stop.set()
                await asyncio.wait({self._asking})
                raise
            finally:
                self._asking = None

    async def hold(self, key: str) -> bool:
        self._keys.add(key)
        return await self._emptied()

    def resume(self, key: str) -> None:
        self._keys.discard(key)

    async def close(self) -> None:
        self._closed = True
        await self._emptied()

    async def _emptied(self) -> bool:
        self._stop.set()
        if self._asking is not None:
            await asyncio.wait({self._asking})
        return not await self._still_there()

    # -- one question ----------------------------------------------------------------------------------------

    async def _ask(self, gpu: str) -> ProbeReport:
        began = time.monotonic()
        if await self._still_there():
            return ProbeReport(gpu, ProbeState.TIMED_OUT, f"{self._leftovers()}: HIP is not asked before it has gone")
        try:
            target = await asyncio.to_thread(self._locate, gpu)
        except AimdError as error:
            return ProbeReport(gpu, ProbeState.MOVED, error.message)
        if not target.ordinals:
            return ProbeReport(gpu, ProbeState.MOVED, f"KFD shows no partition of GPU {gpu}")
        report = await self._helped(gpu, target)
        if report.state is ProbeState.IMPLAUSIBLE and not await asyncio.to_thread(self._unmoved, target):
            report = ProbeReport(gpu, ProbeState.MOVED, "the topology has moved while HIP was asked")
        return replace(report, seconds=time.monotonic() - began, released=not self._outlived)

    def _locate(self, gpu: str) -> _Target:
        """Blocks; raises AimdError."""
        topology = read_topology(self._sysfs, self._layout.topology, self._layout.root)
        return _target(topology, gpu)

    def _unmoved(self, target: _Target) -> bool:
        try:
            return read_generation(self._sysfs, self._layout.topology) == target.generation
        except AimdError:
            return False

    async def _helped(self, gpu: str, target: _Target) -> ProbeReport:
        """Start a helper, wait for its answer, the deadline or a hold, and see it out of the driver."""
        before = await asyncio.to_thread(self._clients)
        if self._stop.is_set():
            return _broken_off(gpu)
        settings = self._settings
        try:
            running = await helper.start(
                settings.library,
                target.ordinals,
                math.ceil(settings.deadline_seconds) + 1,
                settings.environment or {},
            )
        except OSError as error:
            return ProbeReport(gpu, ProbeState.FAILED, f"the helper could not be started: {error.strerror or error}")
        # The driver lists pids of the first namespace. A number that it has before it is the helper's is another's.
        told_apart = str(running.pid) not in before
        if told_apart:
            self._pids.add(running.pid)
        answered = asyncio.ensure_future(running.answered())
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({answered, stopped}, timeout=settings.deadline_seconds, return_when=asyncio.FIRST_COMPLETED)
        in_time, broken_off = answered.done(), not answered.done() and stopped.done()
        dead = await running.end()
        answered.cancel()
        stopped.cancel()
        await asyncio.gather(answered, stopped, return_exceptions=True)
        if told_apart and not (dead and await self._released(running.pid)):
            self._outlived.add(running.pid)
        self._pids.discard(running.pid)
        if broken_off:
            return _broken_off(gpu)
        if not in_time:
            words = f"HIP has not answered within {settings.deadline_seconds:g} s"
            return ProbeReport(gpu, ProbeState.TIMED_OUT, _with_complaint(words, running))
        return _report(gpu, running, target)

    # -- the driver's list of clients ------------------------------------------------------------------------

    async def _released(self, pid: int) -> bool:
        """Wait until the driver has released the dead process; False when the time is over."""
        deadline, pause = time.monotonic() + self._settings.release_seconds, FIRST_PAUSE_SECONDS
        while await asyncio.to_thread(self._listed, pid):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return True

    def _listed(self, pid: int) -> bool:
        return str(pid) in self._clients()

    def _clients(self) -> frozenset[str]:
        """Blocks. No driver, no clients; a list that cannot be read tells nothing, and the switch looks again."""
        try:
            return frozenset(self._sysfs.listdir(self._layout.processes))
        except OSError:
            return frozenset()

    async def _still_there(self) -> bool:
        for pid in tuple(self._outlived):
            if not await asyncio.to_thread(self._listed, pid):
                self._outlived.discard(pid)
        return bool(self._outlived)

    def _leftovers(self) -> str:
        return f"the helper of an earlier question (pid {min(self._outlived)}) could not be ended"


def _target(topology: Topology, gpu: str) -> _Target:
    """HIP and HSA count the GPU nodes that they can read, in the order of KFD's list."""
    own = [(place, node) for place, node in enumerate(topology.nodes) if _address(node) == gpu]
    sizes = {f"{gpu[:-1]}{node.properties['location_id'] & 7}": node.memory_bytes for _, node in own}
    return _Target(tuple(place for place, _ in own), sizes, topology.generation)


def _address(node: KfdNode) -> str:
    return pci_address(node.properties.get("domain", 0), node.properties["location_id"])


def _broken_off(gpu: str) -> ProbeReport:
    return ProbeReport(gpu, ProbeState.HELD, "broken off: a mode switch is planned")


def _report(gpu: str, ended: helper.Helper, target: _Target) -> ProbeReport:
    code = ended.process.returncode
    if ended.overlong or (code == 0 and ended.output):
        return judge(gpu, bytes(ended.output), target.sizes)
    if code == -signal.SIGALRM:
        return ProbeReport(gpu, ProbeState.TIMED_OUT, "the helper has ended itself: HIP did not answer")
    if code is not None and code < 0:
        words = f"the helper died of {_signal_name(-code)} inside HIP"
        return ProbeReport(gpu, ProbeState.CRASHED, _with_complaint(words, ended))
    words = f"the helper ended with exit code {code} and no answer"
    return ProbeReport(gpu, ProbeState.FAILED, _with_complaint(words, ended))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _with_complaint(words: str, ended: helper.Helper) -> str:
    lines = ended.complaint.decode("utf-8", "replace").strip().splitlines()
    return f"{words}: {told(lines[-1])}" if lines else words
