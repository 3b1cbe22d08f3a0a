"""The record of the node in the cluster: everything in it, conditions that flip, and when it is worth a write."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aimd.domain.claim import PodRequest
from aimd.domain.modes import MemoryMode
from aimd.domain.pod import PodRef
from aimd.planning import effects as fx
from aimd.planning.sharing.node_status import flips, node_status, same
from tests.fakes.claims import spec
from tests.unit.planning.desk import NPS_POLICY, Desk, desk
from tests.unit.planning.paper import ADDRESSES, PaperNode, holder

T1, T2 = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"
POD = PodRef("default", "llama-0", "u1")


def told(made: Desk, current: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"generation": 2, "about": {"bootID": "b"}, "rivals": (), "refused": None, "now": T1} | more
    return node_status(made.snapshot, current or {}, **said)


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    (found,) = [each for each in status["conditions"] if each["type"] == kind]
    return found


def verdict(status: dict[str, Any], kind: str) -> tuple[str, str]:
    found = condition(status, kind)
    return found["status"], found["reason"]


def test_gpus_partitions_and_assignments() -> None:
    made = desk("CPX/NPS1", "SPX/NPS1")
    made.tell(fx.PodsSeen((PodRequest(POD, "default/llama", spec(8, at=(ADDRESSES[0], 3), guarantee=2)),)))
    made.claim("local", spec(1.5, at=(ADDRESSES[0], 3)))
    made.run()
    status = told(made)
    assert {key: status[key] for key in ("gpuCount", "partitionCount", "modes", "memoryGB", "reservedGB")} == {
        "gpuCount": 2,
        "partitionCount": 9,
        "modes": "1xCPX/NPS1 1xSPX/NPS1",
        "memoryGB": 8 * 24 + 192,
        "reservedGB": 9.5,
    }
    assert (status["bootID"], status["observedGeneration"]) == ("b", 2)
    assert (status["gpus"][0]["name"], status["gpus"][0]["model"]) == ("gpu0", "MI300X")
    part = status["gpus"][0]["partitions"][3]
    assert (part["index"], part["memoryGB"], part["reservedGB"], part["usedGB"]) == (3, 24, 9.5, 0)
    assert part["assignments"] == [
        {
            "model": "default/llama",
            "claim": "default/llama/0",
            "memoryGB": 8,
            "guarantee": 2,
            "pod": {"namespace": "default", "name": "llama-0", "uid": "u1"},
        },
        {"model": "local", "claim": "local/0", "memoryGB": 1.5, "guarantee": 0},
    ]


def test_all_is_well() -> None:
    status = told(desk("CPX/NPS1"))
    assert verdict(status, "PartitioningReady") == ("True", "Ready")
    assert verdict(status, "Repartitioning") == ("False", "Idle")
    assert verdict(status, "ConflictingManager") == ("False", "None")
    assert verdict(status, "HardwareHealthy") == ("True", "Healthy")
    assert status["blockers"] == []


def test_the_time_of_a_condition_moves_when_it_flips() -> None:
    made = desk("CPX/NPS1")
    first = told(made)
    again = told(made, first, now=T2)
    assert same(first, again)
    rivalled = told(made, again, now=T2, rivals=("DCM manages partitions here",))
    assert condition(rivalled, "ConflictingManager")["lastTransitionTime"] == T2
    assert condition(rivalled, "HardwareHealthy")["lastTransitionTime"] == T1
    assert verdict(rivalled, "PartitioningReady") == ("False", "ConflictingManager")


def test_what_is_used_alone_is_no_reason_to_write() -> None:
    made = desk("CPX/NPS1")
    first = told(made)
    using = replace(holder(7, 0), vram=((ADDRESSES[0], 2, 3 << 30),))
    made.node.holders.append(using)
    made.poll()
    second = told(made, first)
    assert second["gpus"][0]["partitions"][2]["usedGB"] == 3
    assert same(first, second)
    made.claim("m", spec(4))
    assert not same(first, told(made, first))


def test_what_processes_keep_that_go_on_without_their_claim_is_reserved() -> None:
    made = desk("CPX/NPS1")
    made.claim("local", spec(10, at=(ADDRESSES[0], 3)))
    made.join("local", 7)
    made.release("local")
    status = told(made)
    assert status["gpus"][0]["partitions"][3]["reservedGB"] == status["reservedGB"] == 10
    assert status["gpus"][0]["partitions"][3]["assignments"] == []


def test_who_kept_a_switch_from_being_done_is_named_until_they_leave() -> None:
    made = desk("SPX/NPS1", "SPX/NPS1")
    made.node.holders += [holder(7, 0), holder(8, 1)]
    made.poll()
    made.change((0, "CPX"), wait=1.0)
    assert made.ledger.changes["c1"].state == "failed"
    assert [(each["gpu"], each["pid"]) for each in told(made)["blockers"]] == [(ADDRESSES[0], 7)]
    made.node.holders.clear()
    made.poll()
    assert told(made)["blockers"] == []


def test_who_keeps_a_gpu_from_its_layout_is_named() -> None:
    made = desk("SPX/NPS1", "CPX/NPS1")
    made.node.holders += [holder(7, 0), holder(8, 1)]
    made.start({"default": "CPX"}, "digest")
    made.run()
    made.poll()
    assert [(each["gpu"], each["pid"]) for each in told(made)["blockers"]] == [(ADDRESSES[0], 7)]


def test_no_list_is_longer_than_the_definition_allows() -> None:
    made = desk("SPX/NPS1")
    made.node.holders += [holder(pid, 0) for pid in range(1, 300)]
    made.poll()
    made.submit((0, "CPX"))
    made.run(lambda: made.ledger.changes["c1"].state == "waiting_for_clients")
    assert len(told(made)["blockers"]) == 256


def test_a_switch_that_waits_names_who_it_waits_for() -> None:
    made = desk("SPX/NPS1")
    made.node.holders.append(holder(7, 0))
    made.poll()
    made.submit((0, "CPX"))
    made.run(lambda: made.ledger.changes["c1"].state == "waiting_for_clients")
    status = told(made)
    assert verdict(status, "Repartitioning") == ("True", "WaitingForClients")
    assert [(each["gpu"], each["pid"]) for each in status["blockers"]] == [(ADDRESSES[0], 7)]


def test_a_lost_gpu() -> None:
    made = desk("CPX/NPS1", "CPX/NPS1")
    lost = replace(made.snapshot.gpus[1], gpu=replace(made.snapshot.gpus[1].gpu, partitions=()))
    ill = replace(made.snapshot, gpus=(made.snapshot.gpus[0], lost))
    status = node_status(ill, {}, generation=1, about={}, rivals=(), refused=None, now=T1)
    assert verdict(status, "HardwareHealthy") == ("False", "GpuNotReady")
    assert condition(status, "HardwareHealthy")["message"] == "gpu1 is lost"


def test_before_the_node_was_looked_at() -> None:
    made = Desk(PaperNode("CPX/NPS1"))
    made.start()
    assert verdict(told(made), "PartitioningReady") == ("False", "NotReady")


def test_a_spec_that_cannot_be_carried_out() -> None:
    status = told(desk("CPX/NPS1"), refused="layout.gpu9 names no GPU of this node")
    assert verdict(status, "PartitioningReady") == ("False", "SpecRefused")
    assert "gpu9" in condition(status, "PartitioningReady")["message"]


def test_a_memory_mode_that_waits_for_a_driver_load() -> None:
    made = desk("CPX/NPS1", policy=NPS_POLICY)
    made.submit((0, "NPS4"))
    made.run(lambda: any(status.pending_memory is MemoryMode.NPS4 for status in made.snapshot.gpus))
    status = told(made)
    assert verdict(status, "PartitioningReady") == ("False", "MemoryModePending")
    assert status["gpus"][0]["pendingMemoryMode"] == "NPS4"


def test_a_condition_that_flips_is_worth_an_event_once() -> None:
    made = desk("CPX/NPS1")
    well = told(made)
    assert flips({}, well) == [], "that all is well at first is no news"
    rivalled = told(made, well, rivals=("DCM manages partitions here",))
    assert [(reason, trouble) for reason, _, trouble in flips(well, rivalled)] == [
        ("ConflictingManager", True),
        ("Found", True),
    ]
    assert flips(rivalled, told(made, rivalled, rivals=("DCM manages partitions here",))) == []
    assert {trouble for _, _, trouble in flips(rivalled, told(made, rivalled))} == {False}


def test_a_mode_change_is_told_by_its_states_and_is_no_trouble() -> None:
    made = desk("SPX/NPS1")
    well = told(made)
    made.node.holders.append(holder(7, 0))
    made.poll()
    made.submit((0, "CPX"))
    made.run(lambda: made.ledger.changes["c1"].state == "waiting_for_clients")
    assert [(reason, trouble) for reason, _, trouble in flips(well, told(made, well))] == [("WaitingForClients", False)]
