"""The status of InferenceServices: a patch says what changes, and nodes that write in any order come to the same."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aimd.domain.pod import PodRef
from aimd.planning.sharing.answers import Answer, Place
from aimd.planning.sharing.service_status import is_gone, others, service_patch
from tests.fakes.kube_api import merged

T1, T2, T3 = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"
PLACE = Place("gpu0/3", "CPX", "NPS1", 24, 8, 16)
OTHER = Place("gpu1/0", "SPX", "NPS1", 192, 100.5, 91.5)


def pod(uid: str) -> PodRef:
    return PodRef("default", f"llama-{uid}", uid)


def placed(uid: str, place: Place = PLACE) -> Answer:
    return Answer(pod(uid), place)


def waiting(uid: str, reason: str = "NoRoom", message: str = "no partition has 8 GB left") -> Answer:
    return Answer(pod(uid), None, reason, message)


class Api:
    """One object of the API server."""

    def __init__(self, **status: Any) -> None:
        self.object: dict[str, Any] = {"metadata": {"resourceVersion": "1", "generation": 3}, "status": status}
        self.writes = 0

    def write(self, patch: dict[str, Any] | None) -> bool:
        if patch is None:
            return False
        assert patch["metadata"] == {"resourceVersion": self.object["metadata"]["resourceVersion"]}
        assert set(patch) == {"metadata", "status"}
        self.writes += 1
        metadata = {**self.object["metadata"], "resourceVersion": str(self.writes + 1)}
        self.object = {**self.object, "metadata": metadata, "status": merged(self.object["status"], patch["status"])}
        return True

    def tell(self, node: str, *answers: Answer, now: str = T1) -> bool:
        before = copy.deepcopy(self.object)
        patch = service_patch(self.object, node, answers, now)
        assert self.object == before, "nothing is changed in place"
        return self.write(patch)

    @property
    def sharing(self) -> Any:
        return self.object["status"].get("gpuSharing")

    @property
    def condition(self) -> Any:
        return next(c for c in self.object["status"]["conditions"] if c["type"] == "GPUPartitionAssigned")


def test_a_placed_pod() -> None:
    api = Api()
    assert api.tell("node-a", placed("u1"))
    info = {
        "partitionId": "gpu0/3",
        "computeMode": "CPX",
        "memoryMode": "NPS1",
        "partitionSizeGB": 24,
        "allocatedMemoryGB": 8,
        "availableMemoryGB": 16,
    }
    assert api.sharing == {
        "node": "node-a",
        "partitionInfo": info | {"podUID": "u1"},
        "assignments": {"u1": info | {"pod": "llama-u1", "node": "node-a"}},
    }
    assert api.object["status"]["annotations"] == {"aimd.dev/partition": "node-a/gpu0/3"}
    assert api.condition == {
        "type": "GPUPartitionAssigned",
        "status": "True",
        "reason": "Assigned",
        "message": "1 pod on node-a/gpu0/3",
        "lastTransitionTime": T1,
        "observedGeneration": 3,
    }


def test_what_is_said_already_is_not_written() -> None:
    api = Api()
    api.tell("node-a", placed("u1"), waiting("u2"))
    assert not api.tell("node-a", placed("u1"), waiting("u2"), now=T2)


def test_a_service_without_pods_that_ask_is_left_alone() -> None:
    assert not Api(conditions=[{"type": "Ready", "status": "True"}]).tell("node-a")


def test_other_conditions_and_annotations_stay() -> None:
    ready = {"type": "Ready", "status": "True"}
    api = Api(conditions=[ready], annotations={"x": "y"}, url="http://llama")
    api.tell("node-a", placed("u1"))
    assert api.object["status"]["conditions"][0] == ready
    assert len(api.object["status"]["conditions"]) == 2
    assert api.object["status"]["annotations"]["x"] == "y"
    assert api.object["status"]["url"] == "http://llama"


def test_time_of_a_condition_moves_only_when_it_flips() -> None:
    api = Api()
    api.tell("node-a", placed("u1"), now=T1)
    api.tell("node-a", placed("u1", OTHER), now=T2)
    assert (api.condition["status"], api.condition["lastTransitionTime"]) == ("True", T1)
    api.tell("node-a", waiting("u1"), now=T3)
    assert (api.condition["status"], api.condition["lastTransitionTime"]) == ("False", T3)


def test_a_pod_that_waits_makes_the_condition_false_and_is_named() -> None:
    api = Api()
    api.tell("node-a", placed("u1"), waiting("u2"), waiting("u3"))
    assert (api.condition["status"], api.condition["reason"]) == ("False", "NoRoom")
    assert api.condition["message"] == "pod llama-u2 on node-a: no partition has 8 GB left (and 1 more pods)"
    assert api.sharing["partitionInfo"]["podUID"] == "u1"


def test_a_released_pod_is_removed_and_its_old_words_with_it() -> None:
    api = Api()
    api.tell("node-a", waiting("u1"), placed("u2"))
    api.tell("node-a", placed("u1"))
    assert set(api.sharing["assignments"]) == {"u1"}
    assert "reason" not in api.sharing["assignments"]["u1"]
    assert api.sharing["partitionInfo"]["podUID"] == "u1"


def test_when_the_last_pod_is_gone_nothing_is_claimed_any_more() -> None:
    api = Api(annotations={"x": "y"})
    api.tell("node-a", placed("u1"), now=T1)
    api.tell("node-a", now=T2)
    assert api.sharing is None
    assert api.object["status"]["annotations"] == {"x": "y"}
    assert (api.condition["status"], api.condition["reason"], api.condition["lastTransitionTime"]) == (
        "False",
        "NoPods",
        T2,
    )
    assert not api.tell("node-a", now=T3)


def test_two_nodes_write_one_object() -> None:
    api = Api()
    api.tell("node-a", placed("u1"))
    api.tell("node-b", placed("u2", OTHER))
    assert set(api.sharing["assignments"]) == {"u1", "u2"}
    assert api.sharing["node"] == "node-a", "the summary stays"
    assert not api.tell("node-a", placed("u1"))
    api.tell("node-a")
    assert set(api.sharing["assignments"]) == {"u2"}
    assert (api.sharing["node"], api.sharing["partitionInfo"]["partitionId"]) == ("node-b", "gpu1/0")
    assert api.sharing["partitionInfo"]["podUID"] == "u2"


def test_the_summary_stays_with_the_pod_that_it_was_of() -> None:
    api = Api()
    api.tell("node-b", placed("u2", OTHER))
    api.tell("node-a", placed("u1"))
    assert (api.sharing["node"], api.sharing["partitionInfo"]["podUID"]) == ("node-b", "u2")


def test_a_waiting_pod_elsewhere_keeps_the_condition_false() -> None:
    api = Api()
    api.tell("node-b", waiting("u2"))
    api.tell("node-a", placed("u1"))
    assert api.condition["status"] == "False"
    api.tell("node-b", placed("u2"))
    assert api.condition["status"] == "True"


def test_entries_of_pods_that_are_no_more_are_removed_wherever_they_were() -> None:
    api = Api()
    api.tell("node-a", placed("u1"))
    api.tell("node-b", placed("u2"))
    assert service_patch(api.object, "node-b", [placed("u2")], T2, ["u9"]) is None
    api.write(service_patch(api.object, "node-b", [placed("u2")], T2, ["u1"]))
    assert set(api.sharing["assignments"]) == {"u2"}
    assert (api.sharing["node"], api.sharing["partitionInfo"]["podUID"]) == ("node-b", "u2")
    assert api.object["status"]["annotations"] == {"aimd.dev/partition": "node-b/gpu0/3"}
    assert api.condition["message"] == "1 pod on node-b/gpu0/3"


def test_a_waiting_pod_that_is_no_more_keeps_the_condition_false_no_longer() -> None:
    api = Api()
    api.tell("node-a", waiting("u1"))
    api.tell("node-b", placed("u2"))
    assert api.condition["status"] == "False"
    api.write(service_patch(api.object, "node-b", [placed("u2")], T2, ["u1"]))
    assert (api.condition["status"], api.condition["lastTransitionTime"]) == ("True", T2)


def test_a_pod_is_gone_when_another_has_its_name() -> None:
    assert is_gone(None, "u1")
    assert is_gone({"metadata": {"uid": "u2"}}, "u1")
    assert not is_gone({"metadata": {"uid": "u1"}}, "u1")


def test_what_is_no_entry_is_not_asked_after() -> None:
    entries = {"u1": {"node": "node-b"}, "u2": {"pod": "x"}, "u3": {"node": "node-a", "pod": "own"}}
    assert others({"status": {"gpuSharing": {"assignments": entries}}}, "node-a") == ()
    assert others({}, "node-a") == ()


def test_what_kserve_drops_of_a_condition_is_no_news() -> None:
    api = Api()
    api.tell("node-a", placed("u1"))
    del api.condition["observedGeneration"]
    assert not api.tell("node-a", placed("u1"), now=T2)


def test_an_edited_service_is_told_that_this_is_about_its_edition() -> None:
    api = Api()
    api.tell("node-a", placed("u1"))
    api.object["metadata"]["generation"] = 4
    assert api.tell("node-a", placed("u1"), now=T2)
    assert (api.condition["observedGeneration"], api.condition["lastTransitionTime"]) == (4, T1)


def test_what_kserve_drops_of_the_status_is_written_again() -> None:
    api = Api()
    api.tell("node-a", placed("u1"))
    full = copy.deepcopy(api.sharing)
    del api.object["status"]["gpuSharing"]
    assert api.tell("node-a", placed("u1"), now=T2)
    assert api.sharing == full
    assert api.condition["lastTransitionTime"] == T1


def test_a_size_that_is_not_known_is_absent() -> None:
    api = Api()
    api.tell("node-a", placed("u1", Place("gpu0/0", None, None, None, 8, None)))
    assert api.sharing["assignments"]["u1"] == {
        "pod": "llama-u1",
        "node": "node-a",
        "partitionId": "gpu0/0",
        "allocatedMemoryGB": 8,
    }


answer = st.sampled_from([None, PLACE, OTHER])
nodes = st.sampled_from(["node-a", "node-b", "node-c"])


@given(st.lists(st.tuples(nodes, st.dictionaries(st.sampled_from("xyz"), answer, max_size=3)), max_size=12))
def test_nodes_that_write_in_any_order_end_with_what_each_said_last(told: list[tuple[str, dict[str, Any]]]) -> None:
    api, last = Api(), {}
    for node, answers in told:
        last[node] = [placed(node + uid, p) if p else waiting(node + uid) for uid, p in sorted(answers.items())]
        api.tell(node, *last[node])
        assert not api.tell(node, *last[node], now=T2), "once is enough"
    entries = {one.pod.uid: one.told(node) for node, answers in last.items() for one in answers}
    assert (api.sharing or {}).get("assignments", {}) == entries
    if entries:
        assert (api.condition["status"] == "True") == all("partitionId" in entry for entry in entries.values())
    places = {uid for uid, entry in entries.items() if "partitionId" in entry}
    summarised = ((api.sharing or {}).get("partitionInfo") or {}).get("podUID")
    assert (summarised in places) if places else summarised is None


@given(st.sets(st.sampled_from("abcdefgh"), min_size=1), st.sets(st.sampled_from("abcdefgh")), st.integers(1, 3))
def test_nodes_that_are_there_find_all_that_is_gone_and_ask_for_each_pod_once(
    nodes: set[str], away: set[str], pods: int
) -> None:
    api = Api()
    for node in sorted(nodes):
        api.tell(node, *(placed(f"{node}{number}") for number in range(pods)))
    asked: list[str] = []
    found: set[str] = set()
    for node in sorted(nodes - away):
        for group in others(api.object, node):
            asked += group
            gone = {uid for uid, name in group.items() if name[6] in away}
            found |= gone
            if len(gone) < len(group):
                break
    expected = {uid for uid in api.sharing["assignments"] if uid[0] in away}
    assert found == (expected if nodes - away else set())
    assert len(asked) == len(set(asked))
