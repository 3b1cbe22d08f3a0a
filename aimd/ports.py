"""What the daemon needs of the outside, as protocols. Adapters and the simulated node implement them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from aimd.domain.claim import Claim, ClaimSpec
from aimd.domain.event import NodeEvent
from aimd.domain.gpu import Holder, Observed
from aimd.domain.ledger import HolderRecord, LedgerState, LedgerWrite
from aimd.domain.metering import Telemetry
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.plan import Plan
from aimd.domain.probe import ProbeReport
from aimd.domain.process import Process
from aimd.domain.switch import ModeChange
from aimd.domain.traffic import TrafficBoard


class Sysfs(Protocol):
    """The lowest port: files below /sys, one system call each, errno kept.

    Paths are relative to the root (`class/kfd/kfd/topology/generation_id`). All methods block and raise OSError; a
    write is one write(2) and may block, uninterruptibly, for seconds.
    """

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, data: bytes) -> None: ...

    def listdir(self, path: str) -> list[str]: ...

    def readlink(self, path: str) -> str: ...

    def writable(self, path: str) -> bool:
        """Whether the file's mode has a write bit (the driver's statement, not the caller's permission)."""
        ...


class GpuDriver(Protocol):
    """The node's GPUs. All methods block: call them in a worker thread."""

    def scan(self) -> Observed:
        """A consistent observation.

        Raises:
            UnstableError: the topology moved during every attempt.
            DriverError: there is no KFD topology (ENOENT, ENODEV: the driver is not loaded), or it, the list of KFD
                clients or a GPU's files could not be read (any other errno: nothing is known of the node now).
        """
        ...

    def holders(self) -> tuple[Holder, ...]:
        """The KFD clients now; the GPUs they hold are named by the partitions of the last scan.

        Raises:
            DriverError: the list could not be read; that is not "nobody".
        """
        ...

    def generation(self) -> int | None:
        """KFD's generation_id, which moves with every node added or removed; None while there is none.

        Raises:
            DriverError: it is there and could not be read.
        """
        ...

    def set_compute_mode(self, address: str, mode: ComputeMode) -> None:
        """One write that switches the GPU; raises DriverError with the errno of the call."""
        ...

    def request_memory_mode(self, address: str, mode: MemoryMode) -> None:
        """Records a request that the next driver load applies to the GPU's hive; raises DriverError."""
        ...


@dataclass(frozen=True, slots=True)
class DriverEvent:
    """What a uevent meant, and for which GPU (PCI address `0000:05:00.0`; None if for all).

    Kinds: `driver_reloaded` (the module is there again, its GPUs are probed), `driver_unloaded` (it has gone),
    `gpu_added` (bound to amdgpu), `gpu_removed` (unbound), `gpu_reset` (a reset or a PCI error recovery has ended) and
    `events_lost` (the kernel dropped events: whatever may have happened).
    """

    kind: str
    address: str | None = None


class DriverEvents(Protocol):
    """Source of driver events; iteration ends when the source is closed."""

    def __aiter__(self) -> AsyncIterator[DriverEvent]: ...

    async def close(self) -> None: ...


class Dispatch(Protocol):
    """The service that requests wait at, as the control loop sees it."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What it could not be brought to, a sentence each; empty when all is well."""
        ...

    async def drain(self, gpu: str, until: float) -> tuple[int, ...]:
        """Admit nothing more on the GPU and wait for what waits and runs there, until then (CLOCK_MONOTONIC seconds).

        Returns the pids whose leases still run; none if all is quiet.
        """
        ...

    def undrain(self, gpu: str) -> None:
        """Admit again."""
        ...


class MemoryProbe(Protocol):
    """Asks HIP for the memory of a GPU's partitions, by a helper process that holds every GPU while it lives.

    All methods belong to one event loop, and none of them blocks it.
    """

    @property
    def pids(self) -> frozenset[int]:
        """Helpers that are alive or not yet released by the driver, and will be gone of themselves or by `hold`.

        A helper that outlived its end is not among them: it is a holder like any other then.
        """
        ...

    async def probe(self, gpu: str) -> ProbeReport:
        """Ask for the memory of the GPU (PCI address); one helper runs at a time, further calls wait for their turn.

        Whatever goes wrong is told by the report's state. While anything holds the probe no helper is started (HELD).
        """
        ...

    async def hold(self, key: str) -> bool:
        """From now on start no helper; end the one that runs, and return when the driver has released it.

        True if no helper holds a GPU any more; False if one could not be ended in time. A key holds once, however often
        it is given.
        """
        ...

    def resume(self, key: str) -> None:
        """What was held by the key goes on, if no other key holds it."""
        ...

    async def close(self) -> None:
        """End the helper that runs, for good."""
        ...


class Ledger(Protocol):
    """Durable memory. Methods block and belong to one worker thread; what `commit` returned from survives kill -9."""

    def load(self) -> LedgerState: ...

    def commit(self, write: LedgerWrite) -> None: ...

    def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[NodeEvent]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Remains:
    """What is there of a holder that has ended itself.

    Attributes:
        seen: something of it was there while it was watched; False if all was over before.
        living: processes that belong to it and live, without those that these have started; empty when all is over.
    """

    seen: bool
    living: tuple[Process, ...] = ()


class Processes(Protocol):
    """The processes of this machine."""

    def identify(self, pid: int) -> Process:
        """The living process; raises NotFoundError."""
        ...

    async def ended(self, pid: int, start_time: int, known: Sequence[Process] = ()) -> Remains:
        """Wait until the process itself is over, and its remains are others than the `known` ones; at once if they are."""
        ...

    def members(self, pid: int, start_time: int) -> tuple[Process, ...]:
        """The living processes that belong to a holder: itself, and those that it started. Blocks."""
        ...


@dataclass(frozen=True, slots=True)
class Health:
    """How the control loop is.

    Attributes:
        turned_at: CLOCK_MONOTONIC seconds when it last ended a turn, or tried a commit anew.
        ledger: why the ledger cannot be written; None when all is well.
        dispatch: what the dispatch service could not be brought to, a sentence each.
    """

    turned_at: float
    ledger: str | None = None
    dispatch: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A configuration that is valid from now on.

    Attributes:
        changed: settings that differ from before; `needs_restart` are those of them that take effect then.
        problems: what of it cannot be carried out as things are, a sentence each.
    """

    changed: list[str]
    needs_restart: list[str]
    problems: list[str]


class TrafficSource(Protocol):
    """What goes through the models, sampled every few seconds."""

    @property
    def board(self) -> TrafficBoard | None:
        """The last one; None while there is none."""
        ...

    async def newer(self, number: int, timeout: float) -> TrafficBoard | None:
        """The first board after the one of this number, or the present one when the timeout (seconds) has passed."""
        ...


class ControlPlane(Protocol):
    """What the local API may ask of the daemon."""

    @property
    def snapshot(self) -> NodeSnapshot: ...

    @property
    def health(self) -> Health: ...

    async def plan(self, wishes: Sequence[tuple[str, PartitionMode]], *, drain: bool = False) -> Plan:
        """What a change of these GPUs (PCI address, modes) would do; nothing is changed."""
        ...

    async def submit(
        self,
        name: str,
        wishes: Sequence[tuple[str, PartitionMode]],
        *,
        wait_seconds: float | None,
        uid: int,
        drain: bool = False,
    ) -> ModeChange:
        """Journal and begin a change; returns when it is durable. With `drain`, GPUs with assignments, too.

        Raises:
            RefusedError: the plan has refusals.
            ConflictError: another change runs, or the name is taken by another request.
        """
        ...

    async def claim(self, name: str, spec: ClaimSpec, *, uid: int) -> Claim:
        """Place a claim; returns when it is durable, perhaps before a mode change that it needs has ended.

        Raises:
            RefusedError: it fits nowhere. One that fits only when the mode change that runs has ended is kept, and waits.
            ConflictError: the name is taken by another request.
        """
        ...

    async def release(self, name: str) -> Claim:
        """Give the claim up; returns it as it was. Raises NotFoundError."""
        ...

    async def set_draining(self, gpu: str, *, draining: bool) -> None:
        """Close the GPU (PCI address) for new claims, or open it again."""
        ...

    async def members(self, holder: HolderRecord) -> Sequence[Process]:
        """The living processes of a holder."""
        ...

    async def hold(self, claim: str, replica: int | None, pid: int, *, command: str | None = None) -> HolderRecord:
        """Make the living process a holder of the replica, or of the first one that nobody holds.

        `command` is what it says it will be, for people; else its present command line.

        Raises:
            NotFoundError: no such claim, replica or process.
            ConflictError: the replica has no partition now, or the process holds another claim.
        """
        ...

    async def reload(self) -> Reloaded:
        """Read the configuration again.

        Raises:
            ConfigError: the file is not valid; the old configuration stays.
        """
        ...

    async def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[NodeEvent]: ...

    async def changed(self, generation: int, timeout: float) -> NodeSnapshot:
        """The first snapshot newer than `generation`, or the present one when the timeout (seconds) has passed."""
        ...


class Meters(Protocol):
    """Counts what happens on the control path; for any thread. Seconds are durations."""

    def operation(self, operation: str, outcome: str) -> None:
        """An operation that ended: assign, release, plan, switch, drain."""
        ...

    def mode_changed(
        self, gpu: str, before: PartitionMode, after: PartitionMode, result: str, seconds: float | None
    ) -> None:
        """A step of a mode change that ended, of one GPU (PCI address); without seconds it never began."""
        ...

    def decided(self, seconds: float) -> None:
        """The control path has handled an event."""
        ...

    def committed(self, seconds: float, *, ok: bool) -> None: ...

    def recovered(self, kind: str) -> None:
        """The ledger has had to repair itself; kind of the event that tells it."""
        ...

    def reloaded(self, *, ok: bool) -> None: ...

    def lagged(self, seconds: float) -> None:
        """The event loop came too late."""
        ...


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """A page as it is sent; `content_encoding` is gzip or None."""

    body: bytes
    content_type: str
    content_encoding: str | None = None


class MetricsPages(Protocol):
    """Pages of metrics."""

    async def page(self, accept: str, accept_encoding: str) -> MetricsPage:
        """The page as of now, in a form that these fields of a request allow."""
        ...


class TelemetrySource(Protocol):
    """What the hardware measures of the partitions."""

    def read(self, snapshot: NodeSnapshot) -> Telemetry:
        """Read it; blocks. What the driver cannot tell is absent.

        Raises:
            DriverError: nothing could be read.
        """
        ...
