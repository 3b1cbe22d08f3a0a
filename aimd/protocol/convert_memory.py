"""From the account of the node's memory to messages."""

from __future__ import annotations

import msgspec

from aimd.domain.accounting import MemoryFinding, PartitionAccount, ProbedGpu
from aimd.domain.node import NodeSnapshot
from aimd.protocol import memory as mem
from aimd.protocol.messages import PartitionMessage, ProbeMessage


def probe_message(probed: ProbedGpu | None) -> ProbeMessage | None:
    """How asking HIP for a GPU's memory ended; None where it was not asked."""
    if probed is None:
        return None
    report = probed.report
    return ProbeMessage(
        state=report.state.value,
        message=report.message,
        at=probed.at,
        library=report.library,
        runtime_version=report.runtime_version,
        seconds=round(report.seconds, 6),
    )


def finding_messages(snapshot: NodeSnapshot) -> list[mem.FindingMessage]:
    """All findings about memory, in the order of their age."""
    names = {status.gpu.pci_address: status.name for status in snapshot.gpus}
    return [_finding(found, names.get(found.gpu, found.gpu)) for found in snapshot.findings]


def _finding(found: MemoryFinding, gpu: str) -> mem.FindingMessage:
    return mem.FindingMessage(
        kind=found.kind.value,
        partition=f"{found.gpu}/{found.index}",
        partition_name=f"{gpu}/{found.index}",
        claim=found.claim,
        message=found.message,
        since=found.since,
        denied=found.denied,
    )


def detail_message(partition: PartitionMessage, snapshot: NodeSnapshot) -> mem.PartitionDetailMessage:
    """A partition with the account of its memory."""
    fields = msgspec.structs.asdict(partition)
    findings = [found for found in finding_messages(snapshot) if found.partition == partition.id]
    account = snapshot.memory.partitions.get((partition.pci_address, partition.index))
    if account is None:
        return mem.PartitionDetailMessage(**fields, memory_findings=findings)
    probed = account.probed
    return mem.PartitionDetailMessage(
        **fields,
        free_at=account.probed_at,
        free_used_bytes=probed.used_bytes if probed is not None else None,
        page_tables_bytes=probed.page_tables_bytes if probed is not None else None,
        pins_bytes=probed.pins_bytes if probed is not None else None,
        rounding_bytes=probed.rest_bytes if probed is not None else None,
        estimated_free_bytes=account.estimated_free_bytes,
        claims=_claims(account),
        processes=_processes(account),
        memory_findings=findings,
    )


def _claims(account: PartitionAccount) -> list[mem.ClaimUseMessage]:
    return [
        mem.ClaimUseMessage(claim=use.claim, reserved_bytes=use.reserved_bytes, used_bytes=use.used_bytes)
        for use in account.claims
    ]


def _processes(account: PartitionAccount) -> list[mem.ProcessUseMessage]:
    return [
        mem.ProcessUseMessage(
            pid=use.pid,
            start_time=use.start_time,
            command=use.command,
            used_bytes=use.used_bytes,
            claim=use.claim,
            replica=use.replica,
            pod=use.pod,
        )
        for use in account.processes
    ]
