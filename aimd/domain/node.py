"""The node as aimd shows it: one immutable snapshot that API, metrics and cluster status are rendered from."""

from __future__ import annotations

from dataclasses import dataclass, field

from aimd.domain.accounting import MemoryBoard, MemoryFinding
from aimd.domain.claim import Assignment, Claim, ClaimState
from aimd.domain.gpu import BusyRule, Gpu, Holder
from aimd.domain.ledger import HolderRecord
from aimd.domain.modes import MemoryMode, PartitionMode
from aimd.domain.switch import ModeChange
from aimd.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """A GPU with what aimd knows beyond the driver.

    Attributes:
        index: position in PCI order; `gpu3` names it.
        mode_epoch: counts the mode changes of this GPU that aimd has seen; part of a partition's identity.
        wish: the modes it should have, None without a wish.
        drift: sentences that say where wish, mode file and partitions differ; empty when all is well.
        pending_memory: memory mode that the next driver load will apply.
        change: name of the mode change under way on it.
    """

    index: int
    gpu: Gpu
    mode_epoch: int = 0
    wish: PartitionMode | None = None
    drift: tuple[str, ...] = ()
    pending_memory: MemoryMode | None = None
    change: str | None = None
    draining: bool = False

    @property
    def name(self) -> str:
        return f"gpu{self.index}"


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """All of the node at one instant; replaced as a whole, never changed.

    `generation` grows with every snapshot of one daemon, but for those in which `memory` alone has changed: what is used
    moves all the time, and nobody is to be told of that.

    `complaints` are those of the `warnings` that say what of the configuration in force cannot be carried out.
    """

    generation: int = 0
    gpus: tuple[GpuStatus, ...] = ()
    holders: tuple[Holder, ...] = ()
    changes: tuple[ModeChange, ...] = ()
    claims: tuple[Claim, ...] = ()
    claim_holders: tuple[HolderRecord, ...] = ()
    busy_rule: BusyRule = BusyRule.UNKNOWN
    ready: bool = False
    topology_generation: int | None = None
    warnings: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()
    findings: tuple[MemoryFinding, ...] = ()
    memory: MemoryBoard = field(default_factory=MemoryBoard, compare=False)

    def find(self, selector: str) -> GpuStatus:
        """The GPU named by `gpu<n>`, by its number or by its PCI address, in any case.

        Raises:
            NotFoundError: no GPU of this node is called so.
        """
        wanted = selector.strip().lower()
        for status in self.gpus:
            if wanted in (status.name, str(status.index), status.gpu.pci_address):
                return status
        names = ", ".join(f"{status.name} ({status.gpu.pci_address})" for status in self.gpus) or "none"
        raise NotFoundError(
            f"GPU {selector!r} is not on this node", code="unknown_gpu", hint=f"GPUs of this node: {names}"
        )

    def claim(self, name: str) -> Claim:
        """The claim of this name; raises NotFoundError."""
        for claim in self.claims:
            if claim.name == name:
                return claim
        raise NotFoundError(f"claim {name!r} does not exist", code="unknown_claim", hint="aimctl get claims lists them")

    def in_place(self, claim: Claim, assignment: Assignment) -> bool:
        """Whether the claim has the place by now, not only after the mode change that another of its replicas waits for."""
        if claim.state is not ClaimState.SWITCHING:
            return True
        change = self.change(claim.change) if claim.change is not None else None
        return change is not None and assignment.gpu not in dict(change.wishes)

    def change(self, name: str) -> ModeChange | None:
        """The mode change of this name, None if there is none (any more)."""
        return next((change for change in self.changes if change.name == name), None)
