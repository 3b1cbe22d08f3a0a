"""From the node to its devices: every partition of every GPU in every mode, in the order in which they are to be taken.

The scheduler takes the first device that fits. So the order is the placement policy, the same as for claims of the node:
partitions that are there before those that need a switch; of these the one with the least room first, so that the first
that fits is the fullest that fits; among equals those of the fullest GPU, so that idle GPUs stay free to be switched.
Of the others those of a GPU that is being switched to their mode come first, then small partitions before large ones, and
GPUs whose wished mode it is before GPUs whose wish it would set aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aimd.domain.device_name import FAILED, MEMORY, READY, SLOTS, DeviceName
from aimd.domain.gpu import GpuState
from aimd.domain.memory import nominal_units
from aimd.domain.modes import ComputeMode
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.planning.dra.counters import LockCounters
from aimd.planning.dra.described import attributes, counters, memory_capacity, slots_capacity
from aimd.planning.dra.divisions import Division, division, present_mode
from aimd.planning.dra.quantities import STEP_UNITS
from aimd.planning.dra.surroundings import Surroundings
from aimd.planning.dra.taints import FULL, UNHEALTHY, taint, taints
from aimd.planning.dra.taken import NOTHING, Spot, Taken, taken, target_mode


@dataclass(frozen=True, slots=True)
class Devices:
    """What a node offers.

    Attributes:
        counter_sets: entries of `sharedCounters`, one for each GPU with modes to choose from.
        devices: entries of `devices`, in the order in which they are to be taken.
    """

    counter_sets: tuple[Mapping[str, Any], ...]
    devices: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Device:
    """A device with what orders it; free and size are in units of 1/1024 GB."""

    name: DeviceName
    said: Mapping[str, Any]
    settled: bool
    on_its_way: bool
    against_wish: bool
    free: int
    gpu_free: int

    @property
    def order(self) -> tuple[object, ...]:
        name = self.name
        return (
            not self.settled,
            not self.on_its_way,
            self.free,
            self.against_wish,
            self.gpu_free,
            name.gpu,
            name.index,
        )


def devices(snapshot: NodeSnapshot, around: Surroundings) -> Devices:
    """All devices of the node; of GPUs in an unknown mode none."""
    by = taken(snapshot)
    counter_sets: list[Mapping[str, Any]] = []
    found: list[_Device] = []
    for status in snapshot.gpus:
        gpu = _GpuDevices(status, around, by, target_mode(status, snapshot), division(status.gpu))
        if gpu.locks.capacities:
            counter_sets.append({"name": status.name, "counters": counters(gpu.locks.capacities)})
        found += gpu.devices()
    found.sort(key=lambda device: device.order)
    return Devices(tuple(counter_sets), tuple(device.said for device in found))


@dataclass(frozen=True, slots=True)
class _GpuDevices:
    """The devices of one GPU; `target` is the mode that it is being switched to."""

    status: GpuStatus
    around: Surroundings
    by: Taken
    target: ComputeMode | None
    division: Division

    @property
    def locks(self) -> LockCounters:
        return LockCounters({mode: len(sizes) for mode, sizes in self.division.items()})

    def devices(self) -> list[_Device]:
        """In every mode."""
        return [
            self._device(mode, index, size) for mode, sizes in self.division.items() for index, size in enumerate(sizes)
        ]

    def _device(self, mode: ComputeMode, index: int, size: int | None) -> _Device:
        status, spot = self.status, self._spot(mode, index)
        name = DeviceName(status.index, mode, index)
        outside = self.by.outside.get(spot, NOTHING)
        value, settled = _value(size, outside.units), self._settled(mode)
        said: dict[str, Any] = {
            "name": str(name),
            "attributes": attributes(name, status, self.around),
            "capacity": {
                MEMORY: memory_capacity(value),
                SLOTS: slots_capacity(max(0, self.around.slots_per_partition - outside.slots)),
            },
            "allowMultipleAllocations": True,
        }
        if consumed := self.locks.consumed(mode, index):
            said["consumesCounters"] = [{"counterSet": status.name, "counters": counters(consumed)}]
        if not settled:
            said |= {"bindsToNode": True, "bindingConditions": [READY], "bindingFailureConditions": [FAILED]}
        if tainted := self._taints(mode, index, size, value):
            said["taints"] = tainted
        wish = status.wish.compute if status.wish is not None else None
        free = value - self.by.allocated.get(spot, NOTHING).units
        return _Device(name, said, settled, mode is self.target, wish not in (None, mode), free, self._gpu_free)

    def _taints(self, mode: ComputeMode, index: int, size: int | None, value: int) -> list[dict[str, Any]]:
        status = self.status
        busy = status.gpu.pci_address in self.by.busy
        found = taints(status, mode, self.target, self.around, busy=busy)
        ready_there = mode is present_mode(status.gpu) and status.gpu.state is GpuState.READY
        missing = ready_there and all(partition.index != index for partition in status.gpu.partitions)
        if size is None or missing:
            found.append(taint(UNHEALTHY, "missing"))
        elif not value:
            found.append(taint(FULL, "outside"))
        return found

    def _settled(self, mode: ComputeMode) -> bool:
        """Whether nothing has to happen before a pod can have a partition of this mode."""
        gpu = self.status.gpu
        return mode is present_mode(gpu) and gpu.state is GpuState.READY and self.status.change is None

    @property
    def _gpu_free(self) -> int:
        """What is left of the whole GPU, in the mode that it is in or will be in."""
        mode = self.target or present_mode(self.status.gpu)
        spots = (
            [(self._spot(mode, index), size) for index, size in enumerate(self.division.get(mode, ()))] if mode else []
        )
        return sum(
            _value(size, self.by.outside.get(spot, NOTHING).units) - self.by.allocated.get(spot, NOTHING).units
            for spot, size in spots
        )

    def _spot(self, mode: ComputeMode, index: int) -> Spot:
        return (self.status.gpu.pci_address, mode, index)


def _value(size: int | None, outside_units: int) -> int:
    """Units that claims can have of a partition, in whole steps."""
    units = nominal_units(size) - outside_units if size is not None else 0
    return max(0, units) // STEP_UNITS * STEP_UNITS
