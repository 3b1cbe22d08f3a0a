"""The devices of a node: all modes always, what each can do, and what keeps claims away from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aimd.domain.claim import Claim, ClaimState
from aimd.domain.gpu import BusyRule, GpuState, Holder
from aimd.domain.ledger import HolderRecord
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.switch import ModeChange, Switch
from aimd.planning.dra.described import semantic_version
from aimd.planning.dra.devices import devices
from aimd.planning.dra.surroundings import Surroundings
from aimd.planning.rooms import Repartition
from aimd.sim.hardware import MODELS
from tests.unit.dra.nodes import claimed, on_paper, simulated, with_gpu
from tests.unit.planning.paper import ADDRESSES, compute_step

ALONE = Surroundings()
CONDITIONS = {"bindsToNode", "bindingConditions", "bindingFailureConditions"}
NAMES_OF_8 = {"spx": 1, "dpx": 2, "qpx": 4, "cpx": 8}


def offered(snapshot: NodeSnapshot, around: Surroundings = ALONE) -> dict[str, Any]:
    """Devices by name, in order."""
    return {one["name"]: one for one in devices(snapshot, around).devices}


def taints_of(snapshot: NodeSnapshot, around: Surroundings = ALONE) -> dict[str, list[str]]:
    """What taints devices have, without the domain; devices without any are left out."""
    found = {name: one.get("taints", []) for name, one in offered(snapshot, around).items()}
    return {
        name: [f"{t['key'].partition('/')[2]}={t['value']}:{t['effect']}" for t in some]
        for name, some in found.items()
        if some
    }


def names(gpu: int, **counts: int) -> set[str]:
    return {f"gpu{gpu}-{mode}-{index}" for mode, count in counts.items() for index in range(count)}


def with_change(snapshot: NodeSnapshot, after: str, number: int = 0) -> NodeSnapshot:
    before = str(snapshot.gpus[number].gpu.mode)
    switches = (Switch(compute_step(before, after, number)),)
    change = ModeChange(
        "change-1", "client", ((ADDRESSES[number], PartitionMode.parse(after)),), switches, "boot", 0.0, 60.0
    )
    return replace(with_gpu(snapshot, number, change="change-1"), changes=(change,))


# -- which ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["SPX", "DPX", "QPX", "CPX"])
def test_all_modes_are_offered_in_each_mode(mode: str) -> None:
    assert set(offered(simulated("mi300x", mode))) == names(0, **NAMES_OF_8)


@pytest.mark.parametrize(
    ("model", "memory", "profile", "expected"),
    [
        ("mi300a", "NPS1", "7.2", {"spx": 1, "tpx": 3, "cpx": 6}),
        ("mi308x", "NPS1", "7.2", {"spx": 1, "dpx": 2, "cpx": 4}),
        ("mi308x", "NPS4", "7.2", {"cpx": 4}),
        ("mi300x", "NPS4", "7.2", {"qpx": 4, "cpx": 8}),
        ("mi300x", "NPS4", "6.12", {"qpx": 4, "cpx": 8}),
        ("mi300x", "NPS2", "7.2", {"dpx": 2}),
        ("mi350x", "NPS2", "7.2", {"dpx": 2, "qpx": 4, "cpx": 8}),
    ],
)
def test_only_what_the_memory_mode_allows(model: str, memory: str, profile: str, expected: dict[str, int]) -> None:
    assert set(offered(simulated(model, memory=memory, profile=profile))) == names(0, **expected)


@pytest.mark.parametrize("model", sorted(MODELS))
def test_counters_are_there_for_what_is_consumed(model: str) -> None:
    found = devices(simulated(model, "", ""), ALONE)
    assert [one["name"] for one in found.counter_sets] == ["gpu0", "gpu1"]
    capacities = {one["name"]: one["counters"] for one in found.counter_sets}
    for device in found.devices:
        (consumption,) = device["consumesCounters"]
        assert consumption["counterSet"] == device["attributes"]["gpu"]["string"]
        for name, counter in consumption["counters"].items():
            assert 0 < int(counter["value"]) <= int(capacities[consumption["counterSet"]][name]["value"])


def test_a_gpu_that_cannot_be_divided_is_one_device_without_counters() -> None:
    found = devices(on_paper("SPX/NPS1", device_id=0x740F, file=None, compute_modes=None, memory_modes=None), ALONE)
    (device,) = found.devices
    assert (device["name"], device["attributes"]["computeMode"]) == ("gpu0-spx-0", {"string": "SPX"})
    assert not found.counter_sets
    assert "consumesCounters" not in device
    assert not CONDITIONS & set(device)


def test_of_an_unknown_model_its_present_partitions() -> None:
    found = devices(on_paper("CPX/NPS1", device_id=0x9999), ALONE)
    assert {one["name"] for one in found.devices} == names(0, cpx=8)
    assert not found.counter_sets


def test_a_mode_that_cannot_be_read_offers_nothing() -> None:
    snapshot = on_paper("CPX/NPS1", device_id=0x9999, file=None)
    assert not devices(snapshot, ALONE).devices


def test_a_virtual_function_lists_no_modes() -> None:
    assert set(offered(on_paper("CPX/NPS1", compute_modes=None))) == names(0, cpx=8)


def test_a_node_without_gpus_offers_nothing() -> None:
    assert devices(NodeSnapshot(), ALONE).devices == ()


@pytest.mark.parametrize("state", [GpuState.LOST, GpuState.GONE, GpuState.HIDDEN])
def test_devices_of_a_gpu_that_fails_stay_and_are_tainted(state: GpuState) -> None:
    snapshot = on_paper("CPX/NPS1", "SPX/NPS1")
    lost = replace(snapshot.gpus[0].gpu, partitions=(), absence=state, compute_modes=None, reported_compute=None)
    after = with_gpu(snapshot, 0, gpu=lost)
    assert set(offered(after)) == set(offered(snapshot))
    assert devices(after, ALONE).counter_sets == devices(snapshot, ALONE).counter_sets
    assert taints_of(after) == {key: [f"unhealthy={state}:NoSchedule"] for key in names(0, **NAMES_OF_8)}
    for name in names(0, **NAMES_OF_8):
        assert offered(after)[name]["capacity"] == offered(snapshot)[name]["capacity"]


def test_a_lost_gpu_whose_size_is_unknown_has_no_memory() -> None:
    lost = replace(
        on_paper("CPX/NPS1").gpus[0].gpu, device_id=0x74A0, partitions=(), memory_bytes=None, compute_modes=None
    )
    snapshot = with_gpu(on_paper("CPX/NPS1"), 0, gpu=lost)
    assert set(offered(snapshot)) == names(0, spx=1, tpx=3, cpx=6)
    assert all(one["capacity"]["memory"] == {"value": "0"} for one in offered(snapshot).values())
    assert set(taints_of(snapshot)) == set(offered(snapshot))


def test_a_partition_that_is_missing_stays_and_is_tainted() -> None:
    snapshot = on_paper("CPX/NPS1", partitions=7)
    assert set(offered(snapshot)) == names(0, **NAMES_OF_8)
    assert taints_of(snapshot) == {"gpu0-cpx-7": ["unhealthy=missing:NoSchedule"]}


# -- what they are -------------------------------------------------------------------------------------------


def test_attributes() -> None:
    around = Surroundings(driver_version="6.12.12", pcie_roots={"0000:05:00.0": "pci0000:00"})
    device = offered(simulated("mi300x", "CPX"), around)["gpu0-cpx-3"]
    numa = device["attributes"].pop("resource.kubernetes.io/numaNode")
    assert isinstance(numa["int"], int)
    assert device["attributes"] == {
        "productName": {"string": "MI300X"},
        "computeMode": {"string": "CPX"},
        "memoryMode": {"string": "NPS1"},
        "gpu": {"string": "gpu0"},
        "index": {"int": 3},
        "driverVersion": {"version": "6.12.12"},
        "resource.kubernetes.io/pciBusID": {"string": "0000:05:00.0"},
        "resource.kubernetes.io/pcieRoot": {"string": "pci0000:00"},
    }


def test_no_numa_node_is_no_attribute() -> None:
    snapshot = on_paper("CPX/NPS1")
    for node, known in ((None, False), (-1, False), (0, True)):
        gpu = replace(snapshot.gpus[0].gpu, numa_node=node)
        device = offered(with_gpu(snapshot, 0, gpu=gpu))["gpu0-cpx-0"]
        assert ("resource.kubernetes.io/numaNode" in device["attributes"]) == known


@pytest.mark.parametrize(
    ("said", "version"),
    [
        (None, None),
        ("", None),
        ("6.12.12", "6.12.12"),
        ("6.8.0-45-generic", "6.8.0-45-generic"),
        ("6.8.0-045", None),
        ("6.08.1", None),
        ("6.12", None),
        ("6.12.12.1", None),
        ("6.12.12-" + "x" * 60, None),
        ("7.2.0-rc1.0", "7.2.0-rc1.0"),
        ("7.2.0-rc1.01", None),
    ],
)
def test_a_version_is_semantic_or_nothing(said: str | None, version: str | None) -> None:
    assert semantic_version(said) == version


@pytest.mark.parametrize("mode", ["SPX", "CPX"])
def test_sizes_are_as_gpus_are_sold(mode: str) -> None:
    found = offered(simulated("mi300x", mode))
    sizes = {name: one["capacity"]["memory"]["value"] for name, one in found.items()}
    assert {sizes[name] for name in names(0, cpx=8)} == {"24Gi"}
    assert (sizes["gpu0-spx-0"], sizes["gpu0-dpx-1"], sizes["gpu0-qpx-3"]) == ("192Gi", "96Gi", "48Gi")


def test_capacities_of_a_whole_partition() -> None:
    device = offered(simulated("mi300x", "CPX"))["gpu0-cpx-0"]
    assert device["allowMultipleAllocations"] is True
    assert device["capacity"] == {
        "memory": {
            "value": "24Gi",
            "requestPolicy": {"default": "24Gi", "validRange": {"min": "512Mi", "max": "24Gi", "step": "512Mi"}},
        },
        "slots": {
            "value": "16",
            "requestPolicy": {"default": "0", "validRange": {"min": "0", "max": "16", "step": "1"}},
        },
    }


def test_what_is_there_binds_at_once_and_the_rest_waits() -> None:
    found = offered(on_paper("CPX/NPS1", "SPX/NPS1"))
    waiting = {name for name, one in found.items() if set(one) >= CONDITIONS}
    at_once = {name for name, one in found.items() if not CONDITIONS & set(one)}
    assert at_once == names(0, cpx=8) | names(1, spx=1)
    assert waiting == set(found) - at_once
    assert found["gpu0-spx-0"]["bindingConditions"] == ["gpu.aimd.dev/partition-ready"]
    assert found["gpu0-spx-0"]["bindingFailureConditions"] == ["gpu.aimd.dev/partition-failed"]
    assert not taints_of(on_paper("CPX/NPS1", "SPX/NPS1"))


# -- what others have ----------------------------------------------------------------------------------------


def test_what_others_reserve_is_not_offered_and_keeps_the_mode() -> None:
    snapshot = replace(on_paper("CPX/NPS1", "CPX/NPS1"), claims=(claimed("llama", 0, 2, 8, slots=3),))
    capacity = offered(snapshot)["gpu0-cpx-2"]["capacity"]
    assert capacity["memory"]["value"] == capacity["memory"]["requestPolicy"]["validRange"]["max"] == "16Gi"
    assert capacity["slots"]["value"] == "13"
    assert offered(snapshot)["gpu0-cpx-3"]["capacity"]["memory"]["value"] == "24Gi"
    assert taints_of(snapshot) == {key: ["busy=outside:NoSchedule"] for key in names(0, spx=1, dpx=2, qpx=4)}


def test_what_the_scheduler_has_allocated_is_its_own_affair() -> None:
    bare = on_paper("CPX/NPS1", "CPX/NPS1")
    snapshot = replace(bare, claims=(claimed("llama", 0, 2, 8, slots=3, device=True),))
    assert sorted(offered(snapshot).items()) == sorted(offered(bare).items())


@pytest.mark.parametrize(
    ("gb", "value", "valid"),
    [
        (0.25, "24064Mi", {"min": "512Mi", "max": "24064Mi", "step": "512Mi"}),
        (23, "1Gi", {"min": "512Mi", "max": "1Gi", "step": "512Mi"}),
        (23.5, "512Mi", {"min": "512Mi", "max": "512Mi"}),
    ],
)
def test_offered_memory_is_in_whole_steps(gb: float, value: str, valid: dict[str, str]) -> None:
    snapshot = replace(on_paper("CPX/NPS1"), claims=(claimed("llama", 0, 0, gb),))
    memory = offered(snapshot)["gpu0-cpx-0"]["capacity"]["memory"]
    assert memory == {"value": value, "requestPolicy": {"default": value, "validRange": valid}}


@pytest.mark.parametrize("gb", [23.75, 24])
def test_a_partition_without_room_offers_nothing_and_is_tainted(gb: float) -> None:
    """Without the taint a claim that names no size would get none of it, and run there."""
    snapshot = replace(on_paper("CPX/NPS1"), claims=(claimed("llama", 0, 0, gb, slots=16),))
    device = offered(snapshot)["gpu0-cpx-0"]
    assert device["capacity"]["memory"] == {"value": "0"}
    assert device["capacity"]["slots"]["requestPolicy"]["validRange"] == {"min": "0", "max": "0"}
    assert taints_of(snapshot)["gpu0-cpx-0"] == ["full=outside:NoSchedule"]


def test_a_process_that_outlives_its_claim_counts_as_an_other() -> None:
    record = HolderRecord("gone", 0, 77, 1, None, None, ADDRESSES[0], 1, 0, 8 * 1024, 1.0, 2)
    snapshot = replace(on_paper("CPX/NPS1"), claim_holders=(record,))
    assert offered(snapshot)["gpu0-cpx-1"]["capacity"]["memory"]["value"] == "16Gi"
    assert set(taints_of(snapshot)) == names(0, spx=1, dpx=2, qpx=4)


def test_what_was_reserved_in_an_earlier_mode_takes_nothing_but_keeps_the_mode() -> None:
    snapshot = with_gpu(on_paper("CPX/NPS1"), 0, mode_epoch=4)
    snapshot = replace(snapshot, claims=(claimed("llama", 0, 0, 8),))
    assert offered(snapshot)["gpu0-cpx-0"]["capacity"]["memory"]["value"] == "24Gi"
    assert set(taints_of(snapshot)) == names(0, spx=1, dpx=2, qpx=4)


def held(snapshot: NodeSnapshot, **more: Any) -> NodeSnapshot:
    return replace(snapshot, holders=(Holder(9, "python", frozenset({ADDRESSES[0]}), start_time=5, **more),))


def test_a_strangers_process_keeps_the_mode() -> None:
    assert set(taints_of(held(on_paper("CPX/NPS1", "CPX/NPS1")))) == names(0, spx=1, dpx=2, qpx=4)


def test_the_process_of_a_pod_that_the_scheduler_placed_is_no_stranger() -> None:
    claim = claimed("llama", 0, 0, 8, device=True)
    snapshot = replace(on_paper("CPX/NPS1"), claims=(claim,))
    assert not taints_of(held(snapshot, pod="llama-uid"))
    assert taints_of(held(snapshot, pod="other-uid"))
    joined = HolderRecord("llama", 0, 9, 5, None, None, ADDRESSES[0], 0, 0, 8 * 1024)
    assert not taints_of(held(replace(snapshot, claim_holders=(joined,))))
    child = Holder(10, "python", frozenset({ADDRESSES[0]}), owner=(9, 5), start_time=6)
    assert not taints_of(replace(snapshot, claim_holders=(joined,), holders=(child,)))


def test_with_older_drivers_any_process_keeps_all_modes() -> None:
    claim = claimed("llama", 0, 0, 8, device=True)
    snapshot = replace(on_paper("CPX/NPS1", "SPX/NPS1"), claims=(claim,), busy_rule=BusyRule.NODE_WIDE)
    assert not taints_of(snapshot)
    tainted = taints_of(held(snapshot, pod="llama-uid"))
    assert set(tainted) == names(0, spx=1, dpx=2, qpx=4) | names(1, dpx=2, qpx=4, cpx=8)


# -- changes -------------------------------------------------------------------------------------------------


def test_during_a_change_only_its_mode_can_be_had_and_everything_waits() -> None:
    snapshot = with_change(on_paper("CPX/NPS1", "CPX/NPS1"), "QPX/NPS1")
    found = offered(snapshot)
    assert taints_of(snapshot) == {key: ["switching=away:NoSchedule"] for key in names(0, spx=1, dpx=2, cpx=8)}
    assert all(set(found[name]) >= CONDITIONS for name in names(0, **NAMES_OF_8))


def test_a_claim_that_waits_for_a_mode_is_reserved_in_it() -> None:
    snapshot = with_change(on_paper("SPX/NPS1"), "CPX/NPS1")
    claim = replace(claimed("llama", 0, 2, 8), state=ClaimState.SWITCHING, change="change-1")
    found = offered(replace(snapshot, claims=(claim,)))
    assert found["gpu0-cpx-2"]["capacity"]["memory"]["value"] == "16Gi"
    assert found["gpu0-spx-0"]["capacity"]["memory"]["value"] == "192Gi"


def test_a_change_that_is_not_known_any_more_leads_nowhere() -> None:
    snapshot = with_gpu(on_paper("CPX/NPS1"), 0, change="change-7")
    assert set(taints_of(snapshot)) == names(0, **NAMES_OF_8)


@pytest.mark.parametrize(
    ("around", "where", "words"),
    [
        (
            Surroundings(rivals=("another",)),
            {"spx": 1, "dpx": 2, "qpx": 4, "cpx": 8},
            "foreign-owner=other-manager:NoSchedule",
        ),
        (Surroundings(repartition=Repartition.NEVER), {"spx": 1, "dpx": 2, "qpx": 4}, "fixed-mode=policy:NoSchedule"),
        (
            Surroundings(unswitchable=frozenset({ADDRESSES[0]})),
            {"spx": 1, "dpx": 2, "qpx": 4},
            "fixed-mode=switch-failed:NoSchedule",
        ),
    ],
)
def test_taints_of_the_surroundings(around: Surroundings, where: dict[str, int], words: str) -> None:
    assert taints_of(on_paper("CPX/NPS1"), around) == {key: [words] for key in names(0, **where)}


def test_a_draining_gpu_is_closed_then_cleared() -> None:
    snapshot = with_gpu(on_paper("CPX/NPS1", "CPX/NPS1"), 0, draining=True)
    assert taints_of(snapshot) == {key: ["draining=operator:NoSchedule"] for key in names(0, **NAMES_OF_8)}
    expelled = taints_of(snapshot, Surroundings(expelled=frozenset(ADDRESSES)))
    assert expelled == {key: ["draining=operator:NoExecute"] for key in names(0, **NAMES_OF_8)}


def test_a_gpu_in_reset_takes_nobody() -> None:
    assert taints_of(on_paper("CPX/NPS1", in_reset=True)) == {
        key: ["unhealthy=in-reset:NoSchedule"] for key in names(0, **NAMES_OF_8)
    }


def test_nothing_is_tainted_twice_by_one_key() -> None:
    snapshot = with_change(on_paper("CPX/NPS1", in_reset=True), "SPX/NPS1")
    snapshot = replace(held(with_gpu(snapshot, 0, draining=True)), claims=(claimed("llama", 0, 0, 24),))
    around = Surroundings(rivals=("another",), repartition=Repartition.NEVER, unswitchable=frozenset(ADDRESSES))
    for device in offered(snapshot, around).values():
        keys = [one["key"] for one in device["taints"]]
        assert len(keys) == len(set(keys)) <= 16


def local(name: str, *places: tuple[int, int, float]) -> Claim:
    claims = [claimed(name, gpu, index, gb) for gpu, index, gb in places]
    return replace(
        claims[0], assignments=tuple(replace(c.assignments[0], replica=n) for n, c in enumerate(claims)), pods=()
    )


def test_a_local_claim_of_several_replicas_counts_each() -> None:
    snapshot = replace(on_paper("CPX/NPS1", "CPX/NPS1"), claims=(local("llama", (0, 0, 8), (0, 0, 4), (1, 7, 24)),))
    found = offered(snapshot)
    assert found["gpu0-cpx-0"]["capacity"]["memory"]["value"] == "12Gi"
    assert found["gpu1-cpx-7"]["capacity"]["memory"]["value"] == "0"
