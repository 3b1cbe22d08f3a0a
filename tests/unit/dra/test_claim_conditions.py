"""What a claim's status says of devices that a pod waits for."""

from __future__ import annotations

from typing import Any

import pytest

from aimd.planning.dra.conditions import LONGEST_MESSAGE, Outcome, Readiness, device_entries
from tests.unit.dra.claims import CONDITIONS, claim, result
from tests.unit.dra.nodes import NODE

T0, T1 = "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"
WAITING = Outcome(Readiness.WAITING, "Draining", "change c1: gpu0 SPX/NPS1 -> CPX/NPS1: pid 7 is still there")
READY = Outcome(Readiness.READY, "Partitioned", "gpu0 is in CPX/NPS1")
FAILED = Outcome(Readiness.FAILED, "GpuBusy", "gpu0 is held by pid 7 (python train.py)")
NAME = "gpu0-cpx-3"


def waiting_claim(*more: dict[str, Any], **status: Any) -> dict[str, Any]:
    return claim(result(NAME, **CONDITIONS), *more, **status)


def told(item: dict[str, Any], now: str = T0, **outcomes: Outcome) -> tuple[dict[str, Any], ...] | None:
    return device_entries(item, NODE, {name.replace("_", "-"): each for name, each in outcomes.items()}, now)


def statuses(entries: tuple[dict[str, Any], ...] | None) -> dict[str, str]:
    assert entries is not None
    return {each["type"].partition("/")[2]: each["status"] for each in entries[0]["conditions"]}


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (WAITING, {"partition-ready": "False"}),
        (READY, {"partition-ready": "True"}),
        (FAILED, {"partition-ready": "False", "partition-failed": "True"}),
    ],
)
def test_what_is_told_first(outcome: Outcome, expected: dict[str, str]) -> None:
    assert statuses(told(waiting_claim(), gpu0_cpx_3=outcome)) == expected


def test_an_entry_in_full() -> None:
    assert told(waiting_claim(), gpu0_cpx_3=READY) == (
        {
            "driver": "gpu.aimd.dev",
            "pool": NODE,
            "device": NAME,
            "shareID": f"share-{NAME}",
            "conditions": [
                {
                    "type": "gpu.aimd.dev/partition-ready",
                    "status": "True",
                    "reason": "Partitioned",
                    "message": "gpu0 is in CPX/NPS1",
                    "lastTransitionTime": T0,
                }
            ],
        },
    )


def test_what_was_told_is_not_told_again() -> None:
    entries = told(waiting_claim(), gpu0_cpx_3=WAITING)
    assert told(waiting_claim(devices=list(entries or ())), T1, gpu0_cpx_3=WAITING) is None


def test_a_time_is_that_of_the_turn() -> None:
    entries = told(waiting_claim(), gpu0_cpx_3=WAITING)
    further = told(waiting_claim(devices=list(entries or ())), T1, gpu0_cpx_3=FAILED)
    assert further is not None
    times = {each["type"].partition("/")[2]: each["lastTransitionTime"] for each in further[0]["conditions"]}
    assert times == {"partition-ready": T0, "partition-failed": T1}
    ready = told(waiting_claim(devices=list(further)), "later", gpu0_cpx_3=READY)
    assert statuses(ready) == {"partition-ready": "True", "partition-failed": "False"}
    assert ready is not None
    assert {each["lastTransitionTime"] for each in ready[0]["conditions"]} == {"later"}


def test_only_devices_that_are_waited_for_have_an_entry() -> None:
    assert told(claim(result(NAME)), gpu0_cpx_3=READY) is None
    entries = told(waiting_claim(result("gpu0-cpx-4", "other")), gpu0_cpx_3=READY, gpu0_cpx_4=READY)
    assert [each["device"] for each in entries or ()] == [NAME]


def test_other_devices_of_ours_keep_what_was_said_of_them() -> None:
    """Entries that are left out would be removed: they are one manager's."""
    other = result("gpu1-cpx-0", "other", **CONDITIONS)
    first = told(waiting_claim(other), gpu0_cpx_3=READY)
    second = told(waiting_claim(other, devices=list(first or ())), T1, gpu1_cpx_0=FAILED)
    assert second is not None
    assert [each["device"] for each in second] == [NAME, "gpu1-cpx-0"]
    assert statuses(second) == {"partition-ready": "True"}


def test_what_was_said_of_an_earlier_share_does_not_count() -> None:
    entries = told(waiting_claim(), gpu0_cpx_3=FAILED)
    again = claim(result(NAME, **CONDITIONS) | {"shareID": "another"}, devices=list(entries or ()))
    found = told(again, T1, gpu0_cpx_3=WAITING)
    assert statuses(found) == {"partition-ready": "False"}
    assert [each["shareID"] for each in found or ()] == ["another"]


def test_conditions_and_entries_of_others_are_left_to_them() -> None:
    theirs = {"type": "Ready", "status": "True", "reason": "x", "message": "", "lastTransitionTime": T0}
    entry = {"driver": "gpu.aimd.dev", "pool": NODE, "device": NAME, "shareID": f"share-{NAME}", "conditions": [theirs]}
    nic = {"driver": "nic.example.com", "pool": NODE, "device": "nic0", "conditions": [theirs]}
    found = told(waiting_claim(devices=[entry, nic]), gpu0_cpx_3=READY)
    assert found is not None
    assert len(found) == 1
    assert statuses(found) == {"partition-ready": "True"}


def test_without_an_allocation_or_an_outcome_there_is_nothing_to_tell() -> None:
    assert told({"metadata": {}}, gpu0_cpx_3=READY) is None
    assert told(waiting_claim()) is None
    assert told(waiting_claim(), gpu0_cpx_4=READY) is None


def test_a_device_without_a_share_has_none() -> None:
    item = claim({key: value for key, value in result(NAME, **CONDITIONS).items() if key != "shareID"})
    (entry,) = told(item, gpu0_cpx_3=READY) or ()
    assert "shareID" not in entry


def test_a_long_message_is_cut() -> None:
    long = Outcome(Readiness.FAILED, "GpuBusy", "x" * 5000)
    (entry,) = told(waiting_claim(), gpu0_cpx_3=long) or ()
    assert all(len(each["message"]) == LONGEST_MESSAGE for each in entry["conditions"])
