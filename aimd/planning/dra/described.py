"""How a device is described: its capacities, counters and attributes as entries of a ResourceSlice (resource.k8s.io/v1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from aimd.domain.device_name import DeviceName
from aimd.domain.node import GpuStatus
from aimd.planning.dra.quantities import STEP_UNITS, count_text, memory_text
from aimd.planning.dra.surroundings import Surroundings

# Names that Kubernetes defines for all drivers (k8s.io/dynamic-resource-allocation/deviceattribute, and the reference
# page of standard device attributes), so that devices of several drivers can be asked for at one place.
PCI_BUS_ID = "resource.kubernetes.io/pciBusID"
PCIE_ROOT = "resource.kubernetes.io/pcieRoot"
NUMA_NODE = "resource.kubernetes.io/numaNode"
LONGEST_STRING = 64  # of an attribute
_SEMVER = re.compile(r"(0|[1-9]\d*)[.](0|[1-9]\d*)[.](0|[1-9]\d*)(-[0-9A-Za-z-]+([.][0-9A-Za-z-]+)*)?")
_ZEROS = re.compile(r"[-.]0\d+(?=[.]|$)")  # a number with leading zeros is no part of a semantic version


def counters(amounts: Mapping[str, int]) -> dict[str, Any]:
    """Of a counter set, or what a device consumes of one."""
    return {name: {"value": str(amount)} for name, amount in amounts.items()}


def memory_capacity(units: int) -> dict[str, Any]:
    """A claim that names no size gets all that others have not reserved.

    The API server wants room for a step above the least; without any room there is nothing that could be asked for.
    """
    value, step = memory_text(units), memory_text(STEP_UNITS)
    if not units:
        return {"value": value}
    valid = {"min": step, "max": value, **({"step": step} if units > STEP_UNITS else {})}
    return {"value": value, "requestPolicy": {"default": value, "validRange": valid}}


def slots_capacity(count: int) -> dict[str, Any]:
    value = count_text(count)
    valid = {"min": "0", "max": value, **({"step": "1"} if count else {})}
    return {"value": value, "requestPolicy": {"default": "0", "validRange": valid}}


def attributes(name: DeviceName, status: GpuStatus, around: Surroundings) -> dict[str, Any]:
    """What a claim can select by; unknown is absent. -1 is sysfs's word for no NUMA node."""
    gpu = status.gpu
    numa = gpu.numa_node if gpu.numa_node is not None and gpu.numa_node >= 0 else None
    said = {
        "productName": ("string", gpu.model.name if gpu.model is not None else None),
        "computeMode": ("string", name.mode.value),
        "memoryMode": ("string", gpu.memory_mode.value if gpu.memory_mode is not None else None),
        "gpu": ("string", status.name),
        "index": ("int", name.index),
        "driverVersion": ("version", semantic_version(around.driver_version)),
        NUMA_NODE: ("int", numa),
        PCI_BUS_ID: ("string", gpu.pci_address),
        PCIE_ROOT: ("string", around.pcie_roots.get(gpu.pci_address)),
    }
    return {key: {kind: value} for key, (kind, value) in said.items() if value is not None}


def semantic_version(text: str | None) -> str | None:
    """The version that a driver says, `6.12.12` or `6.8.0-45-generic`; None if it is no semantic version."""
    fits = text is not None and len(text) <= LONGEST_STRING and _SEMVER.fullmatch(text) and not _ZEROS.search(text)
    return text if fits else None
