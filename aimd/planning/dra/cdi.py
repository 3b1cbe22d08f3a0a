"""From an allocated claim to what its containers get: the partition's device files and nothing else of any GPU.

With them a container is a KFD client of its own GPU alone, so that others can be switched beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from aimd.domain.dra import ContainerDevice, DeviceNode, Mount
from aimd.domain.node import NodeSnapshot
from aimd.errors import ConflictError, NotFoundError
from aimd.planning.dra.requests import Allocation, Reservation

KFD, DRI = "/dev/kfd", "/dev/dri"
SOCKETS = "/run/aimd"
DISPATCH_SOCKET = f"{SOCKETS}/dispatch.sock"


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """Where the node has what containers get: the socket folder, and the files of the driver."""

    sockets: str = SOCKETS
    kfd: str = KFD
    dri: str = DRI


def container_devices(
    allocated: Allocation, model: str, snapshot: NodeSnapshot, files: NodeFiles
) -> tuple[ContainerDevice, ...]:
    """One device for each request of the claim.

    Raises:
        ConflictError: a partition is not there now: its GPU is not (any more) in the mode.
    """
    return tuple(_device(one, model, snapshot, files) for one in allocated.reservations)


def _device(one: Reservation, model: str, snapshot: NodeSnapshot, files: NodeFiles) -> ContainerDevice:
    render = f"renderD{_render_minor(one, snapshot)}"
    limit = {"AIM_MEMORY_LIMIT_BYTES": str(one.memory_bytes)} if one.memory_bytes is not None else {}
    return ContainerDevice(
        request=one.request,
        nodes=(_node(KFD, files.kfd), _node(f"{DRI}/{render}", f"{files.dri}/{render}")),
        environment={
            "ROCR_VISIBLE_DEVICES": "0",  # the only one whose file it may open
            "AIM_CLAIM": model,
            "AIM_PARTITION_ID": str(one.spec.partition),
            **limit,
            "AIMD_DISPATCH_SOCKET": DISPATCH_SOCKET,  # who is not root would look elsewhere
        },
        mounts=(Mount(files.sockets, SOCKETS),),
    )


def _render_minor(one: Reservation, snapshot: NodeSnapshot) -> int:
    try:
        status = snapshot.find(one.name.gpu_name)
    except NotFoundError as error:
        raise ConflictError(f"device {one.name} is not there: {error.message}", code="partition_missing") from error
    gpu = status.gpu
    for partition in gpu.partitions if gpu.compute_mode in (one.name.mode, None) else ():
        if partition.index == one.name.index and partition.render_minor is not None:
            return partition.render_minor
    raise ConflictError(
        f"device {one.name} is not there: {status.name} is {gpu.state} in mode {gpu.mode}, expected {one.name.mode}",
        code="partition_missing",
        hint="a mode switch or driver load may be under way: it is tried again",
    )


def _node(path: str, on_node: str) -> DeviceNode:
    return DeviceNode(path, on_node if on_node != path else None)
