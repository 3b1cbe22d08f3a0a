"""What the control loop can be told (events) and what it can be asked to do (effects).

A token ties a result to the step that asked for it: a result with an old token is stale and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aimd.domain.claim import Claim, ClaimSpec, PodRequest
from aimd.domain.gpu import Holder, Observed
from aimd.domain.ledger import HolderRecord, LedgerState, LedgerWrite
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.probe import ProbeReport
from aimd.domain.process import Process
from aimd.domain.switch import ModeChange
from aimd.errors import AimdError
from aimd.planning.policy import Policy


@dataclass(frozen=True, slots=True)
class Instant:
    """Now: CLOCK_MONOTONIC seconds for deadlines, seconds since the epoch for people."""

    monotonic: float
    wall: float


# -- events ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The ledger was read. `layout` maps `default`, `gpu<n>` or PCI addresses to modes."""

    ledger: LedgerState
    layout: Mapping[str, PartitionMode]
    layout_digest: str


@dataclass(frozen=True, slots=True)
class Scanned:
    """A scan has ended: with an observation, or with a failure that a later scan may not have.

    `gone` tells that there was no topology at all: the driver is not loaded.
    """

    token: int
    observed: Observed | None
    failure: str | None = None
    gone: bool = False


@dataclass(frozen=True, slots=True)
class PollDue:
    """It is time to look whether something moved."""


@dataclass(frozen=True, slots=True)
class Polled:
    """The cheap look: generation and holders."""

    generation: int | None
    holders: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class Probed:
    """HIP was asked for the memory of a GPU that had this mode epoch then."""

    report: ProbeReport
    mode_epoch: int


@dataclass(frozen=True, slots=True)
class DriverChanged:
    """A uevent, already understood (ports.DriverEvent)."""

    kind: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Submitted:
    """A client asks for a mode change; the answer goes to `request`."""

    request: int
    name: str
    wishes: tuple[tuple[str, PartitionMode], ...]
    wait_seconds: float | None
    uid: int
    drain: bool = False


@dataclass(frozen=True, slots=True)
class ClaimRequested:
    """A client asks for a claim."""

    request: int
    name: str
    spec: ClaimSpec
    uid: int


@dataclass(frozen=True, slots=True)
class ClaimReleased:
    """A client gives a claim up."""

    request: int
    name: str


@dataclass(frozen=True, slots=True)
class PodsSeen:
    """All pods of this node that ask for a partition, as the cluster has them now; others ask no more."""

    requests: tuple[PodRequest, ...]


@dataclass(frozen=True, slots=True)
class DevicesTaken:
    """A ResourceClaim was allocated devices of this node: all that it asks for; answered by the model's claim.

    Once the kubelet has asked for it, what is said of its pod's wait comes too late and changes nothing.
    """

    request: int
    uid: str
    requests: tuple[PodRequest, ...]


@dataclass(frozen=True, slots=True)
class DevicesLeft:
    """The ResourceClaim of this UID has no devices of this node any more; answered by None, also where it had none.

    `waiting` is for one whose pod was not bound: what the kubelet has asked for meanwhile is the kubelet's to give back.
    """

    request: int
    uid: str
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class DrainingSet:
    """An operator closes a GPU for new claims, or opens it again."""

    request: int
    gpu: str
    draining: bool


@dataclass(frozen=True, slots=True)
class HolderJoined:
    """A process takes a replica of a claim: the given one, or the first that nobody holds."""

    request: int
    claim: str
    replica: int | None
    pid: int
    start_time: int
    command: str | None


@dataclass(frozen=True, slots=True)
class HolderEnded:
    """A holder's process is over; `seen` tells that its end was watched, not found out later.

    `living` are processes that belong to it and go on: while there are any, it holds its place.
    """

    pid: int
    start_time: int
    seen: bool
    living: tuple[Process, ...] = ()


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """Another configuration is valid from now on."""

    policy: Policy
    layout: Mapping[str, PartitionMode]
    layout_digest: str
    digest_before: str
    layout_before: Mapping[str, PartitionMode]


@dataclass(frozen=True, slots=True)
class Drained:
    """No lease is admitted on the GPU; `left` are the processes whose leases still ran when the time was over."""

    token: int
    left: tuple[Holder, ...] = ()


@dataclass(frozen=True, slots=True)
class HoldersSeen:
    """The KFD clients at this moment; None if they could not be listed, with the failure."""

    token: int
    holders: tuple[Holder, ...] | None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class WriteEnded:
    """A mode write has returned, with its errno (0 = success) after `seconds`."""

    token: int
    errno: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Woken:
    """A pause that a step asked for is over."""

    token: int


@dataclass(frozen=True, slots=True)
class EffectFailed:
    """An effect ended in an error that nobody foresaw; `token` is that of the step it belonged to, 0 for none."""

    token: int
    message: str


Event = (
    Started
    | Scanned
    | PollDue
    | Polled
    | Probed
    | DriverChanged
    | Submitted
    | ClaimRequested
    | ClaimReleased
    | PodsSeen
    | DevicesTaken
    | DevicesLeft
    | DrainingSet
    | HolderJoined
    | HolderEnded
    | Reconfigured
    | Drained
    | HoldersSeen
    | WriteEnded
    | Woken
    | EffectFailed
)

Answer = ModeChange | Claim | HolderRecord | None | AimdError

# -- effects -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Commit:
    """Make this durable before any later effect of the same answer."""

    write: LedgerWrite


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a client's request."""

    request: int
    result: Answer


@dataclass(frozen=True, slots=True)
class Publish:
    """Show this snapshot."""

    snapshot: NodeSnapshot


@dataclass(frozen=True, slots=True)
class Scan:
    """Observe the node; answered by Scanned."""

    token: int = 0


@dataclass(frozen=True, slots=True)
class Poll:
    """Read generation and holders; answered by Polled."""


@dataclass(frozen=True, slots=True)
class Drain:
    """End admission on the GPU and wait until no lease runs there, at most until then (CLOCK_MONOTONIC seconds).

    Answered by Drained.
    """

    token: int
    gpu: str
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Undrain:
    """Admit leases on the GPU again."""

    gpu: str


@dataclass(frozen=True, slots=True)
class ListHolders:
    """Read the KFD clients; answered by HoldersSeen."""

    token: int


@dataclass(frozen=True, slots=True)
class WriteMode:
    """One write to a mode file; answered by WriteEnded."""

    token: int
    gpu: str
    mode: ComputeMode | MemoryMode


@dataclass(frozen=True, slots=True)
class Wake:
    """Answer with Woken after `seconds`."""

    token: int
    seconds: float


@dataclass(frozen=True, slots=True)
class WatchProcess:
    """Answer with HolderEnded when the process is over and others than `known` are left of it, or at once if so."""

    pid: int
    start_time: int
    known: tuple[Process, ...] = ()


Effect = Commit | Reply | Publish | Scan | Poll | Drain | Undrain | ListHolders | WriteMode | Wake | WatchProcess
