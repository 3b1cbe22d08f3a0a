"""Hand-made captures of KFD topologies and PCI device files, as small as what is read of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CPU = {"cpu_cores_count": 96, "simd_count": 0}
GIB = 1 << 30


def write(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Make the files below the root; a path that ends with a slash is an empty folder."""
    for name, text in files.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def properties(values: Mapping[str, int]) -> str:
    return "".join(f"{name} {value}\n" for name, value in values.items())


def gpu(bus: int, index: int = 0, **changes: int | None) -> dict[str, int]:
    """Properties of a GPU node, an MI300X partition in CPX mode unless changed; None takes one away."""
    values: dict[str, int | None] = {
        "cpu_cores_count": 0,
        "simd_count": 152,
        "mem_banks_count": 1,
        "simd_per_cu": 4,
        "gfx_target_version": 90402,
        "vendor_id": 0x1002,
        "device_id": 0x74A1,
        "location_id": bus << 8 | index,
        "domain": 0,
        "drm_render_minor": 128 + index,
        "hive_id": 7,
        "num_xcc": 1,
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def node(number: int, values: Mapping[str, int], gpu_id: int | None = None, size: int | None = None) -> dict[str, str]:
    """Files of one node; without gpu_id or size those files are missing, as in many captures."""
    files = {f"nodes/{number}/properties": properties(values)}
    if gpu_id is not None:
        files[f"nodes/{number}/gpu_id"] = f"{gpu_id}\n"
    if size is not None:
        bank = {"heap_type": 1, "size_in_bytes": size, "flags": 0, "width": 8192, "mem_clk_max": 1300}
        files[f"nodes/{number}/mem_banks/0/properties"] = properties(bank)
    return files


def below(prefix: str, files: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}/{name}": text for name, text in files.items()}


def device(address: str, compute: str, memory: str, **more: str) -> dict[str, str]:
    """Files of a PCI device with partition modes; keyword arguments are further files."""
    files = {"current_compute_partition": f"{compute}\n", "current_memory_partition": f"{memory}\n", **more}
    return below(f"bus/pci/drivers/amdgpu/{address}", files)


MI308X_SIZES = (51539607552, 51539607552, 51539607552, 51522830336)  # CPX/NPS4: the last range is 16 MiB short
MI308X_BUSES = (0xA4, 0x0C)


def mi308x_topology() -> dict[str, str]:
    """Two MI308X in CPX/NPS4: four partitions each, eight render nodes each, nodes out of the order of the bus."""
    files = {"generation_id": "12\n", **node(0, CPU, gpu_id=0), **node(1, CPU, gpu_id=0)}
    numbers = iter(range(2, 10))
    for place, bus in enumerate(MI308X_BUSES):
        for index, size in enumerate(MI308X_SIZES):
            changes = {"device_id": 0x74A2, "simd_count": 80, "drm_render_minor": 128 + 8 * place + index}
            files |= node(next(numbers), gpu(bus, index, **changes), gpu_id=1000 + 10 * place + index, size=size)
    return files
