"""What can be asked of a simulated node on its control socket, who may ask it, and the answer.

The socket itself is sim/control.py. One request and one answer are one line of JSON each, so that a client in C needs
no more than string functions: `{"op":"join"}` is answered by `{"ok":true}` or `{"ok":false,"errno":22,"error":"..."}`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Annotated, NamedTuple

import msgspec

from aimd.errors import AimdError, InvalidInputError
from aimd.sim.activity import set_work
from aimd.sim.driver import Driver
from aimd.sim.memory import SimDevice, allocate, available, device_of, living_client, release, set_use
from aimd.sim.node import SimulatedNode
from aimd.sim.state import FaultKind, SimFault

LONGEST_FAULT_SECONDS = 3600.0


class Peer(NamedTuple):
    """The process at the other end (SO_PEERCRED); pid 0 if it lives in a pid namespace that is not ours."""

    pid: int
    uid: int


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of answer; `errno` and `error` (one sentence) only if not ok, the rest only after what asks for it."""

    ok: bool
    errno: int | None = None
    error: str | None = None
    state: msgspec.Raw | None = None
    devices: list[SimDevice] | None = None
    free: int | None = None


class _Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op"):
    pass


class Join(_Request, frozen=True, tag="join"):
    """The asking process opens /dev/kfd, with access to these GPUs (null = all)."""

    gpus: list[str] | None = None


class Use(_Request, frozen=True, tag="use"):
    """The asking process, a KFD client, now has `vram` bytes allocated on the partition `gpu_id`."""

    gpu_id: int
    vram: Annotated[int, msgspec.Meta(ge=0)]


class Compute(_Request, frozen=True, tag="compute"):
    """The asking process, a KFD client, keeps the partition `gpu_id` busy for this share of the time from now on."""

    gpu_id: int
    share: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Devices(_Request, frozen=True, tag="devices"):
    """The GPU nodes that the asking process, a KFD client, may use, in the order of KFD's list."""


class Available(_Request, frozen=True, tag="available"):
    """The free bytes of a partition, as AMDKFD_IOC_AVAILABLE_MEMORY tells a client."""

    gpu_id: int


class Allocate(_Request, frozen=True, tag="allocate"):
    """The asking process, a KFD client, wants so many more bytes on the partition `gpu_id`."""

    gpu_id: int
    size: Annotated[int, msgspec.Meta(ge=1)]


class Free(_Request, frozen=True, tag="free"):
    """It gives back what it had asked for by one `allocate`."""

    gpu_id: int
    size: Annotated[int, msgspec.Meta(ge=1)]


class Fault(_Request, frozen=True, tag="fault"):
    """Arm a fault `remaining` times (null = until cleared) on one GPU (null = all)."""

    kind: FaultKind
    gpu: str | None = None
    remaining: Annotated[int, msgspec.Meta(ge=1)] | None = 1
    seconds: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_FAULT_SECONDS)] = 0.0


class ClearFaults(_Request, frozen=True, tag="clear-faults"):
    """Disarm all armed faults; what happened already (a lost device, a dead KFD) stays."""


class Reload(_Request, frozen=True, tag="reload"):
    """Unload and load the amdgpu module; answered when the last GPU is bound, or when the load hangs."""


class Reboot(_Request, frozen=True, tag="reboot"):
    """Power cycle the node."""


class Status(_Request, frozen=True, tag="status"):
    """The whole state as JSON."""


Request = Join | Use | Compute | Devices | Available | Allocate | Free | Fault | ClearFaults | Reload | Reboot | Status

OPERATIONS = (
    "join",
    "use",
    "compute",
    "devices",
    "available",
    "allocate",
    "free",
    "fault",
    "clear-faults",
    "reload",
    "reboot",
    "status",
)
# As /dev/kfd and sysfs are; the rest acts on the whole node.
_FOR_EVERYBODY = (Join, Use, Compute, Devices, Available, Allocate, Free, Status)
_DECODER: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)


def decode(line: bytes) -> Request:
    """The request in a line; raises InvalidInputError with one sentence."""
    try:
        return _DECODER.decode(line)
    except msgspec.DecodeError as cause:
        raise InvalidInputError(
            f"the request is not understood ({cause}), expected one JSON object a line with "
            f'"op" one of {", ".join(OPERATIONS)}'
        ) from cause


def refusal(code: int, sentence: str) -> Answer:
    return Answer(ok=False, errno=code, error=sentence)


def permitted(request: Request, peer_uid: int, own_uid: int) -> bool:
    """Whether this user may ask for it: what changes the whole node is for root and the node's own user."""
    return isinstance(request, _FOR_EVERYBODY) or peer_uid in (0, own_uid)


def gpu_address(node: SimulatedNode, name: str) -> str:
    """PCI address of a GPU named `gpu0` or by its address; raises InvalidInputError."""
    addresses = node.gpu_addresses
    names = {f"gpu{position}": address for position, address in enumerate(addresses)}
    address = names.get(name, name.lower())
    if address not in addresses:
        raise InvalidInputError(
            f"GPU {name} is not in the simulated node, expected gpu0..gpu{len(addresses) - 1} or a PCI address "
            f"like {addresses[0]}"
        )
    return address


def perform(node: SimulatedNode, request: Request, peer: Peer, start_time: int = 0) -> Answer:
    """Carry out a permitted request; blocks for the node's lock. `start_time` is the peer's, for Join."""
    try:
        if isinstance(request, Status):
            return Answer(ok=True, state=msgspec.Raw(node.state_json()))
        if isinstance(request, Reload):
            return _reloaded(node.reload())
        if isinstance(request, Devices | Available):
            return _told(node, request, peer.pid)
        operation, refused = _operation(node, request, peer, start_time)
    except AimdError as error:
        return refusal(errno.EINVAL, error.message)
    code = node.act(operation, keep=not isinstance(request, Compute))
    return refusal(code, f"{refused}: {os.strerror(code)}") if code else Answer(ok=True)


def _reloaded(code: int) -> Answer:
    if code == errno.ETIMEDOUT:
        return refusal(code, "the load of the amdgpu module hangs half-way, expected `aimd sim clear` to let it go on")
    sentence = "the amdgpu module cannot be unloaded, expected no KFD client and no mode switch or load under way"
    return refusal(code, f"{sentence}: {os.strerror(code)}") if code else Answer(ok=True)


def _operation(
    node: SimulatedNode, request: Request, peer: Peer, start_time: int
) -> tuple[Callable[[Driver, float], int | None], str]:
    """What to do to the driver model, and what to say if it returns an errno."""
    if isinstance(request, Join):
        gpus = None if request.gpus is None else frozenset(gpu_address(node, name) for name in request.gpus)
        return (
            lambda driver, now: driver.join(peer.pid, start_time, now, permitted=gpus),
            f"process {peer.pid} cannot open /dev/kfd now, expected a GPU node that is visible and no mode switch",
        )
    if isinstance(request, Use | Allocate | Free):
        size = request.vram if isinstance(request, Use) else request.size
        return (
            lambda driver, now: _changed_memory(driver, now, peer.pid, request),
            f"process {peer.pid} cannot {_VERBS[type(request)]} {size} B on gpu_id {request.gpu_id}, expected a client with access",
        )
    if isinstance(request, Compute):
        return (
            lambda driver, now: set_work(driver.state, peer.pid, request.gpu_id, request.share, now),
            f"process {peer.pid} cannot compute on gpu_id {request.gpu_id}, expected a client with access",
        )
    if isinstance(request, Fault):
        gpu = None if request.gpu is None else gpu_address(node, request.gpu)
        fault = SimFault(request.kind, gpu, request.remaining, request.seconds)
        return lambda driver, now: driver.inject(fault, now), ""
    if isinstance(request, ClearFaults):
        return lambda driver, now: driver.clear_faults(now), ""
    return lambda driver, now: driver.reboot(now), ""


_VERBS = {Use: "have", Allocate: "have another", Free: "give back"}


def _changed_memory(driver: Driver, now: float, pid: int, request: Use | Allocate | Free) -> int:
    driver.settle(now)
    if isinstance(request, Use):
        return set_use(driver.state, pid, request.gpu_id, request.vram)
    change = allocate if isinstance(request, Allocate) else release
    return change(driver.state, pid, request.gpu_id, request.size)


def _told(node: SimulatedNode, request: Devices | Available, pid: int) -> Answer:
    """What a living client may read of its GPU nodes; ESRCH for another process, EINVAL for a foreign gpu_id."""
    found: list[Answer] = []

    def read(driver: Driver, now: float) -> int:
        driver.settle(now)
        client = living_client(driver.state, pid)
        if client is None:
            return errno.ESRCH
        own = [each for each in driver.state.nodes if each.gpu_id in client.vram]
        if isinstance(request, Devices):
            found.append(Answer(ok=True, devices=[device_of(driver.state, each) for each in own]))
            return 0
        asked = next((each for each in own if each.gpu_id == request.gpu_id), None)
        if asked is None:
            return errno.EINVAL
        found.append(Answer(ok=True, free=available(driver.state, asked)))
        return 0

    code = node.act(read)
    if code:
        sentence = f"process {pid} is told nothing, expected a KFD client that asks of GPU nodes it may use"
        return refusal(code, f"{sentence}: {os.strerror(code)}")
    return found[0]
