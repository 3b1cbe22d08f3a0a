"""What has to be true of claims in every snapshot, written down once more and not by the code that places them."""

from __future__ import annotations

from collections import defaultdict

from aimd.domain.claim import Assignment, Claim, ClaimSpec, ClaimState, PartitionRef
from aimd.domain.memory import reserved_bytes
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot


def spec(
    gb: float,
    mode: str | None = None,
    *,
    at: tuple[str | None, int] | None = None,
    preferred: tuple[str | None, int] | None = None,
    guarantee: int = 0,
    replicas: int = 1,
) -> ClaimSpec:
    """A claim of so many GB; places are (PCI address or None, index)."""
    return ClaimSpec(
        memory_units=round(gb * 1024),
        mode=PartitionMode.parse(mode) if mode else PartitionMode(),
        partition=PartitionRef(at[1], at[0]) if at else None,
        preferred=PartitionRef(preferred[1], preferred[0]) if preferred else None,
        guarantee=guarantee,
        replicas=replicas,
    )


def places(claim: Claim) -> list[tuple[str, int]]:
    return [assignment.place for assignment in claim.assignments]


def broken_promises(snapshot: NodeSnapshot, slots: int = 16) -> list[str]:
    """Over-committed partitions, and places of claims that are not there; nothing in a good snapshot.

    As long as the node could not be scanned, nothing is known of places.
    """
    found: list[str] = []
    if not snapshot.ready:
        return found
    there: dict[tuple[str, int], list[Assignment]] = defaultdict(list)
    epochs = {status.gpu.pci_address: status.mode_epoch for status in snapshot.gpus}
    sizes = {
        (status.gpu.pci_address, partition.index): partition.memory_bytes
        for status in snapshot.gpus
        for partition in status.gpu.partitions
    }
    modes = {status.gpu.pci_address: status.gpu.mode for status in snapshot.gpus}
    for claim in snapshot.claims:
        replicas = [assignment.replica for assignment in claim.assignments]
        if len(set(replicas)) != len(replicas) or not set(replicas) <= set(claim.numbers):
            found.append(f"{claim.name} has replicas {replicas} of {claim.numbers}")
        switching_for_some = claim.state is ClaimState.SWITCHING and claim.pods
        if claim.state is not ClaimState.PENDING and claim.missing and not switching_for_some:
            found.append(f"{claim.name} is {claim.state} and lacks {claim.missing}")
        if (claim.state is ClaimState.SWITCHING) != (claim.change is not None):
            found.append(f"{claim.name} is {claim.state} with change {claim.change}")
        if (claim.state is ClaimState.PENDING) != bool(claim.reason and claim.message):
            found.append(f"{claim.name} is {claim.state} with reason {claim.reason}: {claim.message}")
        for assignment in claim.assignments:
            known = assignment.place in sizes and epochs[assignment.gpu] == assignment.mode_epoch
            if claim.state is ClaimState.SWITCHING and (_to_come(claim, assignment, snapshot) or not known):
                continue  # what it has lost meanwhile is told when its mode change has ended
            there[assignment.place].append(assignment)
            found += _misplaced(claim, assignment, sizes, epochs, modes)
    for place, assignments in there.items():
        size = sizes.get(place)
        if size is not None and sum(reserved_bytes(a.memory_units, size) for a in assignments) > size:
            found.append(f"{place} of {size} bytes is over-committed by {[a.name for a in assignments]}")
        if size is not None and sum(a.memory_units for a in assignments) > -(-size // (1 << 30)) * 1024:
            found.append(f"{place} is nominally over-committed by {[a.name for a in assignments]}")
        if sum(a.guarantee for a in assignments) > slots:
            found.append(f"{place} guarantees more than {slots} slots: {[a.name for a in assignments]}")
    return found


def _to_come(claim: Claim, assignment: Assignment, snapshot: NodeSnapshot) -> bool:
    """Whether the partition will be there after the mode change that the claim waits for."""
    change = snapshot.change(claim.change) if claim.change is not None else None
    return change is not None and assignment.gpu in dict(change.wishes)


def _misplaced(
    claim: Claim,
    assignment: Assignment,
    sizes: dict[tuple[str, int], int | None],
    epochs: dict[str, int],
    modes: dict[str, PartitionMode],
) -> list[str]:
    if assignment.place not in sizes:
        return [f"{assignment.name} is on {assignment.place}, which is not there"]
    if epochs[assignment.gpu] != assignment.mode_epoch:
        return [
            f"{assignment.name} has epoch {assignment.mode_epoch} of {assignment.gpu}, now {epochs[assignment.gpu]}"
        ]
    asks = next((one.asks for one in claim.pods if one.replica == assignment.replica), claim.spec)
    wish, pinned, mode = asks.mode, asks.partition, modes[assignment.gpu]
    found = []
    # A mode that cannot be read (a GPU in reset) contradicts no wish.
    pairs = ((wish.compute, mode.compute), (wish.memory, mode.memory))
    if any(wanted not in (None, there) and there is not None for wanted, there in pairs):
        found.append(f"{assignment.name} wants {wish} and is on {assignment.gpu} in {mode}")
    if pinned is not None and (pinned.index != assignment.index or pinned.gpu not in (None, assignment.gpu)):
        found.append(f"{assignment.name} is pinned to {pinned} and is on {assignment.place}")
    if not claim.pods and (assignment.memory_units, assignment.guarantee) != (
        claim.spec.memory_units,
        claim.spec.guarantee,
    ):
        found.append(f"{assignment.name} reserves something else than {claim.spec}")
    return found
