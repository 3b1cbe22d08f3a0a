"""Texts of the KFD topology files of one node: properties, memory bank, caches.

Order and values follow the public captures of an MI300X and an MI308X node; where a value depends on the mode it
follows the code that computes it (kfd_topology.c, kfd_device.c). Values that no capture shows are marked.
"""

from __future__ import annotations

import hashlib

from aimd.domain.silicon import GFX_950
from aimd.sim.hardware import CU_SLOTS_PER_XCC, GIB, PAGE, SimModel
from aimd.sim.state import KfdNode, SimGpu, SimState

ARRAYS_PER_XCC = 4
SDMA_PER_NODE = 2  # kfd_get_num_sdma_engines: at most two with XGMI, the others count as XGMI engines


def unique_id(state: SimState, gpu: SimGpu, node: KfdNode) -> int:
    """KFD's unique_id: the whole GPU's, or with newer drivers in a partitioned mode that of the partition's XCD."""
    if not state.driver.unique_id_per_xcd or node.xcc_count == gpu.xcc_count:
        return gpu.unique_id
    digest = hashlib.blake2s(f"{gpu.unique_id}:{node.first_xcc}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def cwsr_sizes(model: SimModel) -> tuple[int, int]:
    """cwsr_size and ctl_stack_size of one XCC (kfd_queue_ctx_save_restore_size), in bytes."""
    waves = min(model.compute_units * 40, ARRAYS_PER_XCC * 512)
    control = _align(40 + waves * 8 + 8)
    per_unit = 0x80000 + 0x4000 + lds_kib(model) * 1024 + 0x1000  # VGPR, SGPR, LDS, hardware registers
    return control + _align(model.compute_units * per_unit), control


def lds_kib(model: SimModel) -> int:
    return 160 if model.gfx_target == GFX_950 else 64


def cpu_properties(state: SimState, number: int, io_links: int, p2p_links: int) -> str:
    """`properties` of CPU node `number`: the GPU's keys are there and 0."""
    core_base = number * (1 << (state.cpu_cores - 1).bit_length())  # APIC ids: the next power of two per socket
    pairs: list[tuple[str, int]] = [
        ("cpu_cores_count", state.cpu_cores),
        ("simd_count", 0),
        ("mem_banks_count", 1),
        ("caches_count", 0),
        ("io_links_count", io_links),
        ("p2p_links_count", p2p_links),
        ("cpu_core_id_base", core_base),
        *((key, 0) for key in _ZERO_ON_CPU),
    ]
    if state.driver.alloc_mode:
        pairs += [("cwsr_size", 0), ("ctl_stack_size", 0)]
    pairs.append(("max_engine_clk_ccompute", state.cpu_clock))
    return _render(pairs)


_ZERO_ON_CPU = (
    "simd_id_base",
    "max_waves_per_simd",
    "lds_size_in_kb",
    "gds_size_in_kb",
    "num_gws",
    "wave_front_size",
    "array_count",
    "simd_arrays_per_engine",
    "cu_per_simd_array",
    "simd_per_cu",
    "max_slots_scratch_cu",
    "gfx_target_version",
    "vendor_id",
    "device_id",
    "location_id",
    "domain",
    "drm_render_minor",
    "hive_id",
    "num_sdma_engines",
    "num_sdma_xgmi_engines",
    "num_sdma_queues_per_engine",
    "num_cp_queues",
)


def gpu_properties(state: SimState, gpu: SimGpu, node: KfdNode, io_links: int, p2p_links: int) -> str:
    """`properties` of a GPU node."""
    model = state.hardware
    pairs = [
        ("cpu_cores_count", 0),
        ("simd_count", model.compute_units * 4 * node.xcc_count),
        ("mem_banks_count", 1),
        ("caches_count", model.caches_per_xcc * node.xcc_count),
        ("io_links_count", io_links),
        ("p2p_links_count", p2p_links),
        ("cpu_core_id_base", 0),
        ("simd_id_base", node.simd_id_base),
        *_shape(model, node),
        *_identity(gpu, node, model),
        *_engines(model, gpu, node),
    ]
    if state.driver.alloc_mode:
        cwsr, control = cwsr_sizes(model)
        pairs += [("cwsr_size", cwsr), ("ctl_stack_size", control)]
    pairs += [
        ("max_engine_clk_fcompute", model.max_clock),
        ("local_mem_size", 0),
        ("fw_version", model.fw_version),
        ("capability", model.capability),
    ]
    if state.driver.alloc_mode:
        pairs.append(("capability2", 0))  # value not captured
    pairs += [
        ("debug_prop", 1511),
        ("sdma_fw_version", model.sdma_fw_version),
        ("unique_id", unique_id(state, gpu, node)),
        ("num_xcc", node.xcc_count),
        ("max_engine_clk_ccompute", state.cpu_clock),
    ]
    return _render(pairs)


def gpu_memory_bank(node: KfdNode) -> str:
    """`mem_banks/0/properties` of a GPU node: frame buffer behind a large BAR (heap_type 1)."""
    return _render(
        [
            ("heap_type", 1),
            ("size_in_bytes", node.memory_bytes),
            ("flags", 0),
            ("width", 8192),
            ("mem_clk_max", 1300),
        ]
    )


def cpu_memory_bank(state: SimState) -> str:
    """`mem_banks/0/properties` of a CPU node: its socket's share of the system memory (heap_type 0)."""
    size = state.system_memory_gib * GIB // state.sockets
    return _render([("heap_type", 0), ("size_in_bytes", size), ("flags", 0), ("width", 64), ("mem_clk_max", 5600)])


def caches(model: SimModel, node: KfdNode) -> list[str]:
    """`caches/*/properties`: per unit L1, per group of units scalar and instruction caches, then L2 and L3 per XCC.

    Kinds, sizes and their order are those of the MI308X capture; which units share is drawn evenly.
    """
    shared = (model.caches_per_xcc - model.compute_units - 2) // 2
    units = model.compute_units
    texts = []
    for _xcc in range(node.xcc_count):
        texts += [_cache(node.simd_id_base + unit, 1, 32, 9, 1) for unit in range(units)]
        for size, kind in ((64, 10), (16, 9)):
            texts += [_cache(node.simd_id_base + 2 * group, 1, size, kind, 2) for group in range(shared)]
        texts += [_cache(node.simd_id_base, level, size, 9, units) for level, size in ((2, 4096), (3, 65536))]
    return texts


def _cache(processor: int, level: int, kib: int, kind: int, siblings: int) -> str:
    width = 32 if siblings <= 2 else 128
    siblings_map = ",".join("1" if unit < siblings else "0" for unit in range(width))
    return (
        f"processor_id_low {processor}\nlevel {level}\nsize {kib}\ncache_line_size 0\ncache_lines_per_tag 0\n"
        f"association 0\nlatency 0\ntype {kind}\nsibling_map {siblings_map}\n"
    )


def _shape(model: SimModel, node: KfdNode) -> list[tuple[str, int]]:
    return [
        ("max_waves_per_simd", 8),
        ("lds_size_in_kb", lds_kib(model)),
        ("gds_size_in_kb", 0),
        ("num_gws", 64),
        ("wave_front_size", 64),
        ("array_count", ARRAYS_PER_XCC * node.xcc_count),
        ("simd_arrays_per_engine", 1),
        ("cu_per_simd_array", CU_SLOTS_PER_XCC // ARRAYS_PER_XCC),
        ("simd_per_cu", 4),
        ("max_slots_scratch_cu", 32),
    ]


def _identity(gpu: SimGpu, node: KfdNode, model: SimModel) -> list[tuple[str, int]]:
    return [
        ("gfx_target_version", model.gfx_target),
        ("vendor_id", 0x1002),
        ("device_id", model.device_id),
        ("location_id", gpu.bus << 8 | node.index),  # pci_dev_id | node_id; devfn is 0 on Instinct
        ("domain", 0),
        ("drm_render_minor", node.render_minor),
        ("hive_id", gpu.hive_id),
    ]


def _engines(model: SimModel, gpu: SimGpu, node: KfdNode) -> list[tuple[str, int]]:
    engines = model.sdma_engines * node.xcc_count // gpu.xcc_count
    own = min(engines, SDMA_PER_NODE)
    return [
        ("num_sdma_engines", own),
        ("num_sdma_xgmi_engines", engines - own),
        ("num_sdma_queues_per_engine", 8),
        ("num_cp_queues", 24),
    ]


def _render(pairs: list[tuple[str, int]]) -> str:
    return "".join(f"{key} {value}\n" for key, value in pairs)


def _align(value: int) -> int:
    return (value + PAGE - 1) // PAGE * PAGE
