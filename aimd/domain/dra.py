"""What Kubernetes and a node say to each other of devices and claims (Dynamic Resource Allocation)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DRIVER = "gpu.aimd.dev"


@dataclass(frozen=True, slots=True, order=True)
class ClaimRef:
    """A ResourceClaim: the UID tells it from an earlier one of the same name."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class PreparedDevice:
    """A device that is ready for the containers of a claim.

    Attributes:
        pool, device: as the allocation names them.
        requests: of the claim; empty for all of them.
        cdi_ids: `<kind>=<name>` of CDI devices (`ContainerDevice`) that a container with these requests gets.
        share_id: of the allocation, where the device has several claims.
    """

    pool: str
    device: str
    requests: tuple[str, ...] = ()
    cdi_ids: tuple[str, ...] = ()
    share_id: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """How a device is: `healthy` is None where nobody knows; `message` says why it is not well."""

    pool: str
    device: str
    healthy: bool | None
    message: str = ""


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device file as a container sees it; `host_path` where it has another name on the node."""

    path: str
    host_path: str | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the node in a container."""

    host_path: str
    container_path: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class ContainerDevice:
    """What a container with a request of a claim gets, all of it together: two of them would overwrite each other.

    Attributes:
        request: of the claim, `name` or `name/subrequest`.
    """

    request: str
    nodes: tuple[DeviceNode, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, slots=True)
class Registration:
    """What the kubelet said last of this driver; `error` is empty if it took it. `at`: seconds since the epoch."""

    registered: bool
    error: str
    at: float


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What the files of the container runtime lacked, and what was there for nobody: file names."""

    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SliceStatistics:
    """How the published devices are.

    Attributes:
        generation: of the pool, 0 before it was first published.
        slices: how many of ours the API server has.
        wanted: how many there should be.
        published: the API server has them as they should be.
        writes: by what was done (create, update, delete).
        vanished: how often a published one was deleted by somebody else.
        problem: what the last attempt failed by, a sentence; None if it succeeded.
    """

    generation: int = 0
    slices: int = 0
    wanted: int = 0
    published: bool = False
    writes: Mapping[str, int] = field(default_factory=dict)
    vanished: int = 0
    problem: str | None = None
