"""GPUs and their partitions."""

from __future__ import annotations

from http import HTTPStatus

from aimd.adapters.http.api import Api, Collection
from aimd.adapters.http.call import Answer, Call, Result
from aimd.adapters.http.resources.common import SINCE, WATCH, watched
from aimd.adapters.http.routes import Route
from aimd.domain.node import NodeSnapshot
from aimd.errors import NotFoundError
from aimd.protocol import convert
from aimd.protocol import messages as msg
from aimd.protocol.convert_memory import detail_message, finding_messages
from aimd.protocol.memory import FindingListMessage, PartitionDetailMessage
from aimd.protocol.watch import WatchMessage


def _gpus(snapshot: NodeSnapshot, _now: float) -> dict[str, msg.GpuMessage]:
    return {gpu.pci_address: gpu for gpu in convert.gpu_messages(snapshot)}


def _partitions(snapshot: NodeSnapshot, _now: float) -> dict[str, msg.PartitionMessage]:
    return {part.id: part for status in snapshot.gpus for part in convert.partition_messages(status, snapshot)}


GPUS = Collection(_gpus)
PARTITIONS = Collection(_partitions)


async def list_gpus(api: Api, call: Call) -> Result:
    return await watched(api, call, GPUS) or Answer(convert.inventory_message(api.snapshot()))


async def read_gpu(api: Api, call: Call) -> Answer:
    snapshot = api.snapshot()
    return Answer(convert.gpu_messages(snapshot)[snapshot.find(call.path["gpu"]).index])


async def list_partitions(api: Api, call: Call) -> Result:
    if (stream := await watched(api, call, PARTITIONS)) is not None:
        return stream
    snapshot = api.snapshot()
    found = list(_partitions(snapshot, 0.0).values())
    return Answer(msg.PartitionListMessage(partitions=found, generation=snapshot.generation))


async def read_partition(api: Api, call: Call) -> Result:
    snapshot = api.snapshot()
    status, index = snapshot.find(call.path["gpu"]), call.path["index"]
    for partition in convert.partition_messages(status, snapshot):
        if str(partition.index) == index:
            return Answer(detail_message(partition, snapshot))
    has = f"it has {len(status.gpu.partitions)} in mode {status.gpu.mode}"
    raise NotFoundError(
        f"{status.name} has no partition {index!r}", code="unknown_partition", hint=f"{has}, counted from 0"
    )


async def list_findings(api: Api, _call: Call) -> Result:
    snapshot = api.snapshot()
    return Answer(FindingListMessage(findings=finding_messages(snapshot), generation=snapshot.generation))


async def drain_gpu(api: Api, call: Call) -> Result:
    call.body(msg.DrainRequest, "{}")
    return await _set_draining(api, call, draining=True)


async def undrain_gpu(api: Api, call: Call) -> Result:
    return await _set_draining(api, call, draining=False)


async def _set_draining(api: Api, call: Call, *, draining: bool) -> Answer:
    address = api.snapshot().find(call.path["gpu"]).gpu.pci_address
    api.operators.require(call.peer)
    await api.control.set_draining(address, draining=draining)
    return await read_gpu(api, call)


_LISTED = (HTTPStatus.BAD_REQUEST, HTTPStatus.GONE)
_NAMED = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND)
_CHANGED = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)

ROUTES = (
    Route(
        "GET",
        "/v1/gpus",
        "All GPUs of the node with their partitions",
        list_gpus,
        {200: msg.InventoryMessage},
        query=(WATCH, SINCE),
        lines=WatchMessage[msg.GpuMessage],
        problems=_LISTED,
    ),
    Route("GET", "/v1/gpus/{gpu}", "One GPU", read_gpu, {200: msg.GpuMessage}, problems=_NAMED),
    Route(
        "PUT",
        "/v1/gpus/{gpu}/drain",
        "Close a GPU for new claims; what is placed there stays until it is released",
        drain_gpu,
        {200: msg.GpuMessage},
        body=msg.DrainRequest,
        problems=_CHANGED,
    ),
    Route(
        "DELETE",
        "/v1/gpus/{gpu}/drain",
        "Open a GPU for claims again",
        undrain_gpu,
        {200: msg.GpuMessage},
        problems=_CHANGED,
    ),
    Route(
        "GET",
        "/v1/partitions",
        "All partitions of the node",
        list_partitions,
        {200: msg.PartitionListMessage},
        query=(WATCH, SINCE),
        lines=WatchMessage[msg.PartitionMessage],
        problems=_LISTED,
    ),
    Route(
        "GET",
        "/v1/partitions/{gpu}/{index}",
        "One partition, with the account of its memory",
        read_partition,
        {200: PartitionDetailMessage},
        problems=_NAMED,
    ),
    Route(
        "GET",
        "/v1/findings",
        "What of the partitions' memory is not as it should be",
        list_findings,
        {200: FindingListMessage},
    ),
)
