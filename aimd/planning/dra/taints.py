"""Why a device is not for new claims: its taints. A claim may tolerate each by its key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aimd.domain.gpu import GpuState
from aimd.domain.modes import ComputeMode
from aimd.domain.node import GpuStatus
from aimd.planning.dra.divisions import present_mode
from aimd.planning.dra.surroundings import Surroundings
from aimd.planning.rooms import Repartition

DRAINING = "gpu.aimd.dev/draining"  # an operator closes the GPU
UNHEALTHY = "gpu.aimd.dev/unhealthy"  # the GPU or this partition is not there, or is being reset
FOREIGN_OWNER = "gpu.aimd.dev/foreign-owner"  # another manager of partitions is on the node
SWITCHING = "gpu.aimd.dev/switching"  # the GPU is about to be in another mode than this
BUSY = "gpu.aimd.dev/busy"  # the GPU cannot get into this mode for what is on it, of which the scheduler does not know
FIXED_MODE = "gpu.aimd.dev/fixed-mode"  # the GPU may not be switched, or a switch has just failed
FULL = "gpu.aimd.dev/full"  # others have reserved all of its memory

NO_SCHEDULE, NO_EXECUTE = "NoSchedule", "NoExecute"


def taints(
    status: GpuStatus, mode: ComputeMode, target: ComputeMode | None, around: Surroundings, *, busy: bool
) -> list[dict[str, Any]]:
    """Of all devices that a GPU has in a mode.

    Args:
        target: the mode that a change under way leads to.
        busy: it cannot change its mode now.
    """
    found = [*_of_gpu(status, around)]
    if status.change is not None and mode is not target:
        found.append(taint(SWITCHING, "away"))
    if mode is not present_mode(status.gpu):
        if busy:
            found.append(taint(BUSY, "outside"))
        if status.gpu.pci_address in around.unswitchable:
            found.append(taint(FIXED_MODE, "switch-failed"))
        elif around.repartition is Repartition.NEVER:
            found.append(taint(FIXED_MODE, "policy"))
    return found


def taint(key: str, value: str, effect: str = NO_SCHEDULE) -> dict[str, Any]:
    """As ResourceSlices have it; the API server adds the time."""
    return {"key": key, "value": value, "effect": effect}


def _of_gpu(status: GpuStatus, around: Surroundings) -> Iterator[dict[str, Any]]:
    gpu = status.gpu
    if status.draining:
        expelled = gpu.pci_address in around.expelled
        yield taint(DRAINING, "operator", NO_EXECUTE if expelled else NO_SCHEDULE)
    if gpu.state is not GpuState.READY:
        yield taint(UNHEALTHY, gpu.state.value)
    elif gpu.in_reset:
        yield taint(UNHEALTHY, "in-reset")
    if around.rivals:
        yield taint(FOREIGN_OWNER, "other-manager")
