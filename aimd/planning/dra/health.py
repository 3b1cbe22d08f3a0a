"""Whether devices are well, for the status of the pods that have them."""

from __future__ import annotations

from aimd.domain.device_name import DeviceName
from aimd.domain.dra import DeviceHealth
from aimd.domain.gpu import GpuState
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.planning.dra.divisions import division, present_mode


def health(snapshot: NodeSnapshot, pool: str) -> tuple[DeviceHealth, ...]:
    """Of all devices; of one whose GPU is in another mode nobody knows."""
    return tuple(
        _health(DeviceName(status.index, mode, index), status, pool)
        for status in snapshot.gpus
        for mode, sizes in division(status.gpu).items()
        for index in range(len(sizes))
    )


def _health(name: DeviceName, status: GpuStatus, pool: str) -> DeviceHealth:
    gpu = status.gpu
    if gpu.state is not GpuState.READY:
        return DeviceHealth(pool, str(name), healthy=False, message=f"{status.name} is {gpu.state}")
    if gpu.in_reset:
        return DeviceHealth(pool, str(name), healthy=False, message=f"{status.name} is being reset")
    if present_mode(gpu) is not name.mode:
        return DeviceHealth(pool, str(name), healthy=None, message=f"{status.name} is in {present_mode(gpu)}")
    if all(one.index != name.index for one in gpu.partitions):
        return DeviceHealth(pool, str(name), healthy=False, message=f"{status.name} lacks partition {name.index}")
    return DeviceHealth(pool, str(name), healthy=True)
