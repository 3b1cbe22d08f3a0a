"""What pods ask for: every field with good and bad values, what wins over what, and which words are said of mistakes."""

from __future__ import annotations

import pytest

from aimd.domain.claim import ClaimSpec, PartitionRef, QosClass, Slo
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.errors import NotFoundError
from aimd.planning.sharing.asked import Refused, asked
from aimd.planning.sharing.fields import FIELDS

ON = {"aimd.dev/gpu-sharing": "enabled", "aimd.dev/memory-limit-gb": "8"}


def find_gpu(name: str) -> str:
    known = {"gpu0": "0000:05:00.0", "0000:05:00.0": "0000:05:00.0"}
    if name not in known:
        raise NotFoundError(f"GPU {name} is not on this node", code="unknown_gpu")
    return known[name]


def spec(annotations: dict[str, str], declared: dict[str, object] | None = None) -> ClaimSpec:
    found = asked(annotations, declared, find_gpu)
    assert isinstance(found, ClaimSpec), found
    return found


def mistakes(annotations: dict[str, str], declared: dict[str, object] | None = None) -> tuple[str, ...]:
    found = asked(annotations, declared, find_gpu)
    assert isinstance(found, Refused), found
    return found.mistakes


def test_with_memory_alone_the_rest_is_as_of_a_claim() -> None:
    assert spec(ON) == ClaimSpec(memory_units=8 * 1024)


def test_every_field() -> None:
    said = {
        "memory-limit-gb": "1.5",
        "compute-mode": "cpx",
        "memory-mode": "NPS4",
        "partition-id": "gpu0/3",
        "preferred-partition": "5",
        "qos-priority": "HIGH",
        "guarantee": "2",
        "limit": "4",
        "weight": "10",
        "slo-latency-seconds": "0.25",
        "slo-objective": "0.999",
        "slo-throughput": "12",
    }
    assert spec(ON | {f"aimd.dev/{name}": value for name, value in said.items()}) == ClaimSpec(
        memory_units=1536,
        qos=QosClass.HIGH,
        mode=PartitionMode(ComputeMode.CPX, MemoryMode.NPS4),
        partition=PartitionRef(3, "0000:05:00.0"),
        preferred=PartitionRef(5),
        guarantee=2,
        limit=4,
        weight=10,
        slo=Slo(0.25, 0.999, 12),
    )


def test_the_services_own_fields_win_one_by_one() -> None:
    declared = {"enabled": True, "memoryLimitGB": 12.5, "qosPriority": "low", "partitionId": 2, "limit": None}
    found = spec(ON | {"aimd.dev/qos-priority": "high", "aimd.dev/limit": "7"}, declared)
    assert found == ClaimSpec(memory_units=12800, qos=QosClass.LOW, partition=PartitionRef(2), limit=7)


@pytest.mark.parametrize(
    ("annotations", "declared"),
    [
        ({}, None),
        ({"aimd.dev/memory-limit-gb": "8"}, None),
        ({"aimd.dev/gpu-sharing": "disabled", "aimd.dev/qos-priority": "urgent"}, None),
        (ON, {"enabled": False}),
        ({"example.org/gpu-sharing": "enabled"}, {}),
    ],
)
def test_who_does_not_ask_gets_nothing(annotations: dict[str, str], declared: dict[str, object] | None) -> None:
    assert asked(annotations, declared, find_gpu) is None


BAD = [
    ("gpu-sharing", "true", "enabled or disabled"),
    ("gpu-sharing", "Enabled", "enabled or disabled"),
    ("memory-limit-gb", "0", "GB as GPUs are sold, more than 0 and at most 1048576"),
    ("memory-limit-gb", "24Gi", "GB as GPUs are sold, more than 0 and at most 1048576"),
    ("memory-limit-gb", "-1", "GB as GPUs are sold, more than 0 and at most 1048576"),
    ("memory-limit-gb", "nan", "GB as GPUs are sold, more than 0 and at most 1048576"),
    ("memory-limit-gb", "1e3", "GB as GPUs are sold, more than 0 and at most 1048576"),
    ("memory-limit-gb", "1048577", "GB as GPUs are sold, more than 0 and at most 1048576"),
    ("memory-limit-gb", "", "GB as GPUs are sold, more than 0 and at most 1048576"),
    ("compute-mode", "EPX", "SPX, DPX, TPX, QPX or CPX"),
    ("compute-mode", "CPX/NPS1", "SPX, DPX, TPX, QPX or CPX"),
    ("memory-mode", "NPS5", "NPS1, NPS2, NPS3, NPS4, NPS6 or NPS8"),
    ("partition-id", "8", "an index from 0 to 7 or one partition like gpu3/5 or 0000:65:00.0/5"),
    ("partition-id", "gpu3", "an index from 0 to 7 or one partition like gpu3/5 or 0000:65:00.0/5"),
    ("partition-id", "3\n", "an index from 0 to 7 or one partition like gpu3/5 or 0000:65:00.0/5"),
    ("preferred-partition", "first", "an index from 0 to 7 or one partition like gpu3/5 or 0000:65:00.0/5"),
    ("qos-priority", "urgent", "high, medium or low"),
    ("guarantee", "-1", "a whole number from 0 to 4096"),
    ("guarantee", "1.5", "a whole number from 0 to 4096"),
    ("limit", "0", "a whole number from 1 to 4096"),
    ("weight", "1001", "a whole number from 1 to 1000"),
    ("slo-latency-seconds", "0", "seconds, more than 0"),
    ("slo-objective", "1", "a ratio between 0 and 1, such as 0.99"),
    ("slo-objective", "99%", "a ratio between 0 and 1, such as 0.99"),
    ("slo-throughput", "many", "requests per second, more than 0"),
]


@pytest.mark.parametrize(("name", "value", "expected"), BAD)
def test_a_bad_value_is_told_with_its_field_and_what_was_expected(name: str, value: str, expected: str) -> None:
    assert mistakes(ON | {f"aimd.dev/{name}": value}) == (
        f"annotation aimd.dev/{name} is {value!r}, expected {expected}",
    )


def test_each_field_has_a_bad_value_above() -> None:
    assert {name for name, _, _ in BAD} == {field.annotation for field in FIELDS}


def test_all_mistakes_are_told_at_once() -> None:
    found = mistakes({"aimd.dev/gpu-sharing": "enabled", "aimd.dev/weight": "0"}, {"qosPriority": 7})
    assert found == (
        "spec.gpuSharing.qosPriority is '7', expected high, medium or low",
        "annotation aimd.dev/weight is '0', expected a whole number from 1 to 1000",
        "spec.gpuSharing.memoryLimitGB is missing, expected GB as GPUs are sold, for example 24",
    )


def test_a_limit_below_the_guarantee() -> None:
    assert mistakes(ON | {"aimd.dev/limit": "2"}, {"guarantee": 3}) == (
        "annotation aimd.dev/limit is 2, expected at least spec.gpuSharing.guarantee (3)",
    )


def test_a_gpu_that_is_not_there() -> None:
    assert mistakes(ON | {"aimd.dev/partition-id": "gpu9/0"}) == (
        "annotation aimd.dev/partition-id is gpu9/0: GPU gpu9 is not on this node",
    )


def test_a_long_value_is_cut_and_a_value_of_another_kind_is_named() -> None:
    assert "'" + "x" * 80 + "...'" in mistakes(ON | {"aimd.dev/qos-priority": "x" * 5000})[0]
    assert mistakes(ON, {"weight": [1]}) == (
        "spec.gpuSharing.weight is 'list', expected a whole number from 1 to 1000",
    )
