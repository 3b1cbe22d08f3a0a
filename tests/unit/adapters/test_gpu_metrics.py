"""The metrics tables decoded: as the simulated driver writes them, and as no driver should."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimd.adapters.amdgpu.gpu_metrics import (
    GFX_BUSY_INST,
    GpuActivity,
    decode_gpu_metrics,
    decode_partition_metrics,
    mean,
    read_attributes,
)
from aimd.sim.metrics_tables import FORMATS, gpu_metrics, partition_metrics

BUSY = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0)
EMPTY = (None,) * 4
# As real MI300X have shown them: 1.6 of AMD's driver 6.10.5 has 1664 bytes, 1.9 of 6.16.13 has 1150 and 47 attributes.
SIZES = {"1.5": 360, "1.6": 1664, "1.7": 2208, "1.8": 3872, "1.9": 1150}


def table(version: tuple[int, int], *attributes: tuple[int, int, bytes], count: int | None = None) -> bytes:
    """A hand-made attribute table of (type, id, values of four bytes)."""
    body = struct.pack("<i", len(attributes) if count is None else count)
    for kind, identity, values in attributes:
        body += struct.pack("<Q", 10 << 24 | kind << 20 | identity << 10 | len(values) // 4) + values
    return struct.pack("<HBB", 4 + len(body), *version) + body


def with_size(data: bytes) -> bytes:
    return struct.pack("<H", len(data)) + data[2:]


@pytest.mark.parametrize("version", FORMATS)
def test_what_is_rendered_is_read(version: str) -> None:
    data = gpu_metrics(version, BUSY, 2)
    assert len(data) == SIZES[version]
    found = decode_gpu_metrics(data)
    assert found is not None
    assert found.whole == 0.39
    if version == "1.5":
        assert (found.partitions, found.xccs) == ((), ())
        assert found.of(0, 0, 4) is None
        return
    told = found.xccs or sum((shares[:4] for shares in found.partitions), ())
    assert told == BUSY
    if version != "1.9":
        assert [shares[4:] for shares in found.partitions] == [EMPTY, EMPTY]
    assert [found.of(0, 0, 4), found.of(1, 4, 4)] == [pytest.approx(0.15), pytest.approx(0.625)]
    assert found.of(2, 8, 4) is None, "there is no such partition"


def test_partition_metrics() -> None:
    assert decode_partition_metrics(partition_metrics((0.25, 0.75))) == (0.25, 0.75, *(None,) * 6)
    assert decode_gpu_metrics(partition_metrics((0.25,))) is None, "1.1 of the GPU's table is another one"
    assert decode_partition_metrics(gpu_metrics("1.9", BUSY, 1)) is None


def test_the_table_of_linux_6_12_without_partitions() -> None:
    data = bytearray(b"\xff" * 384)
    struct.pack_into("<HBB", data, 0, 384, 1, 6)
    struct.pack_into("<H", data, 12, 37)
    assert decode_gpu_metrics(bytes(data)) == GpuActivity(0.37)


def test_what_the_driver_has_not_filled_is_unknown() -> None:
    for version in FORMATS:
        data = bytearray(b"\xff" * SIZES[version])
        data[:8] = gpu_metrics(version, BUSY, 1)[:8]
        if version == "1.9":
            data[4:8] = struct.pack("<i", 0)
        found = decode_gpu_metrics(bytes(data))
        assert found is not None
        assert found.whole is None
        assert {share for shares in (*found.partitions, found.xccs) for share in shares} <= {None}


@pytest.mark.parametrize("percent", [101, 0x7FFF, 0xFFFF])
def test_more_than_all_is_no_measurement(percent: int) -> None:
    data = bytearray(gpu_metrics("1.5", BUSY, 1))
    struct.pack_into("<H", data, 12, percent)
    assert decode_gpu_metrics(bytes(data)) == GpuActivity(None)


def test_a_partition_is_known_only_if_each_of_its_xccs_is() -> None:
    assert mean((0.5, None), 2) is None
    assert mean((0.5, 0.7), 2) == pytest.approx(0.6)
    assert mean((0.5,), 2) is None
    assert mean((0.5, 1.0), 1) == 0.5
    assert mean((), 0) is None


@pytest.mark.parametrize("version", FORMATS)
def test_truncated(version: str) -> None:
    """Neither as it is, nor with a header that says that it is whole."""
    data = gpu_metrics(version, BUSY, 2)
    for length in range(len(data)):
        assert decode_gpu_metrics(data[:length]) is None, length
        if length >= 4 and (version, length) != ("1.6", 384):  # the table of Linux 6.12
            assert decode_gpu_metrics(with_size(data[:length])) is None, length


def test_truncated_partition_metrics() -> None:
    data = partition_metrics(BUSY)
    for length in range(len(data)):
        assert decode_partition_metrics(data[:length]) is None, length
        if length >= 4:
            assert decode_partition_metrics(with_size(data[:length])) is None, length


@pytest.mark.parametrize("version", FORMATS)
def test_of_another_size(version: str) -> None:
    data = gpu_metrics(version, BUSY, 2)
    assert decode_gpu_metrics(data + b"\0") is None, "not the size that it says"
    if version != "1.9":
        assert decode_gpu_metrics(with_size(data + b"\0" * 8)) is None, "not the size that it should have"


@pytest.mark.parametrize("version", [(1, 0), (1, 4), (1, 10), (2, 5), (0, 0), (255, 255)])
def test_of_an_unknown_version(version: tuple[int, int]) -> None:
    for known in FORMATS:
        data = gpu_metrics(known, BUSY, 1)
        assert decode_gpu_metrics(data[:2] + bytes(version) + data[4:]) is None
    data = partition_metrics(BUSY)
    assert decode_partition_metrics(data[:2] + bytes(version) + data[4:]) is None


def test_attributes_in_any_order_with_unknown_ones_among_them() -> None:
    busy = struct.pack("<2I", 30, 0xFFFFFFFF)
    data = table((1, 1), (4, 1023, b"\1\2\3\4"), (4, GFX_BUSY_INST, busy), (5, 3, b""))
    assert decode_partition_metrics(data) == (0.3, None)


@pytest.mark.parametrize("count", [-1, 2, 2**31 - 1])
def test_a_table_that_counts_wrongly(count: int) -> None:
    data = table((1, 1), (4, GFX_BUSY_INST, struct.pack("<I", 30)), count=count)
    assert decode_partition_metrics(data) is None


def test_a_table_with_an_unknown_type() -> None:
    assert decode_partition_metrics(table((1, 1), (8, 3, b"\0\0\0\0"), (4, GFX_BUSY_INST, b"\0\0\0\0"))) is None


def test_negative_numbers_are_no_share() -> None:
    assert decode_partition_metrics(table((1, 1), (5, GFX_BUSY_INST, struct.pack("<i", -1)))) == (None,)


def test_a_table_without_what_is_looked_for() -> None:
    assert decode_gpu_metrics(table((1, 9))) == GpuActivity()
    assert decode_partition_metrics(table((1, 1))) == ()
    assert decode_gpu_metrics(table((1, 9), (4, 4, b""))) == GpuActivity()


def plausible(found: GpuActivity | None) -> None:
    if found is not None:
        shares = [found.whole, *found.xccs, *(share for each in found.partitions for share in each)]
        assert all(share is None or 0 <= share <= 1 for share in shares)
        for index in range(9):
            for count in range(9):
                share = found.of(index, index * count, count)
                assert share is None or 0 <= share <= 1.0000001


@given(st.binary(max_size=4000), st.sampled_from([(1, minor) for minor in range(12)]), st.booleans())
def test_any_bytes_are_unknown_or_plausible(data: bytes, version: tuple[int, int], sized: bool) -> None:
    plausible(decode_gpu_metrics(data))
    headed = struct.pack("<HBB", len(data) + 4 if sized else 77, *version) + data
    plausible(decode_gpu_metrics(headed))
    read_attributes(headed)
    shares = decode_partition_metrics(headed)
    assert shares is None or all(share is None or 0 <= share <= 1 for share in shares)


@given(
    st.sampled_from(FORMATS),
    st.integers(1, 8),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=8),
)
def test_any_damage_is_unknown_or_plausible(version: str, count: int, wounds: list[tuple[float, bytes]]) -> None:
    data = bytearray(gpu_metrics(version, BUSY, count if 8 % count == 0 else 1))
    for place, bytes_ in wounds:
        at = round(place * (len(data) - len(bytes_)))
        data[at : at + len(bytes_)] = bytes_
    plausible(decode_gpu_metrics(bytes(data)))
