"""Whether a switch had its effect: by partitions, their XCCs and sizes, not by the mode file alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aimd.domain.modes import ComputeMode
from aimd.planning.switching import SwitchEvent
from aimd.planning.verify import absent_members, in_mode, missing_partitions, verify
from tests.unit.planning.paper import GIB, compute_step, gpu, memory_step, observed

UNKNOWN = 0xFFFF
TO_CPX = compute_step("SPX/NPS1", "CPX/NPS1")


def with_sizes(made, *sizes):
    """The GPU with these partition sizes, the last one repeated."""
    all_sizes = [*sizes, *[sizes[-1]] * (len(made.partitions) - len(sizes))]
    partitions = tuple(replace(p, memory_bytes=size) for p, size in zip(made.partitions, all_sizes, strict=True))
    return replace(made, partitions=partitions)


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (gpu(0, "CPX/NPS1"), SwitchEvent.VERIFIED),
        (gpu(0, "CPX/NPS1", file=None), SwitchEvent.VERIFIED),  # the file cannot be read, in reset
        (gpu(0, "SPX/NPS1"), SwitchEvent.UNCHANGED),
        (gpu(0, "SPX/NPS1", file="CPX"), SwitchEvent.MISMATCH),  # the firmware refused in silence
        (gpu(0, "CPX/NPS1", file="SPX"), SwitchEvent.MISMATCH),
        (gpu(0, "QPX/NPS1"), SwitchEvent.MISMATCH),
        (gpu(0, "CPX/NPS1", partitions=0), SwitchEvent.BROKEN),
        (gpu(1, "CPX/NPS1"), SwitchEvent.BROKEN),  # another GPU: this one is gone
    ],
    ids=[
        "new",
        "file unreadable",
        "old",
        "file new, nodes old",
        "file old, nodes new",
        "a third",
        "no nodes",
        "no GPU",
    ],
)
def test_verdict_of_a_compute_switch(made, verdict):
    assert verify(TO_CPX, observed(made)) is verdict


@pytest.mark.parametrize(
    ("modes", "verdict"),
    [
        (("CPX/NPS4", "CPX/NPS4"), SwitchEvent.VERIFIED),
        (("SPX/NPS1", "DPX/NPS1"), SwitchEvent.UNCHANGED),
        (("CPX/NPS4", "SPX/NPS1"), SwitchEvent.MISMATCH),
        (("DPX/NPS2", "DPX/NPS2"), SwitchEvent.MISMATCH),
        (("CPX/NPS4",), SwitchEvent.UNSTABLE),
        (("SPX/NPS1",), SwitchEvent.UNSTABLE),
    ],
    ids=["new", "old", "half the hive", "a third", "a member is yet to come", "so it is, and one is old"],
)
def test_verdict_of_a_memory_mode(modes, verdict):
    gpus = [gpu(number, text) for number, text in enumerate(modes)]
    assert verify(memory_step(), observed(*gpus)) is verdict


@pytest.mark.parametrize(
    "member",
    [gpu(1, "SPX/NPS1", partitions=0), gpu(1, "CPX/NPS4", partitions=0), replace(gpu(1, "CPX/NPS4"), memory_mode=None)],
    ids=["without partitions, old mode remembered", "without partitions", "memory mode unreadable"],
)
def test_a_member_that_is_not_wholly_there_keeps_the_verdict_open(member):
    assert verify(memory_step(), observed(gpu(0, "CPX/NPS4"), member)) is SwitchEvent.UNSTABLE
    assert absent_members(memory_step(), observed(gpu(0, "CPX/NPS4"), member)) == [member.pci_address]


def test_partitions_decide_even_where_another_gpu_is_as_wished():
    assert verify(TO_CPX, observed(gpu(0), gpu(1, "CPX/NPS1"))) is SwitchEvent.UNCHANGED


def test_the_last_range_may_be_16_mib_short():
    whole = 24 * GIB
    made = with_sizes(gpu(0, "CPX/NPS1"), *[whole] * 6, whole - (8 << 20), whole - (8 << 20))
    assert in_mode(made, ComputeMode.CPX)


def test_a_partition_of_the_wrong_size_is_no_success():
    assert not in_mode(with_sizes(gpu(0, "CPX/NPS1"), 192 * GIB, 24 * GIB), ComputeMode.CPX)
    assert verify(TO_CPX, observed(with_sizes(gpu(0, "CPX/NPS1"), 48 * GIB, 24 * GIB))) is SwitchEvent.MISMATCH


def test_partitions_cannot_be_larger_together_than_the_gpu():
    assert not in_mode(with_sizes(gpu(0, "CPX/NPS1"), 192 * GIB), ComputeMode.CPX)


def test_unknown_sizes_and_xccs_are_not_held_against_a_gpu():
    made = gpu(0, "CPX/NPS1")
    blind = replace(made, partitions=tuple(replace(p, memory_bytes=None, xcc_count=None) for p in made.partitions))
    assert in_mode(blind, ComputeMode.CPX)
    assert in_mode(replace(made, memory_bytes=None), ComputeMode.CPX)


def test_a_node_out_of_drm_minors_lacks_the_last_partition_and_is_right_all_the_same():
    made = gpu(0, "CPX/NPS1", partitions=7)
    assert verify(TO_CPX, observed(made)) is SwitchEvent.VERIFIED
    assert missing_partitions(made) == 1
    assert missing_partitions(gpu(0, "CPX/NPS1")) == 0
    assert missing_partitions(gpu(0, "CPX/NPS1", partitions=0)) == 0


def test_too_many_partitions_or_a_strange_index_are_wrong():
    made = gpu(0, "QPX/NPS1")
    extra = replace(made, partitions=(*made.partitions, replace(made.partitions[0], index=4)))
    assert not in_mode(extra, ComputeMode.QPX)
    assert not in_mode(replace(made, partitions=(replace(made.partitions[0], index=7),)), ComputeMode.QPX)


def test_a_partition_with_other_xccs_than_the_first_is_wrong():
    made = gpu(0, "QPX/NPS1")
    odd = (*made.partitions[:3], replace(made.partitions[3], xcc_count=1))
    assert not in_mode(replace(made, partitions=odd), ComputeMode.QPX)


def test_a_mode_that_the_silicon_lacks_and_no_mode_at_all_are_never_right():
    assert not in_mode(gpu(0), ComputeMode.TPX)
    assert not in_mode(gpu(0), None)


def test_of_an_unknown_model_the_mode_file_is_all_there_is():
    assert in_mode(gpu(0, "SPX/NPS1", device_id=UNKNOWN, file="CPX"), ComputeMode.CPX)
    assert not in_mode(gpu(0, "CPX/NPS1", device_id=UNKNOWN, file="SPX"), ComputeMode.CPX)
    assert missing_partitions(gpu(0, "CPX/NPS1", device_id=UNKNOWN)) == 0
