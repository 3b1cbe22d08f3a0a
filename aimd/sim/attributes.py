"""Settings of a GPU that sysfs changes at once: allocation mode, the what-if mode of the configuration, isolation."""

from __future__ import annotations

import errno

from aimd.domain.modes import ComputeMode
from aimd.domain.silicon import partition_count
from aimd.sim.state import SimGpu

ISOLATION_LEVELS = ("0", "1", "2", "3")


def compute_mode(data: bytes) -> ComputeMode | None:
    """The mode that a write names: a prefix, in any case, as the kernel's strncasecmp(mode, buf, 3)."""
    return next((mode for mode in ComputeMode if data[:3].upper() == mode.value.encode()), None)


def supported(gpu: SimGpu) -> list[ComputeMode]:
    """Modes by the number of XCCs alone; none for an odd number (a harvested GPU)."""
    if gpu.xcc_count % 2:
        return []
    return [mode for mode in ComputeMode if partition_count(mode, gpu.xcc_count) is not None]


def write_alloc_mode(gpu: SimGpu, data: bytes) -> int:
    """`compute_partition_mem_alloc_mode` store; errno."""
    for word in ("CAPPING", "ALL"):
        if data.upper().startswith(word.encode()):
            gpu.alloc_mode = word
            return 0
    return errno.EINVAL


def write_xcp_config(gpu: SimGpu, data: bytes) -> int:
    """`xcp_config` store: which mode its sibling files describe. Does not switch the GPU; errno."""
    mode = compute_mode(data)
    if mode not in supported(gpu):
        return errno.EINVAL
    gpu.xcp_config = mode
    return 0


def isolation(gpu: SimGpu) -> str:
    """`enforce_isolation`: a number per partition."""
    return " ".join(str(level) for level in _levels(gpu)) + "\n"


def write_isolation(gpu: SimGpu, data: bytes) -> int:
    """`enforce_isolation` store: exactly one number from 0 to 3 per partition; errno."""
    words = data.decode("ascii", "replace").split()
    if len(words) != len(_levels(gpu)) or any(word not in ISOLATION_LEVELS for word in words):
        return errno.EINVAL
    gpu.isolation = [int(word) for word in words]
    return 0


def _levels(gpu: SimGpu) -> list[int]:
    count = partition_count(gpu.mode_file, gpu.xcc_count) or 1
    return (gpu.isolation + [0] * count)[:count]
