"""Where the difference between HIP's free memory and KFD's counters comes from, and when there should be none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimd.domain.accounting import GRANULE, Calibration, PartitionAccount
from aimd.domain.probe import PartitionMemory
from aimd.planning.calibration import DRIFT_BYTES, calibrations, calm, drift, page_table_bytes
from tests.hip.simulated import free_by_formula
from tests.unit.planning.paper import GIB, gpu

MIB = 1 << 20
RAM = 2048 * GIB


def test_page_tables_take_a_share_of_ram_and_vram() -> None:
    gpus = [gpu(0), gpu(1)]
    assert page_table_bytes(gpus, RAM) == (RAM + 2 * 192 * GIB) >> 14
    assert page_table_bytes([gpu(0)], 0) == 192 * GIB >> 14
    assert page_table_bytes([], 0) == 8 * MIB
    assert page_table_bytes(gpus, None) is None
    unknown = replace(gpu(0), memory_bytes=None, device_id=None)
    assert page_table_bytes([unknown], RAM) is None


@given(
    allocated=st.lists(st.lists(st.integers(1, GIB), max_size=4), min_size=2, max_size=8),
    pinned=st.integers(0, GIB),
    ras=st.integers(0, 16 * MIB),
)
def test_the_parts_explain_all_that_is_missing(allocated: list[list[int]], pinned: int, ras: int) -> None:
    total, tables = 24 * GIB, page_table_bytes([gpu(0)], RAM)
    assert tables is not None
    used = {index: sum(-(-size // 4096) * 4096 for size in sizes) for index, sizes in enumerate(allocated)}
    answers = [
        PartitionMemory(index, free_by_formula(total, sizes, pinned=pinned, ras=ras, ram=RAM, vram=192 * GIB), total)
        for index, sizes in enumerate(allocated)
    ]
    found = calibrations(answers, used, tables)
    assert set(found) == set(used)
    for index, one in found.items():
        granules = (len(allocated[index]) + 1) * GRANULE
        assert one.pins_bytes is not None
        assert one.rest_bytes is not None
        assert one.missing_bytes == tables + one.pins_bytes + one.rest_bytes
        assert 0 <= one.rest_bytes < granules
        assert 0 <= one.pins_bytes - pinned - ras < 5 * GRANULE
        assert drift(one, total, min(each.missing_bytes for each in found.values())) is None


def test_what_is_unknown_is_not_zero() -> None:
    answers = [PartitionMemory(index, 23 * GIB, 24 * GIB) for index in range(3)]
    found = calibrations(answers, {0: 0, 1: None, 2: 0}, None)
    assert set(found) == {0, 2}
    assert found[0] == Calibration(23 * GIB, 24 * GIB, 0, None, None, 0)
    (alone,) = calibrations(answers[:1], {0: 0}, 8 * MIB).values()
    assert (alone.pins_bytes, alone.rest_bytes) == (GIB - 8 * MIB, None)


@pytest.mark.parametrize(
    ("free", "total", "rest", "words"),
    [
        (23 * GIB, 24 * GIB, 0, None),
        (23 * GIB - DRIFT_BYTES, 24 * GIB, DRIFT_BYTES, None),
        (22 * GIB, 24 * GIB, GIB, "lacks 1 GiB that no process of KFD's list uses, and its siblings do not"),
        (22 * GIB, 24 * GIB, 0, "and it did not before; pinned memory and RAS are possible"),
        (22 * GIB, 24 * GIB, None, "and it did not before"),
        (23 * GIB, 25 * GIB, 0, "has 26843545600 bytes by HIP, 25769803776 by KFD"),
        (24 * GIB + MIB, 24 * GIB, 0, "more free memory by HIP than the counters of KFD's processes leave"),
    ],
)
def test_drift(free: int, total: int, rest: int | None, words: str | None) -> None:
    found = Calibration(free, total, 0, 8 * MIB, 0, rest)
    told = drift(found, 24 * GIB, GIB)
    assert (told is None) == (words is None)
    assert words is None or words in (told or "")


def test_a_drift_ends_later_than_it_begins() -> None:
    between = Calibration(23 * GIB - DRIFT_BYTES, 24 * GIB, 0, 0, 0, 0)
    assert drift(between, 24 * GIB, GIB) is None
    assert not calm(between, GIB)
    assert calm(replace(between, free_bytes=23 * GIB - DRIFT_BYTES // 2), GIB)


def test_free_memory_of_now_is_estimated_from_that_of_then() -> None:
    account = PartitionAccount(
        "g", 0, 1, 24 * GIB, 0, 3 * GIB, 0, probed=Calibration(20 * GIB, 24 * GIB, 3 * GIB, 0, 0, 0)
    )
    assert (account.free_bytes, account.estimated_free_bytes) == (20 * GIB, 20 * GIB)
    more = replace(account, used_bytes=4 * GIB + 1)
    assert more.estimated_free_bytes == 19 * GIB - GRANULE
    assert replace(account, used_bytes=99 * GIB).estimated_free_bytes == 0
    assert replace(account, used_bytes=None).estimated_free_bytes is None
    assert replace(account, probed=None).free_bytes is None
