"""Memory of KFD clients on partitions as the driver counts it: what is free, what an allocation adds, when it fails.

Sources: amdgpu_amdkfd_gpuvm.c (amdgpu_amdkfd_get_available_memory, amdgpu_amdkfd_reserve_mem_limit,
amdgpu_amdkfd_gpuvm_alloc_memory_of_gpu), kfd_chardev.c (vram_usage). Not modelled: the allocation mode ALL, and memory
of DRM clients, which KFD does not count either.
"""

from __future__ import annotations

import errno

import msgspec

from aimd.sim.hardware import GIB, PAGE
from aimd.sim.properties import unique_id
from aimd.sim.state import KfdNode, SimClient, SimState

GRANULE = 2 << 20  # VRAM_AVAILABILITY_ALIGN: each allocation counts as a multiple of it where free memory is told
LEAST_PAGE_TABLES = 8 << 20
PAGE_TABLE_SHARE = 14  # ESTIMATE_PT_SIZE: a 2**14th of the machine's memory, RAM and VRAM of all GPUs


class SimDevice(msgspec.Struct, frozen=True):
    """A GPU node as HIP shows it; the order of the fields is what the stand-in for libamdhip64 reads them by."""

    gpu_id: int
    bus_id: str
    total: int
    unique_id: str
    compute_units: int


def device_of(state: SimState, node: KfdNode) -> SimDevice:
    """The function of the bus id is the partition's index."""
    gpu = state.gpu(node.address)
    identity = f"{unique_id(state, gpu, node):016x}"
    units = node.xcc_count * state.hardware.compute_units
    return SimDevice(node.gpu_id, f"{node.address[:-1]}{node.index}", node.memory_bytes, identity, units)


def page_table_reserve(state: SimState) -> int:
    """Bytes that every partition keeps back for page tables (reserved_for_pt)."""
    vram = len(state.gpus) * state.hardware.memory_bytes
    return max(state.system_memory_gib * GIB + vram >> PAGE_TABLE_SHARE, LEAST_PAGE_TABLES)


def reserves(state: SimState) -> int:
    """What is subtracted from each partition in full: pinned memory of its GPU, page tables, RAS."""
    return state.pinned_bytes + page_table_reserve(state) + state.ras_bytes


def available(state: SimState, node: KfdNode) -> int:
    """Free bytes of a partition, as the ioctl behind hipMemGetInfo answers."""
    counted = sum(client.granules.get(node.gpu_id, 0) for client in state.clients)
    left = node.memory_bytes - counted - reserves(state)
    return max(left // GRANULE * GRANULE, 0)


def living_client(state: SimState, pid: int) -> SimClient | None:
    """The client of this pid, unless it is dead and not yet released."""
    return next((client for client in state.clients if client.pid == pid and client.reap_at is None), None)


def allocate(state: SimState, pid: int, gpu_id: int, count: int) -> int:
    """Give a client `count` more bytes, in whole pages: ESRCH if it is none, EINVAL for a foreign gpu_id, ENOMEM."""
    client, node = living_client(state, pid), _node(state, gpu_id)
    if client is None:
        return errno.ESRCH
    if node is None or gpu_id not in client.vram:
        return errno.EINVAL
    used = sum(each.vram.get(gpu_id, 0) for each in state.clients)
    if used + _up(count, PAGE) > node.memory_bytes - reserves(state):
        return errno.ENOMEM
    client.vram[gpu_id] += _up(count, PAGE)
    client.granules[gpu_id] = client.granules.get(gpu_id, 0) + _up(count, GRANULE)
    return 0


def release(state: SimState, pid: int, gpu_id: int, count: int) -> int:
    """Take back what `allocate` gave for the same count; EINVAL if the client has not so much."""
    client = living_client(state, pid)
    if client is None:
        return errno.ESRCH
    if client.vram.get(gpu_id, 0) < _up(count, PAGE):
        return errno.EINVAL
    client.vram[gpu_id] -= _up(count, PAGE)
    client.granules[gpu_id] = max(0, client.granules.get(gpu_id, 0) - _up(count, GRANULE))
    return 0


def set_use(state: SimState, pid: int, gpu_id: int, count: int) -> int:
    """Set a client's memory on a partition, whatever it was; errno as `allocate`, ENOMEM beyond the partition's size."""
    client, node = living_client(state, pid), _node(state, gpu_id)
    if client is None:
        return errno.ESRCH
    if node is None or gpu_id not in client.vram:
        return errno.EINVAL
    others = sum(each.vram.get(gpu_id, 0) for each in state.clients if each is not client)
    if others + count > node.memory_bytes:
        return errno.ENOMEM
    client.vram[gpu_id] = count
    client.granules[gpu_id] = _up(count, GRANULE)
    return 0


def _node(state: SimState, gpu_id: int) -> KfdNode | None:
    return next((node for node in state.nodes if node.gpu_id == gpu_id), None)


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit
