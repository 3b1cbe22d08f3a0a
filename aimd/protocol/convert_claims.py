"""From claims and assignments to messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aimd.domain.claim import Assignment, Claim
from aimd.domain.gpu import Partition
from aimd.domain.ledger import HolderRecord
from aimd.domain.memory import UNITS_PER_GB, reserved_bytes
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.domain.ranges import ranges
from aimd.errors import ConflictError, NotFoundError
from aimd.protocol import claims as msg
from aimd.protocol.messages import HolderMessage

Member = tuple[int, "str | None"]  # pid and command line


def holders_of(claim: str, snapshot: NodeSnapshot) -> list[HolderRecord]:
    """Holders of the claim, orphans among them."""
    return [holder for holder in snapshot.claim_holders if holder.claim == claim and holder.released_at is None]


def claim_message(
    claim: Claim, snapshot: NodeSnapshot, members: Mapping[HolderRecord, Iterable[Member]] | None = None
) -> msg.ClaimMessage:
    """A claim with its places and its holders; with all living processes of those whose `members` are given."""
    spec, slo = claim.spec, claim.spec.slo
    return msg.ClaimMessage(
        name=claim.name,
        state=claim.state.value,
        owner_uid=claim.owner_uid,
        memory_gb=spec.memory_units / UNITS_PER_GB,
        qos=spec.qos.value,
        compute_mode=spec.mode.compute.value if spec.mode.compute is not None else None,
        memory_mode=spec.mode.memory.value if spec.mode.memory is not None else None,
        partition=str(spec.partition) if spec.partition is not None else None,
        preferred=str(spec.preferred) if spec.preferred is not None else None,
        guarantee=spec.guarantee,
        limit=spec.limit,
        weight=spec.weight,
        replicas=spec.replicas,
        slo=msg.SloMessage(
            latency_seconds=slo.latency_seconds, objective=slo.objective, throughput_floor=slo.throughput_floor
        ),
        assignments=[assignment_message(assignment, snapshot, claim) for assignment in claim.assignments],
        change=claim.change,
        reason=claim.reason.value if claim.reason is not None else None,
        message=claim.message,
        created_at=claim.created_at,
        holders=[
            message
            for holder in holders_of(claim.name, snapshot)
            for message in _processes(holder, (members or {}).get(holder))
        ],
        pods=[
            msg.PodMessage(namespace=one.pod.namespace, name=one.pod.name, uid=one.pod.uid, replica=one.replica)
            for one in claim.pods
        ],
    )


def _processes(holder: HolderRecord, members: Iterable[Member] | None) -> list[HolderMessage]:
    if members is None:
        return [HolderMessage(pid=p.pid, command=p.command, ended_at=holder.ended_at) for p in holder.living]
    return [HolderMessage(pid=pid, command=command) for pid, command in members]


def assignment_message(assignment: Assignment, snapshot: NodeSnapshot, claim: Claim) -> msg.AssignmentMessage:
    """A replica's place; what the partition tells is unknown until its mode change has ended."""
    pod = next((one.pod for one in claim.pods if one.replica == assignment.replica), None)
    status, partition = place_of(assignment, snapshot)
    size = partition.memory_bytes if partition is not None else None
    return msg.AssignmentMessage(
        name=assignment.name,
        claim=assignment.claim,
        replica=assignment.replica,
        partition=f"{assignment.gpu}/{assignment.index}",
        partition_name=f"{status.name}/{assignment.index}" if status is not None else f"?/{assignment.index}",
        pci_address=assignment.gpu,
        index=assignment.index,
        memory_gb=assignment.memory_units / UNITS_PER_GB,
        memory_bytes=reserved_bytes(assignment.memory_units, size) if size is not None else None,
        guarantee=assignment.guarantee,
        render_minor=partition.render_minor if partition is not None else None,
        pod=str(pod) if pod is not None else None,
    )


def environment_message(
    name: str, replica: int, snapshot: NodeSnapshot, sysfs_root: str | None, holder: HolderRecord | None = None
) -> msg.EnvironmentMessage:
    """What a process on this replica of a claim needs to know.

    Raises:
        NotFoundError: there is no such claim, or it has no such replica.
        ConflictError: the replica has no partition now.
    """
    claim = snapshot.claim(name)
    if replica not in claim.numbers:
        raise NotFoundError(
            f"claim {claim.name} has no replica {replica}, it has {ranges(claim.numbers)}",
            code="unknown_replica",
        )
    assignment = next((a for a in claim.assignments if a.replica == replica), None)
    _, partition = place_of(assignment, snapshot) if assignment is not None else (None, None)
    if assignment is None or partition is None or partition.memory_bytes is None:
        raise ConflictError(
            f"claim {claim.name} has no partition for replica {replica} now: {claim.waits_for}",
            code="not_placed",
            hint=f"aimctl describe claim {claim.name} tells what it waits for",
        )
    order = _kfd_order(snapshot)
    return msg.EnvironmentMessage(
        claim=claim.name,
        replica=replica,
        partition=f"{assignment.gpu}/{assignment.index}",
        memory_limit_bytes=reserved_bytes(assignment.memory_units, partition.memory_bytes),
        kfd_order=[name for name, _ in order],
        sysfs_root=sysfs_root,
        holder=f"{holder.pid}:{holder.start_time}" if holder is not None else None,
        render_minors=[minor for _, minor in order],
        pod=next((str(one.pod) for one in claim.pods if one.replica == replica), None),
    )


def place_of(assignment: Assignment, snapshot: NodeSnapshot) -> tuple[GpuStatus | None, Partition | None]:
    """Its GPU and its partition, None for what is not there, or is another one since a mode switch."""
    status = next((status for status in snapshot.gpus if status.gpu.pci_address == assignment.gpu), None)
    if status is None or status.mode_epoch != assignment.mode_epoch:
        return status, None
    return status, next((part for part in status.gpu.partitions if part.index == assignment.index), None)


def _kfd_order(snapshot: NodeSnapshot) -> list[tuple[str, int | None]]:
    """Partitions with the minors of their render nodes."""
    numbered = [
        (
            partition.kfd_node if partition.kfd_node is not None else 0,
            f"{status.gpu.pci_address}/{partition.index}",
            partition.render_minor,
        )
        for status in snapshot.gpus
        for partition in status.gpu.partitions
    ]
    return [(name, minor) for _, name, minor in sorted(numbered, key=lambda each: each[:2])]
