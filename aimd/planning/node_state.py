"""What the daemon knows of its node: observation, what is shown of it, records, changes, and the snapshot of all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from aimd.domain.accounting import MemoryBoard
from aimd.domain.claim import Claim
from aimd.domain.event import NodeEvent
from aimd.domain.gpu import BusyRule, Gpu, GpuState, Observed
from aimd.domain.ledger import KEPT_CHANGES, GpuRecord, HolderRecord, LedgerWrite
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.switch import ModeChange
from aimd.errors import UnreachableError
from aimd.planning.observation import carried_over, driver_was_loaded, loaded_since
from aimd.planning.view import gpu_statuses, pending_memory


class NodeState:
    """Knowledge that the decisions of the control loop share.

    Attributes:
        records: what the ledger keeps of each GPU, by PCI address.
        changes: mode changes by name, oldest first.
        reload_seen: the driver was loaded since this was last looked at.
        driver_gone: it is not loaded now.
        readable: the last look at the node, or at its processes, has brought something.
        announced: GPUs that were bound to the driver, of which no observation was taken since.
        warnings: what the last look at the node could not make out.
        complaints: what of the configuration cannot be carried out.
    """

    def __init__(self, first_generation: int) -> None:
        self.records: dict[str, GpuRecord] = {}
        self.changes: dict[str, ModeChange] = {}
        self.reload_seen = False
        self.driver_gone = False
        self.readable = False
        self.announced: set[str] = set()
        self._arrived: set[str] = set()
        self.snapshot = NodeSnapshot(generation=first_generation)
        self.warnings: tuple[str, ...] = ()
        self.complaints: tuple[str, ...] = ()
        self._observed: Observed | None = None
        self._shown: dict[str, Gpu] = {}

    # -- observation -----------------------------------------------------------------------------------------

    @property
    def scanned(self) -> bool:
        return self._observed is not None

    @property
    def observed(self) -> Observed:
        """The last observation; raises UnreachableError before the first."""
        if self._observed is None:
            raise UnreachableError(
                "the node was not scanned yet", hint="try again in a moment; aimctl get node says why"
            )
        return self._observed

    @property
    def planning_view(self) -> Observed:
        """The observation with the memory modes that are requested."""
        return replace(self.observed, pending_memory=pending_memory(self.changes.values()))

    def take(self, observed: Observed) -> None:
        """Keep a new observation, with what is known besides it."""
        before = self._observed
        loaded = driver_was_loaded(observed, before) if before else loaded_since(observed, self.changes.values())
        self.reload_seen = self.reload_seen or loaded
        self.driver_gone = False
        self._arrived |= self.announced
        self.announced.clear()
        self._observed = carried_over(observed, self._observed, self._shown.values())
        self.warnings = observed.warnings
        self.readable = True

    def miss(self, failure: str, *, gone: bool) -> None:
        """A look has brought nothing; `gone` tells that the driver is not loaded."""
        self.warnings = (failure,)
        self.readable = False
        if gone:
            self.lose_driver()

    def amend(self, observed: Observed) -> None:
        """Replace the observation by itself with something learned."""
        self._observed = observed

    def expect(self, addresses: Iterable[str]) -> None:
        """GPUs that were there before: until they are observed they are lost, and keep their number."""
        self._shown.update({address: Gpu(address, None, (), absence=GpuState.GONE) for address in addresses})

    def lose_driver(self) -> None:
        """No driver, no partitions; when it is there again it has been loaded anew."""
        self.reload_seen = self.driver_gone = True
        if self._observed is not None:
            gpus = tuple(
                replace(gpu, partitions=(), reported_compute=None, absence=GpuState.LOST) for gpu in self._observed.gpus
            )
            self._observed = replace(self._observed, gpus=gpus, holders=(), topology_generation=None)
            self._shown = {gpu.pci_address: gpu for gpu in gpus}

    def arrivals(self) -> set[str]:
        """GPUs that have come, or come back, since this was last asked: their driver chose the mode anew."""
        arrived, self._arrived = self._arrived, set()
        return arrived

    def record(self, address: str) -> GpuRecord:
        return self.records.get(address) or GpuRecord(address)

    def adopt(self, hidden: frozenset[str], wall: float) -> LedgerWrite:
        """Show what was observed, but for hidden GPUs; count an epoch where a mode has changed. Gives what to keep.

        A part of the mode that cannot be read (during a reset) has not changed.
        """
        changed, events = [], []
        for gpu in self.observed.gpus:
            if gpu.pci_address in hidden:
                continue
            shown = self._shown.get(gpu.pci_address)
            if gpu.partitions and (shown is None or not shown.partitions):
                self._arrived.add(gpu.pci_address)
            self._shown[gpu.pci_address] = gpu
            record = self.record(gpu.pci_address)
            before = record.mode or PartitionMode()
            now = PartitionMode(gpu.compute_mode or before.compute, gpu.memory_mode or before.memory)
            if not gpu.partitions or now == record.mode:
                continue
            is_other = record.mode is None or before.compute not in (None, now.compute)
            is_other = is_other or before.memory not in (None, now.memory)
            changed.append(replace(record, mode=now, mode_epoch=record.mode_epoch + is_other))
            if is_other and record.mode is not None:
                words = f"GPU {gpu.pci_address} went from {record.mode} to {now}"
                events.append(NodeEvent("mode_changed", gpu.pci_address, words, wall))
        self.records.update({record.address: record for record in changed})
        return LedgerWrite(gpus=tuple(changed), events=tuple(events))

    # -- changes ---------------------------------------------------------------------------------------------

    def keep(self, change: ModeChange) -> None:
        """Remember the change; of ended ones the last KEPT_CHANGES."""
        self.changes[change.name] = change
        ended = [name for name, kept in self.changes.items() if kept.current is None]
        for name in ended[: max(0, len(ended) - KEPT_CHANGES)]:
            del self.changes[name]

    # -- snapshot --------------------------------------------------------------------------------------------

    def refresh(
        self,
        active: ModeChange | None,
        claims: tuple[Claim, ...],
        holders: tuple[HolderRecord, ...],
        memory: MemoryBoard,
    ) -> NodeSnapshot | None:
        """The new snapshot, None if nothing in it has changed."""
        observed = self._observed
        snapshot = NodeSnapshot(
            generation=self.snapshot.generation,
            gpus=gpu_statuses(
                [self._shown[address] for address in sorted(self._shown)],
                self.records,
                pending_memory(self.changes.values()),
                active,
                frozenset(assignment.gpu for claim in claims for assignment in claim.assignments),
            ),
            holders=tuple(replace(h, vram=(), unread=(), owner=None) for h in observed.holders) if observed else (),
            changes=tuple(self.changes.values()),
            claims=claims,
            claim_holders=holders,
            busy_rule=observed.busy_rule if observed is not None else BusyRule.UNKNOWN,
            ready=observed is not None,
            topology_generation=observed.topology_generation if observed is not None else None,
            warnings=(*self.warnings, *self.complaints),
            complaints=self.complaints,
            findings=memory.findings,
            memory=memory,
        )
        if snapshot == self.snapshot and memory is self.snapshot.memory:
            return None
        told = snapshot != self.snapshot
        self.snapshot = replace(snapshot, generation=self.snapshot.generation + told)
        return self.snapshot
