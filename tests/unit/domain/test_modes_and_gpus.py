"""Modes, models, addresses and what follows from them."""

from __future__ import annotations

import pytest

from aimd.domain.gpu import Gpu, GpuState, Observed, Partition, pci_address
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.silicon import GFX_942, GFX_950, automatic_mode, compute_mode_of, pair_allowed, partition_count
from aimd.errors import InvalidInputError

C, M = ComputeMode, MemoryMode


@pytest.mark.parametrize(
    ("text", "compute", "memory"),
    [
        ("CPX/NPS1", C.CPX, M.NPS1),
        ("cpx", C.CPX, None),
        ("nps4", None, M.NPS4),
        (" dpx/Nps2 ", C.DPX, M.NPS2),
        ("SPX/NPS8", C.SPX, M.NPS8),
    ],
)
def test_modes_as_people_write_them(text, compute, memory):
    assert PartitionMode.parse(text) == PartitionMode(compute, memory)


@pytest.mark.parametrize(
    "text", ["", "XPX", "CPX/", "/NPS1", "NPS1/CPX", "CPX/DPX", "NPS1/NPS1", "CPX/NPS1/NPS1", "CPX NPS1", "NPS5"]
)
def test_what_is_no_mode_is_refused_with_what_is_one(text):
    with pytest.raises(InvalidInputError) as failure:
        PartitionMode.parse(text)
    assert failure.value.code == "mode_invalid"
    assert repr(text) in str(failure.value)
    assert "SPX|DPX|TPX|QPX|CPX" in (failure.value.hint or "")
    assert "for example CPX/NPS1" in (failure.value.hint or "")


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("FOO", "mode 'FOO' names 'FOO', which is no partition mode"),
        ("CPX/NPS5", "mode 'CPX/NPS5' names 'NPS5', which is no partition mode"),
        ("NPS1/CPX", "mode 'NPS1/CPX' is not of the form COMPUTE/MEMORY"),
        ("CPX/", "mode 'CPX/' is not of the form COMPUTE/MEMORY"),
    ],
)
def test_what_is_wrong_with_a_mode_is_said(text, fact):
    with pytest.raises(InvalidInputError) as failure:
        PartitionMode.parse(text)
    assert failure.value.message == fact


def test_unknown_parts_are_shown_as_such():
    assert str(PartitionMode(C.CPX, None)) == "CPX/?"
    assert str(PartitionMode(None, M.NPS4)) == "?/NPS4"
    assert PartitionMode.parse("CPX/NPS4").memory.ranges == 4


# hardware notes 3: SPX any, DPX %4, TPX 6, QPX 8, CPX more than one; none for a harvested odd number
@pytest.mark.parametrize(
    ("xccs", "counts"),
    [
        (8, {C.SPX: 1, C.DPX: 2, C.TPX: None, C.QPX: 4, C.CPX: 8}),
        (6, {C.SPX: 1, C.DPX: None, C.TPX: 3, C.QPX: None, C.CPX: 6}),
        (4, {C.SPX: 1, C.DPX: 2, C.TPX: None, C.QPX: None, C.CPX: 4}),
        (2, {C.SPX: 1, C.DPX: None, C.TPX: None, C.QPX: None, C.CPX: 2}),
        (1, {C.SPX: 1, C.DPX: None, C.TPX: None, C.QPX: None, C.CPX: None}),
        (7, dict.fromkeys(C)),
    ],
)
def test_partitions_of_the_silicon(xccs, counts):
    assert {mode: partition_count(mode, xccs) for mode in C} == counts
    for mode, count in counts.items():
        if count is not None:
            assert compute_mode_of(xccs // count, xccs) is mode


def test_a_share_that_no_mode_has():
    assert compute_mode_of(3, 8) is None
    assert compute_mode_of(7, 8) is None


@pytest.mark.parametrize(
    ("target", "pairs"),
    [
        (GFX_942, "SPX/NPS1 DPX/NPS1 DPX/NPS2 TPX/NPS1 TPX/NPS4 QPX/NPS1 QPX/NPS4 CPX/NPS1 CPX/NPS4"),
        (
            GFX_950,
            "SPX/NPS1 DPX/NPS1 DPX/NPS2 TPX/NPS1 TPX/NPS4 QPX/NPS1 QPX/NPS2 QPX/NPS4 CPX/NPS1 CPX/NPS2 CPX/NPS4",
        ),
    ],
)
def test_pairs_that_the_kernel_accepts(target, pairs):
    assert {f"{c}/{m}" for c in C for m in M if pair_allowed(target, c, m)} == set(pairs.split())


def test_an_unknown_family_is_left_to_its_driver():
    assert all(pair_allowed(120100, compute, memory) for compute in C for memory in M)


@pytest.mark.parametrize(
    ("memory", "xccs", "compute"),
    [(M.NPS1, 8, C.SPX), (M.NPS2, 8, C.DPX), (M.NPS4, 8, C.CPX), (M.NPS4, 6, C.TPX), (M.NPS1, 6, C.SPX)],
)
def test_the_mode_that_a_driver_load_chooses(memory, xccs, compute):
    assert automatic_mode(memory, xccs) is compute


def test_every_partition_of_a_gpu_has_one_address():
    assert {pci_address(0, 0x0500 | index) for index in range(8)} == {"0000:05:00.0"}
    assert pci_address(1, 0xE500) == "0001:e5:00.0"
    assert pci_address(0x10000, 0x05F8) == "10000:05:1f.0"


def made(xccs, file=None, device_id=0x74A1, count=1):
    return Gpu("0000:05:00.0", device_id, tuple(Partition(i, 128 + i, xccs, None) for i in range(count)), file)


@pytest.mark.parametrize(
    ("gpu", "compute", "consistent"),
    [
        (made(8, C.SPX), C.SPX, True),
        (made(8, C.CPX), C.SPX, False),  # refused by the firmware: the file is the driver's cache
        (made(1, C.CPX, count=8), C.CPX, True),
        (made(1, None), C.CPX, True),
        (made(None, C.DPX), C.DPX, True),
        (made(7, C.SPX), C.SPX, True),  # harvested: no mode has 7 XCCs
        (made(8, C.DPX, device_id=0xFFFF), C.DPX, True),
        (made(8, C.DPX, count=0), C.DPX, True),
        (made(8, None, device_id=None), None, True),
        (made(1, None, device_id=0x740F), None, True),  # MI210: it has no partition modes
    ],
)
def test_the_mode_is_that_of_the_partitions(gpu, compute, consistent):
    assert gpu.compute_mode is compute
    assert gpu.consistent is consistent
    assert gpu.state is (GpuState.READY if gpu.partitions else GpuState.LOST)


MI300X, MI308X, MI300A, MI210 = 0x74A1, 0x74A2, 0x74A0, 0x740F
CPX_OF_MI308X = (51539607552, 51539607552, 51539607552, 51522830336)


@pytest.mark.parametrize(
    ("device_id", "xccs", "sizes", "file", "total"),
    [
        (MI308X, 1, CPX_OF_MI308X, None, 206141652992),
        (MI308X, 1, CPX_OF_MI308X, 206158430208, 206158430208),  # the driver's word counts
        (MI308X, 1, CPX_OF_MI308X[:3], None, None),  # one is missing
        (MI308X, 1, (*CPX_OF_MI308X[:3], None), None, None),  # one is unknown
        (MI300X, 8, (206141652992,), None, 206141652992),
        (MI300X, 1, (206141652992,) * 8, None, None),  # partitions that share the memory show all of it each
        (MI300X, None, (206141652992,), None, None),  # in which mode?
        (MI300A, 6, (137438953472,), None, None),  # memory of the machine
        (MI210, 1, (68702699520,), None, 68702699520),
        (0x744C, None, (25753026560,), None, None),
        (MI300X, 8, (), None, None),
    ],
)
def test_memory_of_a_whole_gpu(device_id, xccs, sizes, file, total):
    partitions = tuple(Partition(index, None, xccs, size) for index, size in enumerate(sizes))
    assert Gpu("0000:05:00.0", device_id, partitions, memory_bytes=file).total_memory_bytes == total


def test_hives():
    gpus = [Gpu(f"0000:0{n}:00.0", 0x74A1, (), hive_id=hive) for n, hive in enumerate((7, 8, 7, None, 0))]
    node = Observed(tuple(gpus))
    assert node.hive("0000:00:00.0") == ("0000:00:00.0", "0000:02:00.0")
    assert node.hive("0000:01:00.0") == ("0000:01:00.0",)
    assert node.hive("0000:03:00.0") == ("0000:03:00.0",)
    assert node.hive("0000:04:00.0") == ("0000:04:00.0",)
    assert node.hive("0000:99:00.0") == ("0000:99:00.0",)
    assert node.gpu("0000:99:00.0") is None
