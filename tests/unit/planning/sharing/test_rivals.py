"""Other managers of partitions: how they are found, and that no mode is changed beside one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aimd.domain.claim import ClaimState, PodRequest
from aimd.domain.modes import PartitionMode
from aimd.domain.plan import PlanRefusedError, Reason
from aimd.domain.pod import PodRef
from aimd.planning import effects as fx
from aimd.planning.rooms import Repartition
from aimd.planning.sharing.desired import NodeSpec, node_spec, with_spec
from aimd.planning.sharing.rivals import rivals
from tests.fakes.claims import spec
from tests.unit.planning.desk import POLICY, Desk, desk

RIVALS = ("AMD's DRA driver publishes ResourceSlices for the node (gpu.amd.com)",)


def node(**metadata: Any) -> dict[str, Any]:
    return {"metadata": metadata, "status": {"capacity": {"cpu": "4", "aimd.dev/cpx": "8"}}}


@pytest.mark.parametrize(
    ("item", "slices", "words"),
    [
        (None, [], ()),
        (node(labels={"kubernetes.io/os": "linux"}), [{"spec": {"driver": "gpu.aimd.dev"}}], ()),
        (
            node(labels={"dcm.amd.com/gpu-config-profile-state": "success"}),
            [],
            ("AMD's Device Config Manager has labelled the node (dcm.amd.com/gpu-config-profile-state)",),
        ),
        (node(), [{"spec": {"driver": "gpu.amd.com"}}], RIVALS),
        (
            {"status": {"capacity": {"amd.com/gpu": "8"}}},
            [],
            ("a device plugin offers amd.com/gpu on the node",),
        ),
        ({"status": {"capacity": {"amd.com/gpu": "0"}}}, [], ()),
        (
            node(annotations={"hami.io/node-amdgpu-register": "x", "hami.io/node-nvidia-register": "y"}),
            [],
            ("HAMi has registered AMD GPUs of the node (hami.io/node-amdgpu-register)",),
        ),
    ],
)
def test_who_else_manages_partitions(item: Any, slices: Any, words: tuple[str, ...]) -> None:
    assert rivals(item, slices) == words


# -- beside one ----------------------------------------------------------------------------------------------------


def beside(made: Desk, *found: str) -> None:
    made.tell(fx.Reconfigured(replace(POLICY, rivals=found), {}, "", "", {}))
    made.run()


def test_no_change_is_planned_beside_another_manager() -> None:
    made = desk("SPX/NPS1")
    beside(made, *RIVALS)
    answer = made.submit((0, "CPX"))
    assert isinstance(answer, PlanRefusedError)
    assert (answer.code, RIVALS[0] in answer.message) == ("conflicting_manager", True)
    assert made.ledger.changes == {}
    beside(made)
    assert made.change((0, "CPX")).switches


def test_a_claim_takes_the_partitions_that_are_there() -> None:
    made = desk("SPX/NPS1", "CPX/NPS1")
    beside(made, *RIVALS)
    made.claim("small", spec(24, "CPX"))
    assert made.ledger.claims["small"].state is ClaimState.PLACED
    assert getattr(made.claim("other", spec(24, "DPX")), "code", None) == "conflicting_manager"
    made.tell(fx.PodsSeen((PodRequest(PodRef("default", "p", "u"), "default/p", spec(24, "DPX")),)))
    made.run()
    assert made.ledger.claims["default/p"].reason is Reason.CONFLICTING_MANAGER
    assert made.ledger.changes == {}


def test_a_wish_rests_and_is_carried_out_afterwards() -> None:
    made = desk("SPX/NPS1")
    layout = {"default": PartitionMode.parse("CPX")}
    made.tell(fx.Reconfigured(replace(POLICY, rivals=RIVALS), layout, "d1", "", {}))
    made.run()
    made.poll()
    assert made.ledger.changes == {}
    made.tell(fx.Reconfigured(POLICY, layout, "d1", "d1", layout))
    made.run()
    assert [str(status.gpu.mode) for status in made.snapshot.gpus] == ["CPX/NPS1"]


# -- what the cluster asks of the node ------------------------------------------------------------------------------


def test_a_spec() -> None:
    found = node_spec({"layout": {"default": "SPX/NPS1", "gpu0": "CPX"}, "policy": {"repartition": "never"}})
    assert found == NodeSpec(
        {"default": PartitionMode.parse("SPX/NPS1"), "gpu0": PartitionMode.parse("CPX")}, Repartition.NEVER
    )
    assert with_spec(POLICY, found, ()).repartition is Repartition.NEVER


@pytest.mark.parametrize("item", [None, {}, {"policy": {}}])
def test_without_a_layout_the_nodes_own_counts(item: Any) -> None:
    assert node_spec(item) == NodeSpec()
    assert with_spec(POLICY, node_spec(item), RIVALS) == replace(POLICY, rivals=RIVALS)


def test_an_empty_layout_is_one() -> None:
    assert node_spec({"layout": {}}).layout == {}


def test_every_mistake_is_told_and_nothing_is_carried_out() -> None:
    found = node_spec({"layout": {"first": "SPX", "gpu0": "EPX"}, "policy": {"repartition": "always"}})
    assert (found.layout, found.repartition) == (None, None)
    assert found.mistakes[0] == "layout names first, expected default, gpu0, gpu1, ... or a PCI address"
    assert found.mistakes[1].startswith("layout.gpu0: mode 'EPX' names 'EPX', which is no partition mode")
    assert found.mistakes[2] == "policy.repartition is 'always', expected never or when-idle"
