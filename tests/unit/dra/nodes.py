"""Snapshots of simulated nodes, read by the real adapter, and what else tests of devices need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aimd.domain.claim import Assignment, Claim, ClaimState, DeviceShare, PodReplica
from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.domain.pod import PodRef
from aimd.planning.view import gpu_statuses
from tests.fakes.claims import spec
from tests.property.simulated import Bench
from tests.unit.planning.paper import ADDRESSES, gpu

NODE = "node-a"


def simulated(model: str = "mi300x", *modes: str, memory: str = "NPS1", profile: str = "7.2") -> NodeSnapshot:
    """GPUs of a model of the simulator in these modes (`""`: as the driver has chosen)."""
    wanted = [ComputeMode[mode] if mode else None for mode in modes or ("",)]
    found = Bench(model, profile, MemoryMode[memory], wanted).scan()
    return NodeSnapshot(gpus=gpu_statuses(found.gpus, {}, {}), busy_rule=found.busy_rule, ready=True)


def on_paper(*modes: str, **more: Any) -> NodeSnapshot:
    """MI300X in these modes (`CPX/NPS1`); `more` is of each GPU."""
    statuses = tuple(GpuStatus(number, gpu(number, mode, **more)) for number, mode in enumerate(modes))
    return NodeSnapshot(gpus=statuses, ready=True)


def with_gpu(snapshot: NodeSnapshot, number: int, **changes: Any) -> NodeSnapshot:
    """With other fields of one GPU's status."""
    gpus = list(snapshot.gpus)
    gpus[number] = replace(gpus[number], **changes)
    return replace(snapshot, gpus=tuple(gpus))


def claimed(name: str, number: int, index: int, gb: float, *, device: bool = False, slots: int = 0) -> Claim:
    """A claim of one replica that has so many GB of a partition; `device`: the scheduler has allocated it."""
    share = DeviceShare(f"{name}-claim", f"{name}-claim-uid", "gpu", "gpu0-cpx-0") if device else None
    pod = PodReplica(0, PodRef("default", name, f"{name}-uid"), spec(gb), device=share)
    place = Assignment(name, 0, ADDRESSES[number], index, round(gb * 1024), slots)
    return Claim(name, 0, spec(gb, guarantee=slots), 0.0, ClaimState.PLACED, (place,), pods=(pod,))
