"""How the devices of a node are, as pods that have them are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from aimd.domain.gpu import GpuState
from aimd.planning.dra.health import health
from tests.unit.dra.nodes import NODE, on_paper, with_gpu


def told(**changes: Any) -> dict[str, tuple[bool | None, str]]:
    snapshot = on_paper("CPX")
    snapshot = with_gpu(snapshot, 0, gpu=replace(snapshot.gpus[0].gpu, **changes))
    found = health(snapshot, NODE)
    assert {each.pool for each in found} == {NODE}
    return {each.device: (each.healthy, each.message) for each in found}


def test_partitions_that_are_there_are_well_and_of_other_modes_nobody_knows() -> None:
    found = told()
    assert found["gpu0-cpx-3"] == (True, "")
    assert found["gpu0-spx-0"] == (None, "gpu0 is in CPX")
    assert len(found) == 15


def test_a_gpu_in_reset() -> None:
    assert {healthy for healthy, _ in told(in_reset=True).values()} == {False}
    assert told(in_reset=True)["gpu0-cpx-3"][1] == "gpu0 is being reset"


@pytest.mark.parametrize("absence", [GpuState.LOST, GpuState.HIDDEN, GpuState.GONE])
def test_a_gpu_without_partitions(absence: GpuState) -> None:
    found = told(partitions=(), absence=absence)
    assert found["gpu0-cpx-3"] == (False, f"gpu0 is {absence}")


def test_a_partition_that_is_missing() -> None:
    partitions = tuple(one for one in on_paper("CPX").gpus[0].gpu.partitions if one.index != 3)
    found = told(partitions=partitions)
    assert found["gpu0-cpx-3"] == (False, "gpu0 lacks partition 3")
    assert found["gpu0-cpx-4"] == (True, "")
