"""What the daemon needs of the outside, as protocols. Adapters and the simulated node implement them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from aimd.domain.gpu import Holder, Observed
from aimd.domain.ledger import LedgerState, LedgerWrite
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.node import Event, NodeSnapshot
from aimd.domain.plan import Plan
from aimd.domain.switch import ModeChange


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
            DriverError: there is no KFD topology.
        """
        ...

    def holders(self) -> tuple[Holder, ...]:
        """The KFD clients now; the GPUs they hold are named by the partitions of the last scan."""
        ...

    def generation(self) -> int | None:
        """KFD's generation_id, which moves with every node added or removed; None while there is none."""
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


class Ledger(Protocol):
    """Durable memory. Methods block and belong to one worker thread; what `commit` returned from survives kill -9."""

    def load(self) -> LedgerState: ...

    def commit(self, write: LedgerWrite) -> None: ...

    def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[Event]: ...

    def close(self) -> None: ...


class ControlPlane(Protocol):
    """What the local API may ask of the daemon."""

    @property
    def snapshot(self) -> NodeSnapshot: ...

    async def plan(self, wishes: Sequence[tuple[str, PartitionMode]]) -> Plan:
        """What a change of these GPUs (PCI address, modes) would do; nothing is changed."""
        ...

    async def submit(
        self, name: str, wishes: Sequence[tuple[str, PartitionMode]], *, wait_seconds: float | None, uid: int
    ) -> ModeChange:
        """Journal and begin a change; returns when it is durable.

        Raises:
            RefusedError: the plan has refusals.
            ConflictError: another change runs, or the name is taken by another request.
        """
        ...

    async def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[Event]: ...

    async def changed(self, generation: int, timeout: float) -> NodeSnapshot:
        """The first snapshot newer than `generation`, or the present one when the timeout (seconds) has passed."""
        ...
