"""Nominal memory, to the byte: what a partition counts as, what a share of it reserves, what people may write."""

from __future__ import annotations

import itertools
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimd.domain.memory import (
    GIB,
    MOST_GB,
    UNITS_PER_GB,
    free_units,
    gb_text,
    nominal_gb,
    nominal_units,
    parse_gb,
    reserved_bytes,
)
from aimd.domain.modes import ComputeMode
from aimd.domain.silicon import pair_allowed, partition_count
from aimd.errors import InvalidInputError
from aimd.protocol.claims import ClaimRequest
from aimd.sim.hardware import MODELS, partition_sizes

CPX = 25_767_706_624  # a partition of an MI300X in CPX/NPS1

# (GPU, modes, bytes of each kind of partition, GB as sold): the table of partition sizes in the hardware notes.
SIZES = [
    ("MI300X SPX/NPS1", 206_141_652_992, 192),
    ("MI300X DPX/NPS1", 103_070_826_496, 96),
    ("MI300X DPX/NPS2", 103_079_215_104, 96),
    ("MI300X DPX/NPS2, the last", 103_062_437_888, 96),
    ("MI300X QPX/NPS1", 51_535_413_248, 48),
    ("MI300X QPX/NPS4", 51_539_607_552, 48),
    ("MI300X QPX/NPS4, the last", 51_522_830_336, 48),
    ("MI300X CPX/NPS1", CPX, 24),
    ("MI300X CPX/NPS4", 25_769_803_776, 24),
    ("MI300X CPX/NPS4, the last two", 25_761_415_168, 24),
    ("MI308X CPX/NPS4", 51_539_607_552, 48),
    ("MI308X CPX/NPS4, the last", 51_522_830_336, 48),
    ("MI308X CPX/NPS1", 51_535_413_248, 48),
    ("MI325X SPX/NPS1", 274_861_129_728, 256),
    ("MI325X DPX/NPS1", 137_430_564_864, 128),
    ("MI325X CPX/NPS1", 34_357_641_216, 32),
    ("MI325X CPX/NPS4", 34_359_738_368, 32),
    ("MI325X CPX/NPS4, the last two", 34_351_349_760, 32),
    ("MI355X SPX/NPS1", 309_220_868_096, 288),
    ("MI355X DPX/NPS2", 154_618_822_656, 144),
    ("MI355X DPX/NPS2, the last", 154_602_045_440, 144),
    ("MI355X CPX/NPS1", 38_652_608_512, 36),
    ("MI355X CPX/NPS2", 38_654_705_664, 36),
    ("MI355X CPX/NPS2, the second half", 38_650_511_360, 36),
]
sizes = st.integers(4096, 2**42)


@pytest.mark.parametrize(("size", "sold"), [case[1:] for case in SIZES], ids=[case[0] for case in SIZES])
def test_a_partition_counts_as_it_is_sold(size: int, sold: int) -> None:
    assert nominal_gb(size) == sold
    assert nominal_units(size) == sold * 1024
    assert reserved_bytes(sold * 1024, size) == size, "the whole of it is the whole of it"
    assert reserved_bytes(sold * 512, size) == size // 2
    assert free_units(size, 0) == sold * 1024
    assert free_units(size, sold * 1024) == 0


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_partition_of_every_mode_is_divided_without_rest(model: str) -> None:
    """Halves, thirds and single units of each size that the simulated driver shows never add up to more than it."""
    hardware = MODELS[model]
    for compute, memory in itertools.product(ComputeMode, hardware.memory_modes):
        if partition_count(compute, hardware.xcc_count) is None or not pair_allowed(
            hardware.gfx_target, compute, memory
        ):
            continue
        for size in partition_sizes(hardware, compute, memory, hardware.xcc_count):
            units = nominal_units(size)
            for parts in (1, 2, 3, 7, 24):
                assert parts * reserved_bytes(units // parts, size) <= size
            assert reserved_bytes(units, size) == size


def test_24_and_12_and_12_fit_a_cpx_partition() -> None:
    assert free_units(CPX, 0) == parse_gb(24) == parse_gb(12) + parse_gb(12)
    assert reserved_bytes(parse_gb(24), CPX) == CPX
    assert reserved_bytes(parse_gb(12), CPX) == 12_883_853_312
    assert CPX == 2 * 12_883_853_312
    assert parse_gb(24.001) > free_units(CPX, 0)


def test_a_third_is_rounded_down() -> None:
    assert reserved_bytes(parse_gb(1), CPX) == CPX // 24 == 1_073_654_442
    assert reserved_bytes(1, CPX) == 1_048_490


@given(size=sizes, units=st.integers(0, 2**20))
def test_the_rule(size: int, units: int) -> None:
    """m of N reserve floor(m / N * bytes)."""
    whole = -(-size // GIB)
    assert reserved_bytes(units, size) == Fraction(units, 1024 * whole) * size // 1


@given(size=sizes, shares=st.lists(st.integers(1, 2**16), max_size=20), unattributed=st.integers(0, 2**42))
def test_what_is_reserved_never_exceeds_what_is_there(size: int, shares: list[int], unattributed: int) -> None:
    taken: list[int] = []
    for share in shares:
        if share <= free_units(size, sum(taken), unattributed):
            taken.append(share)
    assert sum(reserved_bytes(share, size) for share in taken) <= max(0, size - unattributed)


@given(size=sizes, unattributed=st.integers(0, 2**42))
def test_no_unit_is_withheld(size: int, unattributed: int) -> None:
    """One unit more than is free would not fit."""
    free = free_units(size, 0, unattributed)
    exactly = Fraction(free + 1, nominal_units(size)) * size
    assert exactly > max(0, size - unattributed)


def test_nothing_of_nothing() -> None:
    assert (nominal_gb(0), nominal_units(0), reserved_bytes(5, 0), free_units(0, 0)) == (0, 0, 0, 0)


def test_use_that_nobody_knows_of_makes_less_room() -> None:
    assert free_units(CPX, 0, CPX // 2) == 12 * 1024
    assert free_units(CPX, parse_gb(12), CPX // 2) == 0
    assert free_units(CPX, parse_gb(12), CPX) == 0, "never negative"
    assert free_units(CPX, 0, 2 * CPX) == 0


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("24", 24576),
        (24, 24576),
        (24.0, 24576),
        (" 1.5 ", 1536),
        ("1e2", 102_400),
        (0.1, 103),
        ("0.0009765625", 1),
        ("0.0009765635", 2),
        ("0.000001", 1),
        (5e-324, 1),
        ("1e-1000000", 1),
        (24.000000000000004, 24576),
        (0.1 + 0.2, 308),
        (1048576, 1 << 30),
    ],
)
def test_amounts(text: str | float, units: int) -> None:
    assert parse_gb(text) == units


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        0,
        -1,
        "-24",
        "24GB",
        "nan",
        "sNaN",
        "inf",
        float("nan"),
        float("inf"),
        "1048576.1",
        "1e999999",
        "x",
        True,
    ],
)
def test_what_is_no_amount(text: str | float) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_gb(text)
    assert refused.value.code == "memory_invalid"
    assert repr(text) in refused.value.message
    assert str(MOST_GB) in refused.value.message
    assert refused.value.hint


@given(st.integers(1, MOST_GB * UNITS_PER_GB))
def test_what_the_api_shows_can_be_asked_for_again(units: int) -> None:
    shown = msgspec.json.encode({"memory_gb": units / UNITS_PER_GB})
    request = msgspec.json.decode(shown, type=ClaimRequest)
    assert request.spec(lambda gpu: gpu).memory_units == units


def test_the_api_takes_whole_numbers_and_floats_and_no_text() -> None:
    for body, units in ((b"24", 24576), (b"1.5", 1536), (b"24.0", 24576)):
        request = msgspec.json.decode(b'{"memory_gb": ' + body + b"}", type=ClaimRequest)
        assert request.spec(lambda gpu: gpu).memory_units == units
    for body in (b'"24"', b"true", b"null"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(b'{"memory_gb": ' + body + b"}", type=ClaimRequest)


@pytest.mark.parametrize(
    ("units", "text"), [(24576, "24"), (1536, "1.5"), (1, "0.001"), (24577, "24.001"), (102_400, "100"), (0, "0")]
)
def test_units_for_people(units: int, text: str) -> None:
    assert gb_text(units) == text
