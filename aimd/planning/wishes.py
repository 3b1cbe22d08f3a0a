"""What a mode change that has ended makes of the GPUs' wishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aimd.domain.ledger import GpuRecord
from aimd.domain.modes import PartitionMode
from aimd.domain.plan import StepKind
from aimd.domain.switch import ModeChange, SwitchState


def kept_wishes(change: ModeChange, records: Mapping[str, GpuRecord]) -> tuple[GpuRecord, ...]:
    """The records that the change alters, with their new wishes; none while it is under way.

    What a client asked for and got is the GPU's wish from now on. A memory mode that has come into effect replaces
    older wishes of the whole hive: else they would ask for the old one at the next driver load, and for ever.
    """
    if change.current is not None:
        return ()
    failed = {gpu for s in change.switches if s.state is not SwitchState.COMMITTED for gpu in s.step.gpus}
    kept: dict[str, GpuRecord] = {}
    for address, wish in change.wishes if change.origin == "client" else ():
        if address not in failed:
            record = records.get(address, GpuRecord(address))
            before = record.wish or PartitionMode()
            merged = PartitionMode(wish.compute or before.compute, wish.memory or before.memory)
            kept[address] = replace(record, wish=merged)
    for switch in change.switches:
        if switch.step.kind is not StepKind.MEMORY or switch.state is not SwitchState.COMMITTED:
            continue
        for address in switch.step.gpus:
            record = kept.get(address) or records.get(address, GpuRecord(address))
            if record.wish is not None and record.wish.memory is not None:
                kept[address] = replace(record, wish=replace(record.wish, memory=switch.step.after.memory))
    return tuple(kept.values())
