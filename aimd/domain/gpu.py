"""GPUs, their partitions and their users, as observed on a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from aimd.domain.memory import GIB
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.silicon import MODELS, GpuModel, compute_mode_of, partition_count


def pci_address(domain: int, location_id: int) -> str:
    """PCI address of the physical GPU behind a KFD node, `0000:05:00.0`.

    KFD's location_id is bus << 8 | devfn, and the driver ors the partition index into the low three bits
    (kfd_topology.c), so these bits are masked: every partition of a GPU has one address.
    """
    bus, devfn = location_id >> 8 & 0xFF, location_id & 0xF8
    return f"{domain:04x}:{bus:02x}:{devfn >> 3:02x}.0"


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition as its KFD node shows it; None is unknown (unreadable), never zero.

    `kfd_gpu_id` names the partition in kfd/proc/<pid>/vram_<gpu_id>, `kfd_node` is its number in KFD's topology. Both
    change with every mode switch, the number even with those of other GPUs: they are valid within one observation.
    """

    index: int
    render_minor: int | None
    xcc_count: int | None
    memory_bytes: int | None
    kfd_gpu_id: int | None = None
    compute_units: int | None = None
    kfd_node: int | None = None


class GpuState(str, Enum):
    """Whether KFD shows partitions of a GPU, and if not, why.

    READY: it does. LOST: the driver has the device, or is not loaded, and KFD has none of its nodes. HIDDEN: KFD keeps
    nodes from this process (its device cgroup), and shows none of this GPU. GONE: the device is not bound to the driver
    any more, or not on the bus.
    """

    READY = "ready"
    LOST = "lost"
    HIDDEN = "hidden"
    GONE = "gone"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Gpu:
    """A physical GPU and its partitions at one instant.

    `reported_compute` is what current_compute_partition reads. The driver caches it, also when the firmware has
    refused a switch, so `compute_mode` is derived from the partitions wherever they tell (hardware fact: verify by
    effect) and falls back to the file. `absence` is the state of a GPU without partitions. `memory_mode_writable` is the mode bits of the memory mode's file, None where
    there is no such file.
    """

    pci_address: str
    device_id: int | None
    partitions: tuple[Partition, ...]
    reported_compute: ComputeMode | None = None
    memory_mode: MemoryMode | None = None
    compute_modes: tuple[ComputeMode, ...] | None = None
    memory_modes: tuple[MemoryMode, ...] | None = None
    memory_mode_writable: bool | None = None
    memory_bytes: int | None = None
    hive_id: int | None = None
    numa_node: int | None = None
    gfx_target: int | None = None
    in_reset: bool = False
    absence: GpuState = GpuState.LOST

    @property
    def model(self) -> GpuModel | None:
        return MODELS.get(self.device_id) if self.device_id is not None else None

    @property
    def state(self) -> GpuState:
        return GpuState.READY if self.partitions else self.absence

    @property
    def compute_mode(self) -> ComputeMode | None:
        model, divisible = self.model, self.model is not None and self.model.partitionable
        if self.partitions and model is not None and divisible and self.partitions[0].xcc_count is not None:
            effective = compute_mode_of(self.partitions[0].xcc_count, model.xcc_count)
            if effective is not None:
                return effective
        return self.reported_compute

    @property
    def total_memory_bytes(self) -> int | None:
        """What the driver says of the whole GPU, else the sum of its partitions where all are there and known.

        More than the GPU has is no sum: partitions can be set to share the memory, and each then shows all of it.
        """
        model, mode = self.model, self.compute_mode
        if self.memory_bytes is not None or model is None or model.memory_gib is None:
            return self.memory_bytes
        count = 1 if not model.partitionable else partition_count(mode, model.xcc_count) if mode is not None else None
        sizes = [partition.memory_bytes for partition in self.partitions if partition.memory_bytes is not None]
        whole = len(sizes) == len(self.partitions) == count and sum(sizes) <= model.memory_gib * GIB
        return sum(sizes) if whole else None

    @property
    def mode(self) -> PartitionMode:
        return PartitionMode(self.compute_mode, self.memory_mode)

    @property
    def consistent(self) -> bool:
        """Whether the driver's mode file says the same as the partitions."""
        return self.reported_compute is None or not self.partitions or self.reported_compute == self.compute_mode


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that is a KFD client, and the GPUs it holds (every GPU that its device cgroup permits).

    `vram` has (PCI address, partition index, bytes) for each partition whose memory it uses, `unread` (PCI address,
    index) for those whose counter could not be read. `start_time` is field 22 of its stat, None if it has ended (and the
    driver has not released it yet). `owner` is the claim holder (pid, start time) that it belongs to by its environment,
    `pod` the UID of its pod, "" in a pod whose UID cannot be told.
    """

    pid: int
    command: str | None
    gpus: frozenset[str]
    vram: tuple[tuple[str, int, int], ...] = ()
    owner: tuple[int, int] | None = None
    start_time: int | None = None
    pod: str | None = None
    unread: tuple[tuple[str, int], ...] = ()


class BusyRule(str, Enum):
    """Whose processes make a compute switch fail with EBUSY: this GPU's, or any on the node (drivers up to 6.16)."""

    PER_GPU = "per-gpu"
    NODE_WIDE = "node-wide"
    UNKNOWN = "unknown"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Observed:
    """One consistent scan of a node: nothing moved while it was read.

    `pending_memory` is aimd's own memory of requests that the next driver load applies, by PCI address: the driver
    shows them nowhere. `system_bytes` is the machine's RAM as KFD counts it, None if unknown.
    """

    gpus: tuple[Gpu, ...]
    holders: tuple[Holder, ...] = ()
    topology_generation: int | None = None
    busy_rule: BusyRule = BusyRule.UNKNOWN
    warnings: tuple[str, ...] = ()
    pending_memory: Mapping[str, MemoryMode] = field(default_factory=dict)
    system_bytes: int | None = None

    def gpu(self, address: str) -> Gpu | None:
        return next((gpu for gpu in self.gpus if gpu.pci_address == address), None)

    def hive(self, address: str) -> tuple[str, ...]:
        """The GPU and those that share its XGMI hive, in the order of the node."""
        gpu = self.gpu(address)
        if gpu is None or not gpu.hive_id:
            return (address,)
        return tuple(other.pci_address for other in self.gpus if other.hive_id == gpu.hive_id)
