"""ResourceClaims as the ledger keeps them, and what is said of their partitions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aimd.domain.claim import Assignment, Claim, ClaimSpec, ClaimState, DeviceShare, PartitionRef, PodReplica
from aimd.domain.dra import ClaimRef
from aimd.domain.memory import reserved_bytes
from aimd.domain.modes import ComputeMode, PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.plan import Reason
from aimd.domain.pod import PodRef
from aimd.planning.dra.conditions import Readiness
from aimd.planning.dra.kept import Kept, kept
from aimd.planning.pod_claims import WAITS
from tests.unit.dra.nodes import NODE, on_paper

POD = PodRef("default", "llama-1", "pod-uid")


def replica(device: str = "gpu0-cpx-3", number: int = 0, **more: Any) -> PodReplica:
    """Of 8 GB."""
    _, mode, index = device.split("-")
    spec = ClaimSpec(8192, mode=PartitionMode(ComputeMode(mode.upper())), partition=PartitionRef(int(index)))
    share = DeviceShare("llama-gpu", "claim-uid", more.pop("request", "gpu"), device, "share", **more)
    return PodReplica(number, POD, spec, "2026-01-01T00:00:00Z", share)


def seen(*replicas: PodReplica, mode: str = "CPX", placed: bool = True, **more: Any) -> Kept:
    """The claim on a node of one GPU, with the places that its replicas ask for."""
    snapshot = on_paper(mode)
    gpu = snapshot.gpus[0].gpu.pci_address
    epoch = more.pop("epoch", snapshot.gpus[0].mode_epoch)
    places = tuple(
        Assignment("default/llama", one.replica, gpu, one.asks.partition.index, 8192, 0, epoch)
        for one in replicas
        if placed and one.asks.partition is not None
    )
    claim = Claim("default/llama", 0, replicas[0].asks, 1.0, ClaimState.PLACED, places, pods=replicas)
    snapshot = replace(snapshot, claims=(replace(claim, **more),))
    return kept(snapshot, NODE)["claim-uid"]


def readiness(one: Kept) -> dict[str, Readiness]:
    return {device: outcome.readiness for device, outcome in one.outcomes.items()}


def test_all_that_was_allocated() -> None:
    found = seen(replica(prepared=True))
    assert (found.model, found.prepared) == ("default/llama", True)
    assert found.allocation.claim == ClaimRef("default", "llama-gpu", "claim-uid")
    assert found.allocation.pods == (POD,)
    (one,) = found.allocation.reservations
    assert (str(one.name), one.request, one.pool, one.share_id) == ("gpu0-cpx-3", "gpu", NODE, "share")
    size = on_paper("CPX").gpus[0].gpu.partitions[3].memory_bytes
    assert size is not None
    assert one.memory_bytes == reserved_bytes(8192, size)


def test_of_a_mode_that_the_gpu_is_not_in_the_memory_is_that_mode_s() -> None:
    (one,) = seen(replica("gpu0-spx-0"), placed=False).allocation.reservations
    assert one.memory_bytes is not None
    (other,) = seen(replica("gpu0-spx-0"), mode="SPX").allocation.reservations
    assert one.memory_bytes == other.memory_bytes


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, Readiness.READY),
        ({"epoch": 99}, Readiness.WAITING),  # of an earlier mode
        ({"mode": "SPX"}, Readiness.WAITING),  # its switch runs
        ({"placed": False, "state": ClaimState.SWITCHING, "change": "c"}, Readiness.WAITING),
        ({"placed": False, "state": ClaimState.PENDING, "reason": Reason.NO_ROOM, "message": WAITS}, Readiness.WAITING),
        (
            {
                "placed": False,
                "state": ClaimState.PENDING,
                "reason": Reason.SWITCH_IN_PROGRESS,
                "message": "it waits for the end of another",
            },
            Readiness.WAITING,
        ),
        (
            {"placed": False, "state": ClaimState.PENDING, "reason": Reason.GPU_BUSY, "message": "pid 7 holds it"},
            Readiness.FAILED,
        ),
    ],
)
def test_whether_its_partition_is_there(how: dict[str, Any], expected: Readiness) -> None:
    assert readiness(seen(replica(), **how)) == {"gpu0-cpx-3": expected}


def test_why_it_will_not_be_there() -> None:
    pending = {"state": ClaimState.PENDING, "reason": Reason.GPU_BUSY, "message": "pid 7 holds it"}
    outcome = seen(replica(), placed=False, **pending).worst
    assert (outcome.reason, outcome.message) == ("GpuBusy", "pid 7 holds it")


def test_a_gpu_that_has_left_the_node() -> None:
    outcome = seen(replica("gpu7-cpx-3")).worst
    assert outcome.readiness is Readiness.FAILED
    assert "gpu7 is not on this node" in outcome.message


def test_of_two_requests_the_one_that_is_furthest_counts() -> None:
    found = seen(replica(), replica("gpu0-spx-0", 1, request="second"))
    assert readiness(found) == {"gpu0-cpx-3": Readiness.READY, "gpu0-spx-0": Readiness.WAITING}
    assert found.worst.readiness is Readiness.WAITING
    assert len(found.allocation.reservations) == 2


def test_pods_without_a_resource_claim_are_none() -> None:
    snapshot: NodeSnapshot = on_paper("CPX")
    spec = ClaimSpec(8192)
    claim = Claim("default/llama", 0, spec, 1.0, pods=(PodReplica(0, POD, spec),))
    assert kept(replace(snapshot, claims=(claim,)), NODE) == {}
