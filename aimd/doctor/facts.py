"""What a preflight looks at, as values. None is "could not be read", never zero."""

from __future__ import annotations

from dataclasses import dataclass

COMPUTE_FILE = "current_compute_partition"
MEMORY_FILE = "current_memory_partition"
ALLOCATION_FILE = "compute_partition_mem_alloc_mode"
CONFIG_FOLDER = "compute_partition_config"
# Files of a partitionable GPU that driver generations differ in (hardware notes, section 0).
PROFILE_FILES = (
    COMPUTE_FILE,
    "available_compute_partition",
    MEMORY_FILE,
    "available_memory_partition",
    CONFIG_FOLDER,
    ALLOCATION_FILE,
)


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """One PCI device of the driver.

    Attributes:
        files: the names of PROFILE_FILES that it has.
        compute_mode, memory_mode: what the mode files read.
        read_only: mode files without any write bit (the driver's statement).
        denied: mode files with a write bit that the caller may not write all the same.
    """

    name: str
    address: str
    files: frozenset[str] = frozenset()
    compute_mode: str | None = None
    memory_mode: str | None = None
    read_only: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()

    @property
    def partitionable(self) -> bool:
        return COMPUTE_FILE in self.files


@dataclass(frozen=True, slots=True)
class DriverFacts:
    """The amdgpu module: `state` as in initstate, `version` of dkms builds alone, None for what is absent."""

    state: str | None = None
    version: str | None = None
    source_version: str | None = None


@dataclass(frozen=True, slots=True)
class KfdFacts:
    """KFD's topology: GPU nodes, those hidden by the device cgroup (EPERM), those without readable properties."""

    present: bool = False
    gpu_nodes: int = 0
    hidden: int = 0
    broken: int = 0
    render_minors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """A process: its command line, and the uid of its pod if it runs in one (`?` where that cannot be told)."""

    pid: int
    command: str | None
    pod: str | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """A KFD client and the names of the GPUs it holds; none where that is unknown."""

    process: ProcessFacts
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Owner:
    """A program that manages or watches GPUs, as OWNERS in aimd.doctor.processes names it."""

    process: ProcessFacts
    program: str


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A device node; `permitted` tells that the caller may read and write it (it is never opened)."""

    path: str
    present: bool
    permitted: bool


@dataclass(frozen=True, slots=True)
class LibraryFacts:
    """Where libamdhip64 is for the loader.

    Attributes:
        path: of the file; None if it is nowhere.
        looked: folders and the loader's cache.
        elsewhere: a file that the loader does not find by itself.
    """

    path: str | None
    looked: tuple[str, ...]
    elsewhere: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it.

    Attributes:
        root: the sysfs root.
        live: it is this machine's own /sys: kernel, device nodes and programs are facts of the same machine.
        sysfs_read_only: it is mounted read-only.
        uid: the caller's.
        kernel: release of the running kernel.
        unseen: processes whose open files the caller may not look at.
        library: None if it was not looked for.
        device_rules: of the caller's device cgroup; None where they cannot be read.
    """

    root: str
    live: bool
    uid: int
    kernel: str
    driver: DriverFacts = DriverFacts()
    gpus: tuple[GpuFacts, ...] = ()
    kfd: KfdFacts = KfdFacts()
    clients: tuple[Client, ...] = ()
    owners: tuple[Owner, ...] = ()
    devices: tuple[DeviceFacts, ...] = ()
    sysfs_read_only: bool = False
    unseen: int = 0
    library: LibraryFacts | None = None
    device_rules: tuple[str, ...] | None = None
