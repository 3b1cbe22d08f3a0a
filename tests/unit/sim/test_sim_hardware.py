"""Tables and formulas of the simulated hardware against values seen on real machines."""

from __future__ import annotations

import pytest
from machines import machine

from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.domain.silicon import automatic_mode
from aimd.sim.hardware import MODELS, crc16, gpu_id, partition_sizes
from aimd.sim.links import End, io_links, link_counts, p2p_links
from aimd.sim.properties import caches, cwsr_sizes
from aimd.sim.state import KfdNode


def ids(model: str, bus: int, compute: str, memory: str) -> list[int]:
    hardware = MODELS[model]
    sizes = partition_sizes(hardware, ComputeMode(compute), MemoryMode(memory), hardware.xcc_count)
    each = hardware.xcc_count // len(sizes)
    return [
        gpu_id(bus=bus, device_id=hardware.device_id, memory_bytes=size, first_xcc=index * each, xcc_count=each)
        for index, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("model", "bus", "compute", "memory", "expected"),
    [
        # seen on hardware: ROCm issue 4750 (MI300X, SPX) and the MI308X capture of ROCm/k8s-device-plugin
        ("mi300x", 0x05, "SPX", "NPS1", [28851]),
        ("mi300x", 0x25, "SPX", "NPS1", [43178]),
        ("mi300x", 0x45, "SPX", "NPS1", [32898]),
        ("mi300x", 0x65, "SPX", "NPS1", [22683]),
        ("mi308x", 0x0A, "CPX", "NPS4", [24248, 41657, 59065, 2236]),
        # computed by the kernel's rule
        ("mi300x", 0x05, "CPX", "NPS1", [4403, 60722, 43314, 21811, 8498, 56627, 39219, 25906]),
        ("mi300x", 0x05, "CPX", "NPS4", [42546, 23091, 7731, 57906, 38451, 27186, 10032, 56113]),
        ("mi300x", 0x05, "DPX", "NPS1", [10931, 6834]),
        ("mi300x", 0x05, "QPX", "NPS1", [1971, 49074, 14258, 36787]),
    ],
)
def test_gpu_ids(model: str, bus: int, compute: str, memory: str, expected: list[int]) -> None:
    assert ids(model, bus, compute, memory) == expected


def test_crc16_check_value() -> None:
    assert crc16(b"123456789") == 0xBB3D  # CRC-16/ARC


SIZES = {
    ("mi300x", "SPX", "NPS1"): [206141652992],
    ("mi300x", "DPX", "NPS1"): [103070826496] * 2,
    ("mi300x", "DPX", "NPS2"): [103079215104, 103062437888],
    ("mi300x", "QPX", "NPS1"): [51535413248] * 4,
    ("mi300x", "QPX", "NPS4"): [51539607552] * 3 + [51522830336],
    ("mi300x", "CPX", "NPS1"): [25767706624] * 8,
    ("mi300x", "CPX", "NPS4"): [25769803776] * 6 + [25761415168] * 2,
    ("mi308x", "SPX", "NPS1"): [206141652992],
    ("mi308x", "CPX", "NPS1"): [51535413248] * 4,
    ("mi308x", "CPX", "NPS4"): [51539607552] * 3 + [51522830336],
    ("mi325x", "SPX", "NPS1"): [274861129728],
    ("mi325x", "DPX", "NPS1"): [137430564864] * 2,
    ("mi325x", "CPX", "NPS1"): [34357641216] * 8,
    ("mi325x", "CPX", "NPS4"): [34359738368] * 6 + [34351349760] * 2,
    ("mi350x", "SPX", "NPS1"): [309220868096],
    ("mi350x", "DPX", "NPS2"): [154618822656, 154602045440],
    ("mi350x", "CPX", "NPS1"): [38652608512] * 8,
    ("mi350x", "CPX", "NPS2"): [38654705664] * 4 + [38650511360] * 4,
    ("mi355x", "DPX", "NPS2"): [154618822656, 154602045440],
    ("mi355x", "CPX", "NPS2"): [38654705664] * 4 + [38650511360] * 4,
    ("mi300a", "SPX", "NPS1"): [128 << 30],
    ("mi300a", "TPX", "NPS1"): [45812981760] * 3,  # 42.66 GiB
    ("mi300a", "CPX", "NPS1"): [22906490880] * 6,  # 21.33 GiB
}


@pytest.mark.parametrize(("model", "compute", "memory"), SIZES)
def test_sizes(model: str, compute: str, memory: str) -> None:
    hardware = MODELS[model]
    sizes = partition_sizes(hardware, ComputeMode(compute), MemoryMode(memory), hardware.xcc_count)
    assert list(sizes) == SIZES[model, compute, memory]


@pytest.mark.parametrize(
    ("model", "compute"),
    sorted({(model, compute) for model, compute, memory in SIZES if memory == "NPS1"}),
)
def test_sizes_as_kfd_shows_them(model: str, compute: str) -> None:
    m = machine(model)
    assert m.switch(compute) == 0
    assert m.sizes() == SIZES[model, compute, "NPS1"]


@pytest.mark.parametrize("model", sorted(MODELS))
def test_memory_of_the_whole_gpu_does_not_depend_on_the_mode(model: str) -> None:
    m = machine(model)
    before = m.read("mem_info_vram_total")
    assert m.switch("CPX") == 0
    assert m.read("mem_info_vram_total") == before == f"{MODELS[model].memory_bytes}\n"


@pytest.mark.parametrize(
    ("memory", "xccs", "expected"),
    [("NPS1", 8, "SPX"), ("NPS2", 8, "DPX"), ("NPS4", 8, "CPX"), ("NPS4", 4, "CPX"), ("NPS4", 6, "TPX"), ("NPS4", 7, "SPX")],
)  # fmt: skip
def test_mode_after_a_driver_load(memory: str, xccs: int, expected: str) -> None:
    assert automatic_mode(MemoryMode(memory), xccs) is ComputeMode(expected)


@pytest.mark.parametrize("counts", [(8, 8), (1, 0), (0, 3), (0, 0)])
@pytest.mark.parametrize("hive", [0, 7])
def test_link_counts_are_those_of_the_links(counts: tuple[int, int], hive: int) -> None:
    ends = [End(0), End(1)]
    for socket, count in enumerate(counts):
        ends += [End(socket, f"gpu{socket}-{index // 2}", hive) for index in range(count)]
    made = [(len(io_links(ends, n)), len(p2p_links(ends, n))) for n in range(len(ends))]
    assert made == link_counts(ends)


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("xccs", [1, 2])
def test_caches_are_as_many_as_properties_say(model: str, xccs: int) -> None:
    node = KfdNode("0000:05:00.0", 0, 0, xccs, 0, 1, 128, 0x80001000)
    assert len(caches(MODELS[model], node)) == MODELS[model].caches_per_xcc * xccs


def test_cache_order_of_the_mi308x_capture() -> None:
    node = KfdNode("0000:a4:00.0", 0, 0, 1, 0, 1, 144, 2147488064)
    texts = caches(MODELS["mi308x"], node)
    assert len(texts) == 46
    first = "processor_id_low 2147488064\nlevel 1\nsize 32\ncache_line_size 0\ncache_lines_per_tag 0\nassociation 0\n"
    assert texts[0] == first + "latency 0\ntype 9\nsibling_map 1" + ",0" * 31 + "\n"
    assert texts[1].startswith("processor_id_low 2147488065\n")
    shape = [tuple(line.split()[1] for line in text.splitlines() if line.startswith(("level", "size", "type"))) for text in texts]  # fmt: skip
    assert shape == [("1", "32", "9")] * 20 + [("1", "64", "10")] * 12 + [("1", "16", "9")] * 12 + [
        ("2", "4096", "9"),
        ("3", "65536", "9"),
    ]


def test_save_area_sizes_are_whole_pages() -> None:
    for model in MODELS.values():
        whole, control = cwsr_sizes(model)
        assert whole % 4096 == control % 4096 == 0
        assert whole > control > 0
