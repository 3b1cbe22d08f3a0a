"""From values of the domain to messages, one function per kind."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from aimd.domain.accounting import PartitionAccount
from aimd.domain.event import NodeEvent
from aimd.domain.gpu import BusyRule
from aimd.domain.ledger import holders_on
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.domain.plan import Blocker, Plan, Refusal, Step
from aimd.domain.switch import ModeChange, Switch, SwitchState
from aimd.protocol import messages as msg
from aimd.protocol.convert_left import left_behind_messages
from aimd.protocol.convert_memory import probe_message


def gpu_messages(snapshot: NodeSnapshot, *, with_epoch: bool = True) -> list[msg.GpuMessage]:
    """All GPUs of the node with their partitions, those of the holders that hold them, what is kept there for processes
    without claim, and how asking HIP has ended. Without a daemon there is no epoch.
    """
    left = left_behind_messages(snapshot)
    found = []
    for status in snapshot.gpus:
        address = status.gpu.pci_address
        message = _gpu_message(status, partition_messages(status, snapshot, with_epoch=with_epoch))
        held = [msg.HolderMessage(pid=h.pid, command=h.command) for h in snapshot.holders if address in h.gpus]
        probe = probe_message(snapshot.memory.gpus.get(address))
        epoch = status.mode_epoch if with_epoch else None
        kept = list(left.get(address, ()))
        found.append(msgspec.structs.replace(message, holders=held, left_behind=kept, probe=probe, mode_epoch=epoch))
    return found


def _gpu_message(status: GpuStatus, partitions: list[msg.PartitionMessage]) -> msg.GpuMessage:
    gpu = status.gpu
    model = gpu.model
    return msg.GpuMessage(
        name=status.name,
        pci_address=gpu.pci_address,
        model=model.name if model is not None else None,
        device_id=f"0x{gpu.device_id:04x}" if gpu.device_id is not None else None,
        state=gpu.state.value,
        compute_mode=_word(gpu.compute_mode),
        memory_mode=_word(gpu.memory_mode),
        reported_compute_mode=_word(gpu.reported_compute),
        available_compute_modes=_words(gpu.compute_modes),
        available_memory_modes=_words(gpu.memory_modes),
        memory_mode_writable=gpu.memory_mode_writable,
        memory_bytes=gpu.total_memory_bytes,
        numa_node=gpu.numa_node,
        hive_id=f"{gpu.hive_id:016x}" if gpu.hive_id else None,
        partitions=partitions,
        wish=_wish(str(status.wish)) if status.wish is not None else None,
        drift=list(status.drift),
        pending_memory_mode=_word(status.pending_memory),
        change=status.change,
        draining=status.draining,
    )


def partition_messages(
    status: GpuStatus, snapshot: NodeSnapshot, *, with_epoch: bool = True
) -> list[msg.PartitionMessage]:
    """The partitions of a GPU, in the order of their index."""
    gpu = status.gpu
    accounts = snapshot.memory.partitions
    unknown = PartitionAccount(gpu.pci_address, 0, 0, None, None, None, None)
    findings: dict[int, list[str]] = {}
    for found in snapshot.findings:
        if found.gpu == gpu.pci_address:
            findings.setdefault(found.index, []).append(found.kind.value)
    return [
        msg.PartitionMessage(
            id=f"{gpu.pci_address}/{partition.index}",
            name=f"{status.name}/{partition.index}",
            gpu=status.name,
            pci_address=gpu.pci_address,
            index=partition.index,
            compute_mode=_word(gpu.compute_mode),
            memory_mode=_word(gpu.memory_mode),
            xcc_count=partition.xcc_count,
            compute_units=partition.compute_units,
            memory_bytes=partition.memory_bytes,
            render_minor=partition.render_minor,
            mode_epoch=status.mode_epoch if with_epoch else None,
            reserved_bytes=account.reserved_bytes,
            used_bytes=account.used_bytes,
            unattributed_bytes=account.unattributed_bytes,
            free_bytes=account.free_bytes,
            findings=sorted(set(findings.get(partition.index, ()))),
        )
        for partition in gpu.partitions
        for account in (accounts.get((gpu.pci_address, partition.index), unknown),)
    ]


def inventory_message(snapshot: NodeSnapshot, *, with_epoch: bool = True) -> msg.InventoryMessage:
    """All GPUs of the node."""
    return msg.InventoryMessage(
        gpus=gpu_messages(snapshot, with_epoch=with_epoch),
        topology_generation=snapshot.topology_generation,
        warnings=list(snapshot.warnings),
        generation=snapshot.generation if with_epoch else None,
    )


def plan_message(plan: Plan) -> msg.PlanMessage:
    """What a change would do."""
    return msg.PlanMessage(
        steps=[_step(step) for step in plan.steps],
        refusals=refusal_messages(plan.refusals),
        blockers=blocker_messages(plan.blockers),
        warnings=list(plan.warnings),
    )


def change_message(change: ModeChange, snapshot: NodeSnapshot, now: float) -> msg.ChangeMessage:
    """A mode change and who is in its way; `now` is CLOCK_MONOTONIC seconds, for the time that a switch takes so far."""
    return msg.ChangeMessage(
        name=change.name,
        origin=change.origin,
        state=change.state.value,
        final=change.current is None,
        wishes={gpu: _wish(str(mode)) for gpu, mode in change.wishes},
        switches=[_switch(switch, now) for switch in change.switches],
        created_at=change.created_at,
        requester_uid=change.requester_uid,
        blockers=blocker_messages(_in_the_way(change, snapshot)),
    )


def _in_the_way(change: ModeChange, snapshot: NodeSnapshot) -> list[Blocker]:
    """Who keeps the current switch from going on: KFD clients, and while it waits for them the claims' processes, too."""
    index = change.current
    if index is None or change.switches[index].state not in (SwitchState.WAITING, SwitchState.SWITCHING):
        return []
    gpu = change.switches[index].step.gpu
    node_wide = snapshot.busy_rule is BusyRule.NODE_WIDE
    found = [holder for holder in snapshot.holders if gpu in holder.gpus or node_wide]
    if change.switches[index].state is SwitchState.WAITING:
        clients = {holder.pid for holder in found}
        joined = holders_on(gpu, snapshot.claim_holders, snapshot.claims)
        found += [holder for holder in joined if holder.pid not in clients]
    return [Blocker(holder, gpu, node_wide=gpu not in holder.gpus) for holder in found]


def event_message(event: NodeEvent) -> msg.EventMessage:
    """An event of the ledger."""
    return msg.EventMessage(
        sequence=event.sequence, at=event.at, kind=event.kind, subject=event.subject, message=event.message
    )


def refusal_messages(refusals: Iterable[Refusal]) -> list[msg.RefusalMessage]:
    """The refusals of a plan."""
    return [
        msg.RefusalMessage(gpu=refusal.gpu, reason=refusal.reason.value, message=refusal.message, hint=refusal.hint)
        for refusal in refusals
    ]


def blocker_messages(blockers: Iterable[Blocker]) -> list[msg.BlockerMessage]:
    """The processes in the way of a plan."""
    return [
        msg.BlockerMessage(
            pid=blocker.holder.pid,
            command=blocker.holder.command,
            gpu=blocker.gpu,
            node_wide=blocker.node_wide,
            holds=sorted(blocker.holder.gpus),
        )
        for blocker in blockers
    ]


def _step(step: Step) -> msg.StepMessage:
    return msg.StepMessage(
        kind=step.kind.value,
        gpus=list(step.gpus),
        before=str(step.before),
        after=str(step.after),
        after_reload=step.after_reload,
    )


def _switch(switch: Switch, now: float) -> msg.SwitchMessage:
    ended = switch.ended if switch.ended is not None else now
    return msg.SwitchMessage(
        step=_step(switch.step),
        state=switch.state.value,
        attempts=switch.attempts,
        reason=_word(switch.reason),
        message=switch.message,
        seconds=round(ended - switch.began, 6) if switch.began is not None else None,
        write_seconds=round(switch.write_seconds, 6),
    )


def _word(value: object | None) -> str | None:
    return str(value) if value is not None else None


def _words(values: Iterable[object] | None) -> list[str] | None:
    return [str(value) for value in values] if values is not None else None


def _wish(mode: str) -> str:
    """`?` reads as unknown; in a wish it means "as it is" and is left out."""
    return "/".join(part for part in mode.split("/") if part != "?")
