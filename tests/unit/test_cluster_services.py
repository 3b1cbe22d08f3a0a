"""What a node sees of the services of its pods, and how often it looks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aimd.domain.memory import UNITS_PER_GB
from aimd.errors import InvalidInputError, UnreachableError
from tests.fakes.cluster_turns import KEY, ON, POD, REFRESH_SECONDS, Turning, pod
from tests.unit.planning.desk import desk

ELSEWHERE = {"pod": "llama-9", "node": "node-b", "partitionId": "gpu1/0", "allocatedMemoryGB": 8}
LLAMA_TOO = {"serving.kserve.io/inferenceservice": "llama-too"}
UNREACHABLE = UnreachableError("the API server does not answer")


def turning_with(*pods, status=None, sharing=None) -> Turning:
    """After the first turn."""
    turning = Turning(desk("CPX/NPS1"))
    spec = {"spec": {"gpuSharing": sharing}} if sharing else {}
    turning.cluster.objects.services[KEY] = {"metadata": {"resourceVersion": "1"}, "status": status or {}, **spec}
    turning.cluster.the_pods = pods
    turning.turn()
    return turning


class Stuck:
    """A reconciler that comes to nothing any more."""

    def __init__(self, reconciler: Any) -> None:
        self.snapshot = reconciler.snapshot

    def handle(self, *_event: object) -> tuple[()]:
        return ()


def looks(turning: Turning) -> int:
    return turning.cluster.objects.asked.count("service default/llama")


def test_entries_of_pods_that_are_gone_with_their_node_are_removed() -> None:
    info = {"podUID": "u9", "partitionId": "gpu1/0", "allocatedMemoryGB": 8}
    said = {"gpuSharing": {"node": "node-b", "partitionInfo": info, "assignments": {"u9": ELSEWHERE}}}
    turning = turning_with(POD, status=said | {"annotations": {"aimd.dev/partition": "node-b/gpu1/0"}})
    assert set(turning.sharing["assignments"]) == {"u1", "u9"}
    assert turning.sharing["partitionInfo"]["podUID"] == "u9"
    turning.turns(6)
    assert set(turning.sharing["assignments"]) == {"u1"}
    assert (turning.sharing["node"], turning.sharing["partitionInfo"]["podUID"]) == ("node-a", "u1")
    assert turning.cluster.objects.services[KEY]["status"]["annotations"] == {"aimd.dev/partition": "node-a/gpu0/0"}


def test_entries_of_pods_that_are_there_stay() -> None:
    turning = turning_with(POD, status={"gpuSharing": {"assignments": {"u9": ELSEWHERE}}})
    turning.cluster.objects.pods["default", "llama-9"] = "u9"
    turning.turns(2 * REFRESH_SECONDS, every=20)
    assert set(turning.sharing["assignments"]) == {"u1", "u9"}
    turning.cluster.objects.pods["default", "llama-9"] = "another"
    turning.turns(2 * REFRESH_SECONDS, every=20)
    assert set(turning.sharing["assignments"]) == {"u1"}


def test_entries_stay_while_it_cannot_be_asked_whether_their_pods_do() -> None:
    turning = turning_with(POD, status={"gpuSharing": {"assignments": {"u9": ELSEWHERE}}})
    turning.cluster.objects.failing["pod"] = UNREACHABLE
    turning.turns(2 * REFRESH_SECONDS, every=20)
    assert set(turning.sharing["assignments"]) == {"u1", "u9"}
    turning.cluster.objects.failing.clear()
    turning.cluster.retry()
    turning.turn()
    assert set(turning.sharing["assignments"]) == {"u1"}


def test_a_check_asks_after_the_pods_of_the_next_node_that_is_there() -> None:
    """So all nodes together ask for each pod once, however many there are."""
    nodes = {"u5": "node-b", "u6": "node-c", "u7": "node-c", "u8": "node-d"}
    entries = {uid: {**ELSEWHERE, "node": node, "pod": f"llama-{uid}"} for uid, node in nodes.items()}
    turning = turning_with(POD, status={"gpuSharing": {"assignments": entries}})
    for uid in ("u6", "u7", "u8"):
        turning.cluster.objects.pods["default", f"llama-{uid}"] = uid
    turning.turns(10)
    asked = [what for what in turning.cluster.objects.asked if what.startswith("pod ")]
    assert asked == ["pod default/llama-u5", "pod default/llama-u6", "pod default/llama-u7"]
    assert set(turning.sharing["assignments"]) == {"u1", "u6", "u7", "u8"}


def test_what_kserve_drops_after_a_pod_became_ready_is_put_back() -> None:
    turning = turning_with(replace(POD, version="1"))
    turning.turns(100, every=1)
    before, looked = len(turning.cluster.objects.patched), looks(turning)
    turning.cluster.the_pods = (replace(POD, version="2"),)
    turning.turns(2)
    assert looks(turning) == looked + 1
    assert len(turning.cluster.objects.patched) == before, "nothing is written that is there"
    del turning.cluster.objects.services[KEY]["status"]["gpuSharing"]  # KServe has seen that the pod is ready
    turning.turns(4)
    assert set(turning.sharing["assignments"]) == {"u1"}
    assert len(turning.cluster.objects.patched) == before + 1


def test_what_is_dropped_without_any_event_is_put_back_at_the_refresh() -> None:
    turning = turning_with(POD)
    turning.turns(100, every=1)
    del turning.cluster.objects.services[KEY]["status"]["gpuSharing"]
    turning.turns(1.3 * REFRESH_SECONDS, every=20)
    assert set(turning.sharing["assignments"]) == {"u1"}


def test_pods_that_change_all_the_time_cost_a_look_a_second_and_the_others_none() -> None:
    turning = turning_with(POD)
    turning.turns(100, every=1)
    looked = looks(turning)
    for number in range(100):
        turning.cluster.the_pods = (replace(POD, version=f"{number}"),)
        turning.turn(0.1)
    assert looks(turning) - looked <= 11
    turning.turns(10)
    looked = looks(turning)
    turning.turns(300, every=5)
    assert looks(turning) == looked


def test_pods_that_change_all_the_time_keep_no_check_from_coming() -> None:
    turning = turning_with(POD, status={"gpuSharing": {"assignments": {"u9": ELSEWHERE}}})
    turning.cluster.objects.pods["default", "llama-9"] = "u9"
    turning.turns(10)
    del turning.cluster.objects.pods["default", "llama-9"]
    for number in range(round(REFRESH_SECONDS / 4) + 10):
        turning.cluster.the_pods = (replace(POD, version=f"{number}"),)
        turning.turn(4)
    assert set(turning.sharing["assignments"]) == {"u1"}


def test_a_service_that_declares_something_is_looked_at_every_minute() -> None:
    turning = turning_with(POD, sharing={"enabled": True, "memoryLimitGB": 4})
    assert turning.made.ledger.claims["default/llama"].spec.memory_units == 4 * UNITS_PER_GB
    turning.turns(10)
    looked = looks(turning)
    turning.turns(180, every=1)
    assert looks(turning) == looked + 3
    turning.cluster.objects.services[KEY]["spec"]["gpuSharing"]["qosPriority"] = "high"
    turning.turns(61)
    assert turning.made.ledger.claims["default/llama"].spec.qos.value == "high"


def test_a_service_that_begins_to_declare_something_is_looked_at_every_minute_from_then_on() -> None:
    turning = turning_with(POD)
    turning.turns(100, every=1)
    turning.cluster.the_pods = (replace(POD, version="2"),)
    turning.turns(2)
    turning.cluster.objects.services[KEY]["spec"] = {"gpuSharing": {"qosPriority": "low"}}
    turning.turns(10)
    assert turning.made.ledger.claims["default/llama"].spec.qos.value == "low"
    turning.cluster.objects.services[KEY]["spec"]["gpuSharing"]["qosPriority"] = "high"
    turning.turns(61, every=1)
    assert turning.made.ledger.claims["default/llama"].spec.qos.value == "high"


def test_a_pod_of_a_service_that_declares_nothing_costs_a_look_and_a_check() -> None:
    turning = turning_with(POD)
    turning.turns(300, every=1)
    assert looks(turning) == 2 + 1  # and one to write


def test_a_new_pod_waits_until_its_service_was_read_after_it_came() -> None:
    turning = turning_with(POD, sharing={"enabled": True, "memoryLimitGB": 4})
    turning.cluster.objects.services[KEY]["spec"]["gpuSharing"]["memoryLimitGB"] = 6
    turning.cluster.objects.failing["service"] = UNREACHABLE
    turning.cluster.the_pods = (POD, pod(2))
    turning.turns(30)
    claim = turning.made.ledger.claims["default/llama"]
    assert [one.pod for one in claim.pods] == [POD.ref]
    assert claim.assignments
    turning.cluster.objects.failing.clear()
    turning.cluster.retry()
    turning.turn()
    claim = turning.made.ledger.claims["default/llama"]
    assert [(one.pod, one.asks.memory_units) for one in claim.pods][1] == (pod(2).ref, 6 * UNITS_PER_GB)
    assert [one.memory_units for one in claim.assignments] == [4 * UNITS_PER_GB, 6 * UNITS_PER_GB]


def test_a_service_that_cannot_be_read_holds_up_no_other() -> None:
    turning = turning_with(POD)
    turning.cluster.objects.failing["service"] = UNREACHABLE
    other = replace(pod(2), labels={})
    turning.cluster.the_pods = (POD, other, pod(3))
    turning.turn()
    assert turning.made.ledger.claims["pod/default/llama-2"].assignments
    assert (other.ref, "PartitionAssigned") in turning.cluster.told


def test_a_status_that_is_not_taken_is_told_again_when_a_pod_changes_and_at_the_refresh() -> None:
    turning = Turning(desk("CPX/NPS1"))
    turning.cluster.objects.services[KEY] = {"metadata": {"resourceVersion": "1"}}
    turning.cluster.the_pods = (POD,)
    turning.cluster.objects.failing["patch"] = InvalidInputError("status.gpuSharing is not as the CRD has it")
    key = "service default/llama"
    turning.turn()
    assert turning.cluster.dropped == [key]
    turning.turns(100, every=1)
    assert turning.cluster.dropped == [key] * 2, "at the check after the pod came, and no more"
    turning.cluster.the_pods = (replace(POD, version="2"),)
    turning.turns(100, every=1)
    assert turning.cluster.dropped == [key] * 4
    turning.turns(1.3 * REFRESH_SECONDS, every=20)
    assert turning.cluster.dropped == [key] * 5
    turning.cluster.objects.failing.clear()
    turning.turns(1.3 * REFRESH_SECONDS, every=20)
    assert set(turning.sharing["assignments"]) == {"u1"}


def test_a_write_of_what_was_seen_to_be_wrong_is_tried_again_where_it_is_not_accepted() -> None:
    turning = turning_with(POD)
    turning.turns(100, every=1)
    del turning.cluster.objects.services[KEY]["status"]["gpuSharing"]
    turning.cluster.full = {"service default/llama"}
    turning.cluster.the_pods = (replace(POD, version="2"),)
    turning.turns(100, every=1)
    turning.cluster.full.clear()
    turning.turn()
    assert set(turning.sharing["assignments"]) == {"u1"}


def test_a_check_that_was_lost_is_asked_for_again() -> None:
    turning = turning_with(POD, status={"gpuSharing": {"assignments": {"u9": ELSEWHERE}}})
    turning.cluster.objects.failing["pod"] = InvalidInputError("what is that")
    turning.turns(10)
    turning.cluster.objects.failing.clear()
    turning.turns(61)
    assert set(turning.sharing["assignments"]) == {"u1"}


def test_after_a_restart_a_mistake_stays_told_until_the_service_was_read() -> None:
    wrong = replace(POD, annotations=ON | {"aimd.dev/compute-mode": "XXX"})
    first = turning_with(wrong)
    assert first.sharing["assignments"]["u1"]["reason"] == "InvalidGpuSharing"
    again = Turning(first.made, first.cluster)
    first.cluster.objects.failing["service"] = UNREACHABLE
    again.turn()
    first.cluster.objects.failing.clear()
    patched = len(first.cluster.objects.patched)
    first.cluster.retry()
    again.turn()
    assert len(first.cluster.objects.patched) == patched


def test_what_neighbours_leave_is_told_a_little_later_once_for_all() -> None:
    turning = turning_with(POD, pod(2, labels=LLAMA_TOO))
    turning.turns(10)
    assert turning.sharing["partitionInfo"]["availableMemoryGB"] == 8
    patched, turning.cluster.written = len(turning.cluster.objects.patched), []
    more = [pod(number, labels=LLAMA_TOO, annotations=ON | {"aimd.dev/memory-limit-gb": "1"}) for number in range(3, 7)]
    for number in range(1, 5):
        turning.cluster.the_pods = (POD, pod(2, labels=LLAMA_TOO), *more[:number])
        turning.turn(0.5)
        assert turning.sharing["partitionInfo"]["availableMemoryGB"] == 8
    turning.turns(3)
    assert turning.sharing["partitionInfo"]["availableMemoryGB"] == 4
    assert len(turning.cluster.objects.patched) == patched + 1
    assert turning.cluster.written.count("service default/llama later") == 1
    assert "service default/llama" not in turning.cluster.written


def test_a_service_is_not_told_that_a_pod_waits_which_has_its_place_at_once() -> None:
    turning = turning_with(POD)
    assert len(turning.cluster.objects.patched) == 1
    turning.made.reconciler = Stuck(turning.made.reconciler)
    turning.cluster.the_pods = (POD, pod(2))
    turning.turn()
    assert len(turning.cluster.objects.patched) == 1
    turning.turn(2)
    assert turning.sharing["assignments"]["u2"]["reason"] == "Pending"


def test_a_service_of_many_pods_is_read_once_for_all() -> None:
    turning = turning_with(*(pod(number) for number in range(1, 21)))
    assert looks(turning) <= 4
    assert len(turning.sharing["assignments"]) == 20
