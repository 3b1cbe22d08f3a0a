"""From a ResourceClaim to what is reserved for it, or every mistake in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aimd.domain.claim import ClaimSpec, DeviceShare, PartitionRef, QosClass, Slo
from aimd.domain.dra import ClaimRef
from aimd.domain.memory import reserved_bytes
from aimd.domain.modes import ComputeMode, PartitionMode
from aimd.domain.pod import PodRef
from aimd.planning.dra.partition_config import CONFIG_FIELDS, NAMES
from aimd.planning.dra.requests import Allocation, Reservation, allocation
from aimd.planning.sharing.asked import Refused
from tests.unit.dra.claims import CONDITIONS, claim, config, result
from tests.unit.dra.nodes import NODE, on_paper, simulated, with_gpu
from tests.unit.planning.paper import ADDRESSES

CPX = simulated("mi300x", "CPX", "SPX")


def allocated(
    *results: dict[str, Any], configs: tuple[Any, ...] = (), snapshot: Any = CPX, pods: int = 1
) -> Allocation:
    found = allocation(claim(*results, configs=configs, pods=pods), NODE, snapshot)
    assert isinstance(found, Allocation), found
    return found


def mistakes(*results: dict[str, Any], configs: tuple[Any, ...] = (), snapshot: Any = CPX) -> tuple[str, ...]:
    found = allocation(claim(*results, configs=configs), NODE, snapshot)
    assert isinstance(found, Refused), found
    return found.mistakes


def only(found: Allocation) -> Reservation:
    (one,) = found.reservations
    return one


def test_what_is_reserved() -> None:
    found = allocated(result(slots="3"))
    assert found.claim == ClaimRef("default", "llama-gpu", "claim-uid")
    assert found.pods == (PodRef("default", "llama-0", "pod-uid-0"),)
    one = only(found)
    assert (one.request, one.pool, str(one.name), one.share_id) == ("gpu", NODE, "gpu0-cpx-3", "share-gpu0-cpx-3")
    assert one.spec == ClaimSpec(
        memory_units=8 * 1024,
        mode=PartitionMode(ComputeMode.CPX),
        partition=PartitionRef(3, ADDRESSES[0]),
        guarantee=3,
    )
    assert one.memory_bytes == reserved_bytes(8 * 1024, 25_767_706_624) == 25_767_706_624 // 3
    assert not one.waits


def test_shares_of_a_partition_never_exceed_it() -> None:
    """m/N of the bytes, as in the ledger: whole steps that the scheduler lets in fill it at most."""
    sizes = {gi: only(allocated(result(memory=f"{gi}Gi"))).memory_bytes or 0 for gi in (1, 8, 12, 24)}
    assert sizes[24] == 25_767_706_624
    assert 2 * sizes[12] <= sizes[24]
    assert 24 * sizes[1] <= sizes[24]


def test_of_a_mode_that_is_to_come_it_is_what_will_be_there() -> None:
    one = only(allocated(result("gpu1-cpx-7", **CONDITIONS)))
    assert one.memory_bytes == 25_767_706_624 // 3
    assert one.waits
    assert only(allocated(result("gpu0-spx-0", memory="192Gi"))).memory_bytes == 206_141_652_992


def test_partitions_that_are_there_have_their_own_sizes() -> None:
    """The last memory range is smaller than the others by 16 MiB."""
    snapshot = simulated("mi300x", memory="NPS4")
    sizes = [only(allocated(result(f"gpu0-cpx-{n}", memory="24Gi"), snapshot=snapshot)).memory_bytes for n in (0, 7)]
    assert sizes == [25_769_803_776, 25_761_415_168]


def test_a_size_that_is_not_known_yet_is_none() -> None:
    lost = replace(on_paper("CPX/NPS1").gpus[0].gpu, device_id=0x74A0, partitions=(), memory_bytes=None)
    one = only(allocated(result(), snapshot=with_gpu(on_paper("CPX/NPS1"), 0, gpu=lost)))
    assert one.memory_bytes is None


def test_as_requests_of_the_ledger() -> None:
    found = allocated(result(), result("gpu0-cpx-4", "other"), pods=2)
    first, second = found.asked("default/llama", prepared=True)
    assert first.pod == PodRef("default", "llama-0", "pod-uid-0")
    assert (first.model, first.spec, first.created) == (
        "default/llama",
        found.reservations[0].spec,
        "2026-01-01T00:00:00Z",
    )
    assert first.device == DeviceShare(
        "llama-gpu", "claim-uid", "gpu", "gpu0-cpx-3", "share-gpu0-cpx-3", prepared=True, also=("pod-uid-1",)
    )
    assert (second.device.request, second.device.device) == ("other", "gpu0-cpx-4") if second.device else False
    assert first.key != second.key


def test_without_a_pod_nobody_asks() -> None:
    assert allocated(result(), pods=0).asked("default/llama") == ()


def test_users_that_are_no_pods_are_left_out() -> None:
    item = claim(result())
    item["status"]["reservedFor"] += [
        {"apiGroup": "example.com", "resource": "pods", "name": "x", "uid": "x"},
        {"resource": "jobs"},
    ]
    found = allocation(item, NODE, CPX)
    assert isinstance(found, Allocation)
    assert [pod.uid for pod in found.pods] == ["pod-uid-0"]


@pytest.mark.parametrize(
    "item",
    [
        {"metadata": {}},
        {"metadata": {}, "status": {}},
        {"metadata": {}, "status": {"allocation": {"devices": {}}}},
        claim(),
        claim(result() | {"driver": "gpu.amd.com"}),
        claim(result() | {"pool": "node-b"}),
    ],
)
def test_a_claim_that_has_nothing_here_is_nothing(item: dict[str, Any]) -> None:
    assert allocation(item, NODE, CPX) is None


def test_devices_of_others_in_the_claim_are_left_alone() -> None:
    found = allocated(result() | {"driver": "nic.example.com", "request": "gpu"}, result())
    assert len(found.reservations) == 1


# -- settings ------------------------------------------------------------------------------------------------


def test_all_settings() -> None:
    said = config(qosPriority="HIGH", limit=8, weight=5, sloLatencySeconds=0.25, sloObjective=0.99, sloThroughput="40")
    spec = only(allocated(result(slots="3"), configs=(said,))).spec
    assert (spec.qos, spec.guarantee, spec.limit, spec.weight) == (QosClass.HIGH, 3, 8, 5)
    assert spec.slo == Slo(0.25, 0.99, 40.0)


def test_every_field_is_one_of_gpu_sharing() -> None:
    assert tuple(CONFIG_FIELDS) == NAMES


def test_the_claim_overrides_the_class_field_by_field() -> None:
    configs = (config(qosPriority="high"), config("FromClass", qosPriority="low", weight=7), config(weight=9))
    spec = only(allocated(result(), configs=configs)).spec
    assert (spec.qos, spec.weight) == (QosClass.HIGH, 9)


@pytest.mark.parametrize(
    ("request_name", "requests", "counts"),
    [
        ("gpu", (), True),
        ("gpu", ("gpu",), True),
        ("gpu", ("other", "gpu"), True),
        ("gpu", ("other",), False),
        ("gpu/large", ("gpu",), True),
        ("gpu/large", ("gpu/large",), True),
        ("gpu/large", ("gpu/small",), False),
        ("gpu", ("gpu/large",), False),
    ],
)
def test_which_requests_a_configuration_is_for(request_name: str, requests: tuple[str, ...], *, counts: bool) -> None:
    spec = only(allocated(result(request=request_name), configs=(config("FromClaim", requests, weight=9),))).spec
    assert spec.weight == (9 if counts else 1)


def test_what_is_configured_for_other_drivers_is_theirs() -> None:
    assert only(allocated(result(), configs=(config(driver="nic.example.com", weight="many"),))).spec.weight == 1


def test_null_is_absent() -> None:
    assert only(allocated(result(), configs=(config(weight=None),))).spec.weight == 1


# -- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"weight": 0}, "claim: PartitionConfig.weight is '0', expected a whole number from 1 to 1000"),
        ({"weight": 1.5}, "claim: PartitionConfig.weight is '1.5', expected a whole number from 1 to 1000"),
        ({"weight": True}, "claim: PartitionConfig.weight is 'enabled', expected a whole number from 1 to 1000"),
        ({"weight": [3]}, "claim: PartitionConfig.weight is a JSON list, expected a whole number from 1 to 1000"),
        ({"weight": {}}, "claim: PartitionConfig.weight is a JSON object, expected a whole number from 1 to 1000"),
        ({"qosPriority": "urgent"}, "claim: PartitionConfig.qosPriority is 'urgent', expected high, medium or low"),
        (
            {"qosPriority": "x" * 200},
            f"claim: PartitionConfig.qosPriority is '{'x' * 80}...', expected high, medium or low",
        ),
        (
            {"sloObjective": 1},
            "claim: PartitionConfig.sloObjective is '1', expected a ratio between 0 and 1, such as 0.99",
        ),
        (
            {"guarantee": 2},
            (
                "claim: PartitionConfig.guarantee is no field of it, expected qosPriority, limit, weight, sloLatencySeconds, "
                "sloObjective, sloThroughput; that is said by the request's capacity slots"
            ),
        ),
        (
            {"colour": "red"},
            (
                "claim: PartitionConfig.colour is no field of it, expected qosPriority, limit, weight, sloLatencySeconds, "
                "sloObjective, sloThroughput"
            ),
        ),
    ],
)
def test_a_setting_that_cannot_be(fields: dict[str, Any], sentence: str) -> None:
    assert mistakes(result(), configs=(config(**fields),)) == (sentence,)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        (None, "DeviceClass: parameters are missing, expected an object of kind PartitionConfig"),
        (["x"], "DeviceClass: parameters are a JSON list, expected an object of kind PartitionConfig"),
        ({}, "DeviceClass: parameters.apiVersion is missing, expected aimd.dev/v1alpha1"),
        (
            {"apiVersion": "aimd.dev/v2", "kind": "PartitionConfig"},
            "DeviceClass: parameters.apiVersion is 'aimd.dev/v2', expected aimd.dev/v1alpha1",
        ),
        (
            {"apiVersion": "aimd.dev/v1alpha1", "kind": "GpuConfig"},
            "DeviceClass: parameters.kind is 'GpuConfig', expected PartitionConfig",
        ),
    ],
)
def test_parameters_of_another_kind(parameters: Any, sentence: str) -> None:
    said = config("FromClass")
    said["opaque"]["parameters"] = parameters
    assert mistakes(result(), configs=(said,)) == (sentence,)


@pytest.mark.parametrize(
    ("memory", "shown"), [("25Gi", "25Gi"), ("0", "0"), (None, "missing"), ("much", "much"), ("-1Gi", "-1Gi")]
)
def test_memory_that_cannot_be(memory: Any, shown: str) -> None:
    assert mistakes(result(memory=memory)) == (
        f"request gpu: capacity memory is {shown}, expected more than 0 and at most 24Gi",
    )


def test_capacities_with_their_domain_are_the_same() -> None:
    one = result(memory=None, slots=None)
    one["consumedCapacity"] = {"gpu.aimd.dev/memory": "8Gi", "gpu.aimd.dev/slots": "2"}
    spec = only(allocated(one)).spec
    assert (spec.memory_units, spec.guarantee) == (8 * 1024, 2)


def test_a_part_of_a_slot_is_none() -> None:
    assert mistakes(result(slots="500m")) == (
        "request gpu: capacity slots is 1/2, expected a whole number of dispatch slots",
    )


def test_a_limit_below_the_guarantee() -> None:
    assert mistakes(result(slots="4"), configs=(config(limit=3),)) == (
        "request gpu: PartitionConfig.limit is 3, expected at least its slots (4)",
    )


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (
            "gpu0-cpx-8",
            "device gpu0-cpx-8 is not on this node, expected a partition of gpu0: SPX (1), DPX (2), QPX (4), CPX (8)",
        ),
        ("gpu0-tpx-0", "device gpu0-tpx-0 is not on this node"),
        ("gpu9-cpx-0", "GPU 'gpu9' is not on this node"),
        ("whatever", "device 'whatever' is not one of aimd's, expected a name like gpu0-cpx-3"),
    ],
)
def test_a_device_that_is_not_there(device: str, words: str) -> None:
    (sentence,) = mistakes(result(device))
    assert sentence.startswith(f"request gpu: {words}")


def test_admin_access_is_refused() -> None:
    (sentence,) = mistakes(result(adminAccess=True))
    assert sentence.startswith("request gpu has adminAccess, expected none")


def test_two_devices_for_a_request_are_refused() -> None:
    assert mistakes(result(), result("gpu0-cpx-4")) == (
        "request gpu was allocated 2 devices, expected one: ask for each by itself",
    )


def test_every_mistake_is_told_once() -> None:
    found = mistakes(result(memory="25Gi"), result("gpu0-cpx-4", "other"), configs=(config(weight=0, limit=0),))
    assert len(found) == 3
    assert Refused(found).message.count("weight") == 1
