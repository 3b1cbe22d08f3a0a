"""State of a simulated node, as plain data that can be written to a file and read back."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import msgspec

from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.sim.hardware import BUSES, MODELS, PROFILES, Profile, SimModel


class FaultKind(str, Enum):
    """Faults on demand; `SimFault` says how often and where."""

    BUSY = "busy"  # the compute write answers EBUSY
    FIRMWARE_REFUSAL = "firmware-refusal"  # the write succeeds, the mode file says new, the nodes stay old
    KFD_FAILURE = "kfd-failure"  # the write answers EIO, all nodes of the GPU are gone until a driver load
    SLOW_WRITE = "slow-write"  # the write takes `seconds`, readers of the mode file block
    REBUILD_WINDOW = "rebuild-window"  # nodes/ is empty for `seconds` at each rebuild
    RESET = "reset"  # the GPU is in reset for `seconds`
    DEVICE_LOST = "device-lost"  # the PCI device disappears
    MINORS_EXHAUSTED = "minors-exhausted"  # only 63 DRM devices from the next driver load on
    CGROUP_DENIED = "cgroup-denied"  # KFD files of the GPU answer EPERM (device cgroup)
    ACCESS_DENIED = "access-denied"  # opening a mode file for writing answers EACCES
    READ_ONLY = "read-only"  # opening a mode file for writing answers EROFS
    LOAD_HANG = "load-hang"  # a driver load stops before the second half of the GPUs, until cleared
    MEMORY_REFUSAL = "memory-refusal"  # the firmware refuses the memory mode at the next driver load

    __str__ = str.__str__


CONDITIONS = frozenset(
    {FaultKind.CGROUP_DENIED, FaultKind.REBUILD_WINDOW, FaultKind.MINORS_EXHAUSTED, FaultKind.LOAD_HANG}
)


@dataclass(slots=True)
class SimFault:
    """An armed fault: on one GPU (PCI address) or all, `remaining` times (None = until cleared).

    Those in CONDITIONS last until cleared and are not counted.
    """

    kind: FaultKind
    gpu: str | None = None
    remaining: int | None = 1
    seconds: float = 0.0


@dataclass(slots=True)
class KfdNode:
    """A GPU node of the KFD topology. `due` is when it appears while its GPU is being switched."""

    address: str
    index: int
    first_xcc: int
    xcc_count: int
    memory_bytes: int
    gpu_id: int
    render_minor: int
    simd_id_base: int
    due: float = 0.0


@dataclass(slots=True)
class Work:
    """What a client computes on a partition (sim/activity.py).

    Attributes:
        share: of the time that the partition's XCCs are busy, 0 to 1.
        level: what the smoothed share was at the instant `since`.
    """

    share: float
    level: float
    since: float


@dataclass(slots=True)
class SimClient:
    """A KFD client: a process that opened /dev/kfd.

    Attributes:
        start_time: field 22 of /proc/<pid>/stat, so that a reused pid is told apart.
        vram: bytes by gpu_id, one entry per permitted node (pdd), 0 if unused.
        granules: the same in whole granules per allocation (sim/memory.py), for those that are used.
        gpus: PCI addresses of these nodes.
        reap_at: when the driver has released it, None while it lives.
        work: by gpu_id what it computes, as far as it has said.
    """

    pid: int
    start_time: int
    vram: dict[int, int]
    gpus: list[str]
    reap_at: float | None = None
    granules: dict[int, int] = field(default_factory=dict)
    work: dict[int, Work] = field(default_factory=dict)


@dataclass(slots=True)
class SimGpu:
    """One GPU. `mode_file` is the mode that the driver has cached, `compute` what the hardware is in.

    Attributes:
        bind_at: when the driver load under way gets to it; None while it is bound to the driver.
    """

    address: str
    bus: int
    xcc_count: int
    unique_id: int
    hive_id: int
    numa_node: int
    vf: bool = False
    compute: ComputeMode = ComputeMode.SPX
    mode_file: ComputeMode = ComputeMode.SPX
    memory: MemoryMode = MemoryMode.NPS1
    requested_memory: MemoryMode | None = None
    alloc_mode: str = "CAPPING"
    isolation: list[int] = field(default_factory=list)
    xcp_config: ComputeMode = ComputeMode.SPX
    render_minors: list[int | None] = field(default_factory=list)
    switching_until: float | None = None
    reset_until: float | None = None
    lost: bool = False
    kfd_dead: bool = False
    bind_at: float | None = None

    @property
    def bound(self) -> bool:
        """Whether the driver has it: then it has the driver's files."""
        return not self.lost and self.bind_at is None


@dataclass(slots=True)
class SimState:
    """The whole node. Instants are on the clock of whoever passes `now`; only differences matter.

    Attributes:
        boot_id: random, of this boot of this machine; empty until the front end has made one.
        generation: KFD's generation_id; 0 before the first driver load.
        hole_until: until when nodes/ is empty because a node went and it is being built again.
        drm_minors: render minors that the kernel has for XCPs, 63 on the machine of the capture.
        switch_seconds: time of a compute switch (the real one is not documented).
        rebuild_seconds: how long nodes/ is empty at each node that comes or goes.
        reap_seconds: from a client's death until the driver has released it.
        load_seconds: from unload to module load, and from one GPU to the next; with 0 a load is one step.
        module_at: when the driver's module is there again, None while it is loaded.
        system_memory_gib: RAM; the driver's reserve for page tables grows with it.
        pinned_bytes: of each GPU, pinned by the driver. ras_bytes: kept back for bad pages.
        platform: oem, id and revision of topology/system_properties.
        gpu_metrics: version of that table (sim/metrics_tables.py) if it is not the profile's: AMD's own builds differ.
    """

    model: str
    profile: str
    gpus: list[SimGpu]
    nodes: list[KfdNode] = field(default_factory=list)
    additions: list[KfdNode] = field(default_factory=list)
    clients: list[SimClient] = field(default_factory=list)
    faults: list[SimFault] = field(default_factory=list)
    generation: int = 0
    simd_id_next: int = 0x80001000  # gpu_processor_id_low (kfd_crat.c)
    hole_until: float = 0.0
    boot_id: str = ""
    drm_minors: int = 64
    switch_seconds: float = 0.25
    rebuild_seconds: float = 0.00025
    reap_seconds: float = 0.05
    load_seconds: float = 0.0
    module_at: float | None = None
    cpu_cores: int = 96
    cpu_clock: int = 2750
    system_memory_gib: int = 2048
    pinned_bytes: int = 48 << 20
    ras_bytes: int = 0
    platform: tuple[int, int, int] = (0x54524541, 0x4D49_3330, 1)
    gpu_metrics: str | None = None

    @property
    def description(self) -> str:
        return f"{self.model}:{len(self.gpus)}, driver {self.profile}"

    @property
    def hardware(self) -> SimModel:
        return MODELS[self.model]

    @property
    def driver(self) -> Profile:
        return PROFILES[self.profile]

    @property
    def metrics_version(self) -> str:
        return self.gpu_metrics or self.driver.gpu_metrics

    @property
    def sockets(self) -> int:
        """CPU nodes of the topology: two sockets, or one per APU."""
        return len(self.gpus) if self.hardware.apu else 2

    def gpu(self, address: str) -> SimGpu:
        return next(gpu for gpu in self.gpus if gpu.address == address)


def new_state(model: str, count: int, profile: str = "7.2", **settings: float) -> SimState:
    """A node with `count` GPUs (1 to 8) of a model in MODELS before its driver was loaded.

    `settings` are the times of SimState. Variants (a virtual function, a harvested GPU, 63 minors) are made by setting
    the fields of the result.

    Raises:
        ValueError: unknown model or profile, or a count out of range.
    """
    if model not in MODELS or profile not in PROFILES or not 1 <= count <= len(BUSES):
        raise ValueError(
            f"simulated node {model}:{count} with driver {profile} is unknown, expected {'|'.join(MODELS)}:1..8 "
            f"and driver {'|'.join(PROFILES)}"
        )
    hive = 0xD2C9_0000_0000_0001 if count > 1 else 0
    gpus = [
        SimGpu(
            address=f"0000:{bus:02x}:00.0",
            bus=bus,
            xcc_count=MODELS[model].xcc_count,
            unique_id=0xA000_0000_0000_0000 | bus << 32 | 0x5EED,
            hive_id=hive,
            numa_node=position if MODELS[model].apu else int(position >= (count + 1) // 2),
        )
        for position, bus in enumerate(BUSES[:count])
    ]
    return SimState(model=model, profile=profile, gpus=gpus, **settings)  # type: ignore[arg-type]


def dump(state: SimState) -> bytes:
    """The state as JSON."""
    return msgspec.json.encode(state)


def restore(data: bytes) -> SimState:
    """The state that `dump` wrote; raises msgspec.DecodeError or ValidationError for anything else."""
    return msgspec.json.decode(data, type=SimState)
