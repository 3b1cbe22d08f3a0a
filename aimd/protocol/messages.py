"""Messages of the local API and of `aimd inventory`: one shape for both. null is "unknown", never zero.

Sizes are bytes, times are seconds; `at` and `created_at` are seconds since the epoch.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.errors import InvalidInputError


def described(**schema: Any) -> msgspec.Meta:
    """What the API's description says of a field beyond its type. It checks nothing: our errors say more."""
    return msgspec.Meta(extra_json_schema=schema)


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all messages: an unknown field in a request is an error that names its path."""


class PartitionMessage(Message, frozen=True):
    """One partition. `id` is `<pci address>/<index>`, `name` is `gpu<n>/<index>`.

    Of its `memory_bytes` claims have reserved `reserved_bytes`; processes use `used_bytes` by KFD's counters, of which
    nobody has reserved `unattributed_bytes`. `free_bytes` is what one more process could allocate when HIP was asked last.
    `findings` are kinds of what is not as it should be: GET /v1/findings has the sentences. A watch tells of other figures
    with other changes, not by themselves.
    """

    id: str
    name: str
    gpu: str
    pci_address: str
    index: int
    compute_mode: str | None
    memory_mode: str | None
    xcc_count: int | None
    compute_units: int | None
    memory_bytes: int | None
    render_minor: int | None
    mode_epoch: int | None = None
    reserved_bytes: int | None = None
    used_bytes: int | None = None
    unattributed_bytes: int | None = None
    free_bytes: int | None = None
    findings: list[str] = []


class ProbeMessage(Message, frozen=True):
    """How asking HIP for a GPU's memory ended last, at `at` (seconds since the epoch), and by which file.

    `state` is `read`, or why there is no answer: off, held, moved, no-library, wrong-library, no-device, failed, timed-out,
    crashed, implausible. `runtime_version` is HIP's, major * 10**7 + minor * 10**5 + patch.
    """

    state: str
    message: str | None
    at: float
    library: str | None
    runtime_version: int | None
    seconds: float


class GpuMessage(Message, frozen=True):
    """One GPU and its partitions.

    `reported_compute_mode` is the driver's mode file, `compute_mode` what the partitions show. `drift` has a sentence
    per difference between wish, file and partitions. `wish` is like `CPX/NPS1`. `state` is `ready`, or why there are no
    partitions: `lost` (the driver could not bring it up, or is not loaded), `hidden` (the device cgroup of aimd denies
    them) or `gone` (not on the bus, or not bound to the driver).
    """

    name: str
    pci_address: str
    model: str | None
    device_id: str | None
    state: str
    compute_mode: str | None
    memory_mode: str | None
    reported_compute_mode: str | None
    available_compute_modes: list[str] | None
    available_memory_modes: list[str] | None
    memory_mode_writable: bool | None
    memory_bytes: int | None
    numa_node: int | None
    hive_id: str | None
    partitions: list[PartitionMessage]
    mode_epoch: int | None = None
    wish: str | None = None
    drift: list[str] = []
    pending_memory_mode: str | None = None
    change: str | None = None
    draining: bool = False
    holders: list[HolderMessage] = []
    left_behind: list[LeftBehindMessage] = []
    probe: ProbeMessage | None = None


class HolderMessage(Message, frozen=True):
    """A process that is a KFD client of the GPU, or one of a claim.

    `ended_at` (seconds since the epoch) is of a claim's orphan: it was found dead then, and keeps its replica for a
    while. All others live.
    """

    pid: int
    command: str | None
    ended_at: float | None = None


class LeftBehindMessage(Message, frozen=True):
    """What stays reserved on a partition for processes that go on there without their claim, until they end.

    `name` is the replica's, `guarantee` in slots. `released_at` (seconds since the epoch) is null if the claim is not
    released, but placed elsewhere.
    """

    name: str
    claim: str
    replica: int
    partition: str
    partition_name: str
    memory_gb: float
    guarantee: int
    released_at: float | None
    processes: list[HolderMessage]


class InventoryMessage(Message, frozen=True):
    """Answer of `GET /v1/gpus` and of `aimd inventory -o json`.

    `generation` of a list is what `since` of a watch takes to go on after it; without a daemon there is none.
    """

    gpus: list[GpuMessage]
    topology_generation: int | None = None
    warnings: list[str] = []
    generation: int | None = None


class PartitionListMessage(Message, frozen=True):
    """Answer of `GET /v1/partitions`."""

    partitions: list[PartitionMessage]
    generation: int | None = None


class StepMessage(Message, frozen=True):
    """One switch of a plan; `before` and `after` are like `SPX/NPS1`, `?` where unknown."""

    kind: str
    gpus: list[str]
    before: str
    after: str
    after_reload: bool


class RefusalMessage(Message, frozen=True):
    """A wish that cannot be planned."""

    gpu: str | None
    reason: str
    message: str
    hint: str


class BlockerMessage(Message, frozen=True):
    """A process in the way of a step of `gpu`; `holds` are the GPUs that it holds.

    `node_wide` when `gpu` is not among them, and the driver switches none while any process uses one.
    """

    pid: int
    command: str | None
    gpu: str
    node_wide: bool
    holds: list[str] = []


class PlanMessage(Message, frozen=True):
    """What a change would do; answer of a dry run."""

    steps: list[StepMessage]
    refusals: list[RefusalMessage]
    blockers: list[BlockerMessage]
    warnings: list[str] = []


class SwitchMessage(Message, frozen=True):
    """One step under way or ended; `seconds` from its begin to its end, `write_seconds` inside the driver."""

    step: StepMessage
    state: str
    attempts: int
    reason: str | None
    message: str | None
    seconds: float | None
    write_seconds: float


class ChangeMessage(Message, frozen=True):
    """A mode change; `GET /v1/plans/<name>`. `final` tells that nothing more will happen."""

    name: str
    origin: str
    state: str
    final: bool
    wishes: dict[str, str]
    switches: list[SwitchMessage]
    created_at: float
    requester_uid: int | None
    blockers: list[BlockerMessage] = []


class ChangeListMessage(Message, frozen=True):
    """Answer of `GET /v1/plans`."""

    plans: list[ChangeMessage]
    generation: int | None = None


_COMPUTE, _MEMORY = "|".join(ComputeMode.__members__), "|".join(MemoryMode.__members__)
ModeWord = Annotated[str, described(pattern=f"^(({_COMPUTE})(/({_MEMORY}))?|{_MEMORY})$", examples=["CPX/NPS1", "SPX"])]


class ChangeRequest(Message, frozen=True):
    """Body of `PUT /v1/plans/<name>`: modes by GPU (`gpu0` or a PCI address), for example {"gpu0": "CPX/NPS1"}.

    With `drain` GPUs with assignments are switched, too: their claims' processes are waited for (never signalled), and
    the claims are placed again afterwards.
    """

    modes: Annotated[dict[str, ModeWord], described(minProperties=1)]
    wait_seconds: Annotated[float, described(minimum=0, maximum=86400)] | None = None
    drain: bool = False
    dry_run: bool = False

    def wishes(self) -> list[tuple[str, PartitionMode]]:
        """The modes, parsed, in the request's order.

        Raises:
            InvalidInputError: no GPU is named, a mode is none, or the budget is not within 0 .. 86400 s.
        """
        if not self.modes:
            raise InvalidInputError("modes: no GPU is named", hint='for example {"modes": {"gpu0": "CPX/NPS1"}}')
        if self.wait_seconds is not None and not 0 <= self.wait_seconds <= 86400:
            raise InvalidInputError(
                f"wait_seconds: {self.wait_seconds} is out of range, expected 0 to 86400",
                hint="it is the time in seconds that each step may wait for the GPU's users to leave",
            )
        return [(gpu, PartitionMode.parse(mode)) for gpu, mode in self.modes.items()]


class DrainRequest(Message, frozen=True):
    """Body of `PUT /v1/gpus/<gpu>/drain`; it says nothing more yet."""


class EventMessage(Message, frozen=True):
    """Something that happened; `sequence` grows and is what `?since=` takes."""

    sequence: int
    at: float
    kind: str
    subject: str
    message: str


class EventListMessage(Message, frozen=True):
    """Answer of `GET /v1/events`; `next` is the `since` of the following call."""

    events: list[EventMessage]
    next: int


class NodeMessage(Message, frozen=True):
    """Answer of `GET /v1/node`."""

    ready: bool
    generation: int
    gpu_count: int
    partition_count: int
    topology_generation: int | None
    busy_rule: str
    boot_id: str
    simulated: str | None
    version: str
    pid: int
    uptime_seconds: float
    warnings: list[str] = []


class VersionMessage(Message, frozen=True):
    """Answer of `GET /v1/version`."""

    version: str
    api: str = "v1"


class HealthMessage(Message, frozen=True):
    """Answer of `GET /healthz` and `GET /readyz`: `failing` names each check that fails, with its reason."""

    status: str
    failing: dict[str, str] = {}


class ReloadMessage(Message, frozen=True):
    """Answer of `POST /v1/reload`: settings that changed, and those that need a restart to take effect.

    `problems` says in a sentence each what of the configuration cannot be carried out as things are.
    """

    changed: list[str]
    needs_restart: list[str]
    problems: list[str] = []


class ProblemMessage(Message, frozen=True):
    """RFC 9457 problem. `code` is stable, `hint` says what to do; `refusals` and `blockers` where there are any."""

    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None
    refusals: list[RefusalMessage] = []
    blockers: list[BlockerMessage] = []


def to_json(message: Message, *, indent: int = 0) -> bytes:
    """The message as JSON; `indent` spaces for people, 0 for the wire."""
    encoded = msgspec.json.encode(message)
    return msgspec.json.format(encoded, indent=indent) if indent else encoded


def to_builtins(message: Message) -> Any:
    """The message as dicts, lists and scalars, for other encodings."""
    return msgspec.to_builtins(message)
