"""What a configured layout makes of the GPUs' wishes, and what of a configuration cannot be carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from aimd.domain.claim import Assignment
from aimd.domain.gpu import Gpu, Observed
from aimd.domain.ledger import GpuRecord
from aimd.domain.modes import PartitionMode
from aimd.domain.plan import Desired, Reason
from aimd.planning.planner import plan
from aimd.planning.policy import Policy
from aimd.planning.view import contradictions, wished_by_layout

Layout = Mapping[str, PartitionMode]  # by `default`, `gpu<n>` or PCI address
TOLD_ELSEWHERE = frozenset({Reason.GPU_LOST, Reason.GPU_HIDDEN, Reason.GPU_GONE, Reason.MEMORY_MODE_PENDING})


def layout_records(
    layout: Layout, before: Layout, gpus: Iterable[Gpu], records: Mapping[str, GpuRecord]
) -> tuple[GpuRecord, ...]:
    """The records that a new layout changes: what it wishes, and no wish where only the layout before had one."""
    present = tuple(gpus)
    wishes, old = wished_by_layout(layout, present), wished_by_layout(before, present)
    changed = []
    for gpu in present:
        record = records.get(gpu.pci_address) or GpuRecord(gpu.pci_address)
        if gpu.pci_address in wishes:
            changed.append(replace(record, wish=wishes[gpu.pci_address]))
        elif gpu.pci_address in old and record.wish == old[gpu.pci_address]:
            changed.append(replace(record, wish=None))
    return tuple(changed)


def layout_problems(layout: Layout, policy: Policy, observed: Observed) -> list[str]:
    """GPUs that the layout names and the node has not, or names twice, and wishes that would be refused; a sentence each.

    Not of GPUs without partitions, and of hives whose memory mode waits for a driver load: these are told as such.
    """
    names = {"default"} | {f"gpu{index}" for index in range(len(observed.gpus))}
    names |= {gpu.pci_address for gpu in observed.gpus}
    found = [
        f"layout.{name} names no GPU of this node, it has gpu0 to gpu{len(observed.gpus) - 1}"
        for name in layout
        if name not in names
    ]
    found += [
        f"layout names one GPU twice, as {index} = {_said(layout[index])} and as {address} = {_said(layout[address])}: "
        "neither is carried out, give it one"
        for index, address in contradictions(layout, observed.gpus)
    ]
    wishes = wished_by_layout(layout, observed.gpus)
    planned = plan(Desired(wishes, policy.allow_memory_mode_change), observed)
    refused = [refusal for refusal in planned.refusals if refusal.reason not in TOLD_ELSEWHERE]
    return found + [f"layout: {refusal.message}; {refusal.hint}" for refusal in refused]


def slot_problems(policy: Policy, assignments: Iterable[Assignment]) -> list[str]:
    """Partitions whose guarantees are more than the slots they would have."""
    guaranteed: Counter[tuple[str, int]] = Counter()
    for assignment in assignments:
        guaranteed[assignment.place] += assignment.guarantee
    return [
        f"partition {gpu}/{index} has {slots} guaranteed slots, placement.slots_per_partition is "
        f"{policy.slots_per_partition}: its claims stay, new guarantees are refused there"
        for (gpu, index), slots in sorted(guaranteed.items())
        if slots > policy.slots_per_partition
    ]


def _said(mode: PartitionMode) -> str:
    """As the layout says it: without the part that it leaves open."""
    return "/".join(str(part) for part in (mode.compute, mode.memory) if part is not None)
