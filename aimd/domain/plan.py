"""Wishes for modes, and plans that carry them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from aimd.domain.gpu import Holder
from aimd.domain.modes import PartitionMode
from aimd.errors import RefusedError


class Reason(str, Enum):
    """Why something was refused or failed. A closed set: API problems, events and metrics use these words."""

    UNKNOWN_GPU = "unknown_gpu"
    GPU_LOST = "gpu_lost"
    GPU_HIDDEN = "gpu_hidden"
    GPU_GONE = "gpu_gone"
    GPU_BUSY = "gpu_busy"
    GPU_IN_RESET = "gpu_in_reset"
    MODE_UNKNOWN = "mode_unknown"
    MODE_NOT_AVAILABLE = "mode_not_available"
    MEMORY_MODE_DISABLED = "memory_mode_disabled"
    MEMORY_MODE_READ_ONLY = "memory_mode_read_only"
    MEMORY_MODE_CONFLICT = "memory_mode_conflict"
    MEMORY_MODE_PENDING = "memory_mode_pending"
    SWITCH_IN_PROGRESS = "switch_in_progress"
    NOT_PERMITTED = "not_permitted"
    NO_EFFECT = "no_effect"
    FIRMWARE_REFUSED = "firmware_refused"
    DRIVER_FAILED = "driver_failed"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    EARLIER_STEP_FAILED = "earlier_step_failed"
    INTERRUPTED_BY_REBOOT = "interrupted_by_reboot"
    ROLLBACK_FAILED = "rollback_failed"
    NO_ROOM = "no_room"
    MEMORY_TOO_LARGE = "memory_too_large"
    GUARANTEE_TOO_LARGE = "guarantee_too_large"
    UNKNOWN_PARTITION = "unknown_partition"
    GPU_IN_USE = "gpu_in_use"
    GPU_DRAINING = "gpu_draining"
    CONFLICTING_MANAGER = "conflicting_manager"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Refusal:
    """A wish that cannot be planned: which GPU, why, in a sentence, and what to do."""

    gpu: str | None
    reason: Reason
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Desired:
    """What the node should look like: a wish per PCI address; None in a wish leaves that mode as it is."""

    wishes: Mapping[str, PartitionMode] = field(default_factory=dict)
    allow_memory_mode_change: bool = False


class StepKind(str, Enum):
    """COMPUTE: one write that switches one GPU. MEMORY: a request for a whole hive, done by the next driver load."""

    COMPUTE = "compute"
    MEMORY = "memory"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Step:
    """One switch of a plan.

    Attributes:
        gpus: the GPU, or the members of the hive for a memory step; the first one's file is written.
        before: the modes now; `compute` is None after a driver load that has yet to choose it.
        after_reload: the step can run only when the memory step before it was completed by a driver load.
    """

    kind: StepKind
    gpus: tuple[str, ...]
    before: PartitionMode
    after: PartitionMode
    after_reload: bool = False

    @property
    def gpu(self) -> str:
        return self.gpus[0]


@dataclass(frozen=True, slots=True)
class Blocker:
    """A process that would make a step fail with EBUSY, and whether only because the driver's rule is node-wide."""

    holder: Holder
    gpu: str
    node_wide: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered steps, and the wishes that were refused. A plan with refusals is not executed."""

    steps: tuple[Step, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    blockers: tuple[Blocker, ...] = ()
    warnings: tuple[str, ...] = ()


class PlanRefusedError(RefusedError):
    """A plan with refusals was to be executed; `plan` has them."""

    def __init__(self, plan: Plan) -> None:
        first = plan.refusals[0]
        super().__init__(first.message, code=first.reason.value, hint=first.hint)
        self.plan = plan
