"""What is answered to pods, from what the node has become by what they asked."""

from __future__ import annotations

from dataclasses import replace

from aimd.domain.claim import DeviceShare, PartitionRef, PodRequest
from aimd.domain.pod import Owner, Pod, PodRef
from aimd.planning import effects as fx
from aimd.planning.sharing.answers import Answer, Place, answers
from aimd.planning.sharing.requests import requests_of, with_devices
from tests.fakes.claims import spec
from tests.unit.planning.desk import POLICY, Desk, desk
from tests.unit.planning.paper import ADDRESSES

SERVICE = {"serving.kserve.io/inferenceservice": "llama"}


def pod(number: int, memory: str = "8", **more: str) -> Pod:
    said = {
        "gpu-sharing": "enabled",
        "memory-limit-gb": memory,
        **{key.replace("_", "-"): v for key, v in more.items()},
    }
    annotations = {f"aimd.dev/{name}": value for name, value in said.items()}
    return Pod(PodRef("default", f"llama-{number}", f"u{number}"), SERVICE, annotations, created=f"{number}")


def told(made: Desk, *pods: Pod, declared: dict | None = None) -> dict[str, Answer]:
    """The answers after the node has seen these pods."""
    found = requests_of(pods, declared or {}, lambda gpu: made.snapshot.find(gpu).gpu.pci_address)
    made.tell(fx.PodsSeen(found.requests))
    made.run()
    return {ref.uid: answer for ref, answer in answers(made.snapshot, found).items()}


def test_a_place_with_what_is_left_there() -> None:
    found = told(desk("CPX/NPS1"), pod(1, partition_id="gpu0/3"), pod(2, "1.5", partition_id="gpu0/3"))
    assert found["u1"].place == Place("gpu0/3", "CPX", "NPS1", 24, 8, 14.5)
    assert found["u2"].place == Place("gpu0/3", "CPX", "NPS1", 24, 1.5, 14.5)


def test_what_processes_keep_that_go_on_without_their_claim_is_not_left() -> None:
    made = desk("CPX/NPS1")
    made.claim("local", spec(10, at=(ADDRESSES[0], 3)))
    made.join("local", 7)
    made.release("local")
    found = told(made, pod(1, partition_id="gpu0/3"))
    assert found["u1"].place == Place("gpu0/3", "CPX", "NPS1", 24, 8, 6)


def test_two_models_share_a_partition() -> None:
    other = replace(pod(2, "12", partition_id="gpu0/3"), labels={"serving.kserve.io/inferenceservice": "embed"})
    found = told(desk("CPX/NPS1"), pod(1, partition_id="gpu0/3"), other)
    assert found["u1"].place == Place("gpu0/3", "CPX", "NPS1", 24, 8, 4)
    assert found["u2"].place == Place("gpu0/3", "CPX", "NPS1", 24, 12, 4)


def test_who_does_not_fit_is_told_why() -> None:
    found = told(desk("CPX/NPS1", policy=replace(POLICY, repartition=False)), pod(1, "25"))
    assert found["u1"].place is None
    assert found["u1"].reason in ("MemoryTooLarge", "NoRoom")
    assert "25" in (found["u1"].message or "")


def test_while_its_gpu_is_switched_a_pod_waits() -> None:
    made = desk("SPX/NPS1")
    asked = requests_of([pod(1, compute_mode="CPX")], {}, str)
    made.tell(fx.PodsSeen(asked.requests))
    (answer,) = answers(made.snapshot, asked).values()
    assert (answer.place, answer.reason) == (None, "Switching")
    assert "makes room for it" in (answer.message or "")
    made.run()
    (answer,) = answers(made.snapshot, asked).values()
    assert answer.place is not None


def test_while_a_gpu_is_switched_for_another_pod_of_the_service_a_place_is_told_on() -> None:
    made = desk("CPX/NPS1", "SPX/NPS1")
    told(made, pod(1))
    asked = requests_of([pod(1), pod(2, compute_mode="QPX")], {}, str)
    made.tell(fx.PodsSeen(asked.requests))
    found = {ref.uid: answer for ref, answer in answers(made.snapshot, asked).items()}
    assert found["u1"].place is not None
    assert found["u2"].reason == "Switching"


def test_pods_of_devices_are_answered_and_ask_for_nothing_themselves() -> None:
    made = desk("CPX/NPS1")
    ours, strangers = replace(pod(1), resource_claims=("gpu",)), replace(pod(2), resource_claims=("nic",))
    spec_of_claim = replace(spec(8, "CPX"), partition=PartitionRef(5, ADDRESSES[0]))
    share = DeviceShare("gpu", "claim-uid", "gpu", "gpu0-cpx-5", "share")
    made.tell(fx.DevicesTaken(1, "claim-uid", (PodRequest(ours.ref, "default/llama", spec_of_claim, "1", share),)))
    made.run()
    asked = requests_of([ours, strangers], {}, str, made.snapshot.claims, by_device=lambda one: one is ours)
    assert [request.pod for request in asked.requests] == [strangers.ref]
    made.tell(fx.PodsSeen(asked.requests))
    found = answers(made.snapshot, with_devices(asked, [ours, strangers], made.snapshot.claims))
    assert found[ours.ref].place == Place("gpu0/5", "CPX", "NPS1", 24, 8, 8), "the other one is beside it"
    assert found[strangers.ref].place is not None


def test_a_pod_of_which_it_is_not_known_yet_whose_its_claims_are_keeps_what_it_has() -> None:
    made = desk("CPX/NPS1")
    told(made, pod(1))
    unknown = requests_of([pod(1), pod(2)], {}, str, made.snapshot.claims, by_device=lambda _pod: True)
    assert [request.pod.uid for request in unknown.requests] == ["u1"]


def test_a_mistake_is_the_answer() -> None:
    found = told(desk("CPX/NPS1"), pod(1, qos_priority="urgent"), pod(2))
    assert found["u1"].reason == "InvalidGpuSharing"
    assert found["u1"].message == "annotation aimd.dev/qos-priority is 'urgent', expected high, medium or low"
    assert found["u2"].place is not None


def test_a_name_that_is_taken() -> None:
    made = desk("CPX/NPS1")
    made.claim("default/llama", spec(4))
    found = told(made, pod(1))
    assert found["u1"].reason == "NameTaken"


def test_before_the_node_has_come_to_it() -> None:
    made = desk("CPX/NPS1")
    asked = requests_of([pod(1)], {}, str)
    assert [one.reason for one in answers(made.snapshot, asked).values()] == ["Pending"]


# -- who asks --------------------------------------------------------------------------------------------------------


def test_pods_that_have_ended_ask_for_nothing_those_that_are_ending_still_do() -> None:
    pods = [replace(pod(1), phase="Succeeded"), replace(pod(2), phase="Failed"), replace(pod(3), deleting=True)]
    assert [one.pod.uid for one in requests_of(pods, {}, str).requests] == ["u3"]


def test_a_pod_that_has_its_place_keeps_it_whatever_it_says_now() -> None:
    made = desk("CPX/NPS1")
    before = told(made, pod(1))["u1"]
    wrong = pod(1, qos_priority="urgent")
    found = requests_of([wrong], {}, str, made.snapshot.claims)
    assert [one.pod.uid for one in found.requests] == ["u1"]
    assert [one.ref.uid for one, _ in found.refused] == ["u1"]
    made.tell(fx.PodsSeen(found.requests))
    assert answers(made.snapshot, found)[wrong.ref] == before


def test_pods_of_a_service_that_is_not_known_yet_wait_and_lose_nothing() -> None:
    made = desk("CPX/NPS1")
    told(made, pod(1))
    key = ("default", "llama")
    found = requests_of([pod(1), pod(2)], {}, str, made.snapshot.claims, {key})
    assert [one.pod.uid for one in found.requests] == ["u1"]
    assert found.refused == ()


def test_what_the_service_declares_counts_for_its_pods() -> None:
    plain = Pod(PodRef("default", "p", "u"), SERVICE)
    declared = {("default", "llama"): {"enabled": True, "memoryLimitGB": 3}, ("other", "llama"): None}
    (request,) = requests_of([plain, Pod(PodRef("other", "p", "v"), SERVICE)], declared, str).requests
    assert (request.model, request.spec.memory_units) == ("default/llama", 3072)


def test_a_plain_deployments_pod_asks_by_annotations_alone() -> None:
    owned = replace(pod(1), labels={"pod-template-hash": "h"}, owners=(Owner("ReplicaSet", "web-h", "r"),))
    (request,) = requests_of([owned], {("default", "llama"): {"enabled": False}}, str).requests
    assert request.model == "deployment/default/web"


def test_a_model_whose_name_is_too_long_is_refused() -> None:
    long = replace(pod(1), labels={}, owners=(Owner("StatefulSet", "x" * 250, "s"),))
    ((_, refused),) = requests_of([long], {}, str).refused
    assert "has 270 bytes, expected at most 253" in refused.message
