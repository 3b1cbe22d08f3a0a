"""The status of the node's NodePartitions: the record of the node that a cluster reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aimd.domain.claim import Assignment, Claim
from aimd.domain.gpu import GpuState, Partition
from aimd.domain.memory import GIB, UNITS_PER_GB, nominal_gb
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.domain.partition import PartitionKey
from aimd.domain.plan import Reason
from aimd.domain.reserved import reserved_on
from aimd.domain.switch import ModeChange, SwitchState

Object = Mapping[str, Any]
WAITING = (SwitchState.DRAINING, SwitchState.WAITING)
SOON_OTHERWISE = "usedGB"  # moves all the time: it alone is no reason to write
MOST_ENTRIES = 256  # of a list, by the CRD: with more of them the API server would take nothing of the record


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition without its times."""

    kind: str
    true: bool
    reason: str
    message: str


def node_status(
    snapshot: NodeSnapshot,
    current: Object,
    *,
    generation: int | None,
    about: Mapping[str, str],
    rivals: Sequence[str],
    refused: str | None,
    now: str,
) -> dict[str, Any]:
    """The whole status.

    Args:
        current: the status as it is there now, for the times of its conditions.
        generation: of the object whose spec is in force.
        about: further fields of the daemon: aimdVersion, bootID.
        rivals: other managers of partitions that were found on the node, a sentence each.
        refused: why the object's spec cannot be carried out, a sentence.
        now: RFC 3339, for conditions that flip.
    """
    reserved = reserved_on(snapshot)
    gpus = [_gpu(status, snapshot, reserved) for status in snapshot.gpus]
    partitions = [part for gpu in gpus for part in gpu["partitions"]]
    modes = Counter(gpu["mode"] for gpu in gpus)
    before = {each["type"]: each for each in current.get("conditions") or [] if "type" in each}
    status = {
        **about,
        "observedGeneration": generation,
        "gpuCount": len(gpus),
        "partitionCount": len(partitions),
        "modes": " ".join(f"{count}x{mode}" for mode, count in sorted(modes.items())),
        "memoryGB": sum(part.get("memoryGB", 0) for part in partitions),
        "reservedGB": _whole(sum(part["reservedGB"] for part in partitions)),
        "gpus": gpus,
        "blockers": _blockers(snapshot),
        "conditions": [
            _condition(verdict, before.get(verdict.kind, {}), generation, now)
            for verdict in verdicts(snapshot, rivals, refused)
        ],
    }
    return {key: value for key, value in status.items() if value is not None}


# What each condition is when all is well.
_WELL = {
    "PartitioningReady": "True",
    "Repartitioning": "False",
    "ConflictingManager": "False",
    "HardwareHealthy": "True",
}


def flips(before: Object, after: Object) -> list[tuple[str, str, bool]]:
    """Reason, message and whether it is trouble, of the conditions that are otherwise now: worth an Event."""
    known = {each.get("type"): (each.get("status"), each.get("reason")) for each in before.get("conditions") or []}
    return [
        (each["reason"], each["message"], each["status"] != _WELL[each["type"]] and each["type"] != "Repartitioning")
        for each in after["conditions"]
        if known.get(each["type"], (_WELL[each["type"]], None))[0] != each["status"]
        or (each["status"] != _WELL[each["type"]] and known[each["type"]][1] != each["reason"])
    ]


def same(status: Object, other: Object) -> bool:
    """Whether two statuses say the same, but for what moves all the time."""
    return bool(_steady(status) == _steady(other))


def verdicts(snapshot: NodeSnapshot, rivals: Sequence[str], refused: str | None) -> tuple[Verdict, ...]:
    """What the conditions say of the node."""
    return (_ready(snapshot, rivals, refused), _repartitioning(snapshot.changes), _rivalled(rivals), _healthy(snapshot))


def _ready(snapshot: NodeSnapshot, rivals: Sequence[str], refused: str | None) -> Verdict:
    kind = "PartitioningReady"
    if not snapshot.ready:
        words = "; ".join(snapshot.warnings) or "the node was not looked at yet"
        return Verdict(kind, False, "NotReady", words)
    if rivals:
        return Verdict(kind, False, "ConflictingManager", "modes are not changed: " + "; ".join(rivals))
    if refused is not None:
        return Verdict(kind, False, "SpecRefused", refused)
    pending = [status for status in snapshot.gpus if status.pending_memory is not None]
    if pending:
        first = pending[0]
        words = f"{first.name} gets memory mode {first.pending_memory} when the driver is loaded again"
        return Verdict(kind, False, "MemoryModePending", words)
    drifting = [f"{status.name}: {words}" for status in snapshot.gpus for words in status.drift]
    if drifting:
        return Verdict(kind, False, "Drift", "; ".join(drifting))
    return Verdict(kind, True, "Ready", f"{len(snapshot.gpus)} GPUs are in the modes that they are to be in")


def _repartitioning(changes: Iterable[ModeChange]) -> Verdict:
    kind = "Repartitioning"
    change = next((change for change in changes if change.current is not None), None)
    if change is None:
        return Verdict(kind, False, "Idle", "no mode change is under way")
    switch = change.switches[change.current or 0]
    what = f"{', '.join(switch.step.gpus)} {switch.step.before} -> {switch.step.after}"
    words = f"{change.name}: {what}" + (f": {switch.message}" if switch.message else "")
    return Verdict(kind, True, _camel(switch.state.value), words)


def _rivalled(rivals: Sequence[str]) -> Verdict:
    kind = "ConflictingManager"
    if rivals:
        return Verdict(kind, True, "Found", "; ".join(rivals))
    return Verdict(kind, False, "None", "no other manager of partitions was found on the node")


def _healthy(snapshot: NodeSnapshot) -> Verdict:
    kind = "HardwareHealthy"
    ill = [f"{s.name} is {s.gpu.state}" for s in snapshot.gpus if s.gpu.state is not GpuState.READY]
    ill += [f"{s.name} is in reset" for s in snapshot.gpus if s.gpu.in_reset]
    if ill:
        return Verdict(kind, False, "GpuNotReady", "; ".join(ill))
    return Verdict(kind, True, "Healthy", f"all {len(snapshot.gpus)} GPUs have their partitions")


def _condition(verdict: Verdict, before: Object, generation: int | None, now: str) -> dict[str, Any]:
    status = "True" if verdict.true else "False"
    kept = before.get("lastTransitionTime") if before.get("status") == status else None
    condition = {
        "type": verdict.kind,
        "status": status,
        "reason": verdict.reason,
        "message": verdict.message,
        "lastTransitionTime": kept or now,
    }
    return condition if generation is None else {**condition, "observedGeneration": generation}


def _gpu(status: GpuStatus, snapshot: NodeSnapshot, reserved: Mapping[PartitionKey, int]) -> dict[str, Any]:
    gpu = status.gpu
    said = {
        "name": status.name,
        "pciAddress": gpu.pci_address,
        "model": gpu.model.name if gpu.model is not None else None,
        "mode": str(gpu.mode),
        "wish": str(status.wish) if status.wish is not None else None,
        "pendingMemoryMode": str(status.pending_memory) if status.pending_memory is not None else None,
        "draining": status.draining or None,
        "partitions": [_partition(status, part, snapshot, reserved) for part in gpu.partitions],
    }
    return {key: value for key, value in said.items() if value is not None}


def _partition(
    status: GpuStatus, partition: Partition, snapshot: NodeSnapshot, reserved: Mapping[PartitionKey, int]
) -> dict[str, Any]:
    key = PartitionKey(status.gpu.pci_address, partition.index, status.mode_epoch)
    here = [(claim, one) for claim in snapshot.claims for one in claim.assignments if one.key == key]
    used = next(
        (a.used_bytes for a in snapshot.memory.partitions.values() if (a.gpu, a.index) == (key.gpu, key.index)), None
    )
    said = {
        "index": partition.index,
        "memoryGB": nominal_gb(partition.memory_bytes) if partition.memory_bytes is not None else None,
        "reservedGB": _whole(reserved[key] / UNITS_PER_GB),
        "usedGB": _whole(round(used / GIB, 1)) if used is not None else None,
        "renderMinor": partition.render_minor,
        "assignments": [_assignment(claim, one) for claim, one in here[:MOST_ENTRIES]],
    }
    return {key: value for key, value in said.items() if value is not None}


def _assignment(claim: Claim, one: Assignment) -> dict[str, Any]:
    pod = next((each.pod for each in claim.pods if each.replica == one.replica), None)
    said = {
        "model": claim.name,
        "claim": one.name,
        "memoryGB": _whole(one.memory_units / UNITS_PER_GB),
        "guarantee": one.guarantee,
    }
    return said if pod is None else {**said, "pod": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid}}


def _blockers(snapshot: NodeSnapshot) -> list[dict[str, Any]]:
    """Who holds the GPUs whose switch waits for them, or was not begun or given up because of them."""
    waiting = [
        gpu
        for change in snapshot.changes
        if change.current is not None and change.state in WAITING
        for gpu in change.switches[change.current].step.gpus
    ]
    busy = _given_up(snapshot)
    resting = [each for each in snapshot.gpus if each.change is None]
    waiting += [each.gpu.pci_address for each in resting if _otherwise(each) or each.gpu.pci_address in busy]
    claims = {(holder.pid, holder.start_time): holder.claim for holder in snapshot.claim_holders}
    found = []
    for gpu in waiting:
        for holder in snapshot.holders:
            if gpu in holder.gpus:
                claim = claims.get((holder.pid, holder.start_time or 0)) or claims.get(holder.owner or (0, 0))
                said = {"gpu": gpu, "pid": holder.pid, "command": holder.command, "claim": claim, "pod": holder.pod}
                found.append({key: value for key, value in said.items() if value})
    return found[:MOST_ENTRIES]


def _given_up(snapshot: NodeSnapshot) -> set[str]:
    """GPUs whose last switch was given up since somebody held them."""
    last = {
        gpu: switch
        for change in sorted(snapshot.changes, key=lambda change: change.created_at)
        for switch in change.switches
        for gpu in switch.step.gpus
    }
    return {gpu for gpu, switch in last.items() if switch.reason is Reason.GPU_BUSY}


def _otherwise(status: GpuStatus) -> bool:
    """Whether the GPU is to be in another compute mode than it is."""
    wish = status.wish.compute if status.wish is not None else None
    return wish not in (None, status.gpu.compute_mode)


def _steady(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _steady(each) for key, each in value.items() if key != SOON_OTHERWISE}
    return [_steady(each) for each in value] if isinstance(value, list) else value


def _camel(words: str) -> str:
    return "".join(word.title() for word in words.split("_"))


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number
