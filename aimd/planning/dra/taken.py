"""What of the node's partitions is taken: by claims that the scheduler knows of, and by others.

Others are claims of the node's own users, pods that only have annotations, and processes without a claim (any more).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aimd.domain.claim import Assignment, Claim, ClaimState
from aimd.domain.gpu import BusyRule, Holder
from aimd.domain.left_behind import left_behind
from aimd.domain.modes import ComputeMode
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.planning.dra.divisions import present_mode

Spot = tuple[str, ComputeMode, int]  # PCI address, mode, index


@dataclass(frozen=True, slots=True)
class Share:
    """Units of 1/1024 GB, and dispatch slots."""

    units: int = 0
    slots: int = 0

    def plus(self, one: Assignment) -> Share:
        return Share(self.units + one.memory_units, self.slots + one.guarantee)


NOTHING = Share()


@dataclass(frozen=True, slots=True)
class Taken:
    """Attributes:
    outside: what others have reserved, which the scheduler does not know.
    allocated: what claims of the scheduler have.
    busy: GPUs (PCI addresses) that cannot change their mode for what is on them, beside what the scheduler knows.
    """

    outside: dict[Spot, Share]
    allocated: dict[Spot, Share]
    busy: frozenset[str]


def target_mode(status: GpuStatus, snapshot: NodeSnapshot) -> ComputeMode | None:
    """The compute mode that the change under way on a GPU will leave it in; None if it has none or knows none."""
    change = snapshot.change(status.change) if status.change is not None else None
    steps = [switch.step for switch in change.switches] if change is not None else []
    own = [step.after.compute for step in steps if status.gpu.pci_address in step.gpus]
    return own[-1] if own else None


def taken(snapshot: NodeSnapshot) -> Taken:
    """Who has what. What waits for a mode is reserved in that mode."""
    outside: dict[Spot, Share] = {}
    allocated: dict[Spot, Share] = {}
    busy = set(_held(snapshot))
    for claim, one, is_device in _assignments(snapshot):
        if not is_device:
            busy.add(one.gpu)
        spot = _spot(one, claim, snapshot)
        if spot is not None:
            where = allocated if is_device else outside
            where[spot] = where.get(spot, NOTHING).plus(one)
    return Taken(outside, allocated, frozenset(busy))


def _assignments(snapshot: NodeSnapshot) -> Iterator[tuple[Claim | None, Assignment, bool]]:
    """Everything that is reserved: its claim, and whether the scheduler has allocated it."""
    everything = []
    for claim in snapshot.claims:
        devices = {replica.replica for replica in claim.pods if replica.device is not None}
        for one in claim.assignments:
            everything.append(one)
            yield claim, one, one.replica in devices
    epochs = {status.gpu.pci_address: status.mode_epoch for status in snapshot.gpus}
    for left in left_behind(snapshot.claim_holders, everything, epochs):
        yield None, left.kept, False


def _spot(one: Assignment, claim: Claim | None, snapshot: NodeSnapshot) -> Spot | None:
    """Where it is, None for a place that is not there any more (or not known)."""
    status = next((each for each in snapshot.gpus if each.gpu.pci_address == one.gpu), None)
    if status is None:
        return None
    mode = None
    if claim is not None and claim.state is ClaimState.SWITCHING:
        mode = target_mode(status, snapshot)
    if mode is None and one.mode_epoch == status.mode_epoch:
        mode = present_mode(status.gpu)
    return (one.gpu, mode, one.index) if mode is not None else None


def _held(snapshot: NodeSnapshot) -> Iterator[str]:
    """GPUs whose driver refuses a switch for processes of which the scheduler does not know."""
    if snapshot.busy_rule is BusyRule.NODE_WIDE and snapshot.holders:
        yield from (status.gpu.pci_address for status in snapshot.gpus)
    pods, processes = _of_devices(snapshot)
    for holder in snapshot.holders:
        if not _known(holder, pods, processes):
            yield from holder.gpus


def _of_devices(snapshot: NodeSnapshot) -> tuple[set[str], set[tuple[int, int]]]:
    """The pods (UIDs) and processes (pid and start time) whose device the scheduler has allocated."""
    pods: set[str] = set()
    replicas = set()
    for claim in snapshot.claims:
        for replica in claim.pods:
            if replica.device is not None:
                pods |= {replica.pod.uid, *replica.device.also}
                replicas.add((claim.name, replica.replica))
    joined = {(r.pid, r.start_time) for r in snapshot.claim_holders if (r.claim, r.replica) in replicas}
    return pods, joined


def _known(holder: Holder, pods: set[str], processes: set[tuple[int, int]]) -> bool:
    itself = (holder.pid, holder.start_time)
    return holder.pod in pods or itself in processes or holder.owner in processes
