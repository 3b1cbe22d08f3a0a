"""From an allocated ResourceClaim to what aimd has to reserve for it, or every mistake in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from aimd.domain.claim import ClaimSpec, DeviceShare, PartitionRef, PodRequest, QosClass, Slo
from aimd.domain.device_name import MEMORY, SLOTS, DeviceName
from aimd.domain.dra import DRIVER, ClaimRef
from aimd.domain.memory import gb_text, nominal_units, reserved_bytes
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.pod import PodRef
from aimd.errors import InvalidInputError, NotFoundError
from aimd.planning.dra.divisions import division
from aimd.planning.dra.partition_config import merged, read_config
from aimd.planning.dra.quantities import parse_quantity
from aimd.planning.sharing.asked import Refused

Object = Mapping[str, Any]
NO_SETTINGS: Mapping[str, Any] = {}
UNIT_BYTES = 1 << 20  # of a claim's size: 1/1024 of a nominal GiB


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one request of a claim was allocated.

    Attributes:
        name: of the device, as far as it says anything.
        spec: as claims of the node have it: the only place allowed, its mode, size, slots and settings.
        memory_bytes: what that size is of the partition, the limit that its processes are told; None while the
            partition's size is unknown.
        waits: its allocation carries binding conditions: the pod is not bound until aimd says that it is ready.
    """

    request: str
    pool: str
    name: DeviceName
    share_id: str | None
    spec: ClaimSpec
    memory_bytes: int | None
    waits: bool


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a ResourceClaim has of this node.

    Attributes:
        created: RFC 3339.
        pods: that may use it (`status.reservedFor`), the first one first.
    """

    claim: ClaimRef
    created: str
    reservations: tuple[Reservation, ...]
    pods: tuple[PodRef, ...]

    def asked(self, model: str, *, prepared: bool = False) -> tuple[PodRequest, ...]:
        """As requests of the first pod, the replicas of a model; none while no pod is known.

        Args:
            prepared: the kubelet has asked for it.
        """
        if not self.pods:
            return ()
        first, also = self.pods[0], tuple(pod.uid for pod in self.pods[1:])
        return tuple(
            PodRequest(
                first,
                model,
                one.spec,
                self.created,
                DeviceShare(self.claim.name, self.claim.uid, one.request, str(one.name), one.share_id, prepared, also),
            )
            for one in self.reservations
        )


def claim_ref(claim: Object) -> ClaimRef:
    metadata = claim["metadata"]
    return ClaimRef(metadata["namespace"], metadata["name"], metadata["uid"])


def results_of(claim: Object, pool: str) -> list[Object]:
    """What the claim was allocated of a pool of this driver."""
    devices = _devices(claim)
    return [one for one in devices.get("results") or () if (one.get("driver"), one.get("pool")) == (DRIVER, pool)]


def allocation(
    claim: Object, pool: str, snapshot: NodeSnapshot, beside: Mapping[str, Any] = NO_SETTINGS
) -> Allocation | Refused | None:
    """What has to be reserved for a ResourceClaim (resource.k8s.io/v1); None if it has nothing of the pool.

    Args:
        beside: values of PartitionConfig's fields that others say, for what neither claim nor class does.
    """
    results = results_of(claim, pool)
    if not results:
        return None
    made: list[Reservation] = []
    mistakes: list[str] = []
    for request, count in Counter(str(one.get("request")) for one in results).items():
        if count > 1:
            mistakes.append(f"request {request} was allocated {count} devices, expected one: ask for each by itself")
    for one in results:
        found = _reservation(one, claim, snapshot, beside)
        if isinstance(found, Reservation):
            made.append(found)
        else:
            mistakes += found
    if mistakes:
        return Refused(tuple(dict.fromkeys(mistakes)))
    created = str(claim["metadata"].get("creationTimestamp") or "")
    return Allocation(claim_ref(claim), created, tuple(made), pods_of(claim))


def _reservation(
    result: Object, claim: Object, snapshot: NodeSnapshot, beside: Mapping[str, Any]
) -> Reservation | list[str]:
    request = str(result.get("request"))
    mistakes = []
    if result.get("adminAccess"):
        mistakes.append(f"request {request} has adminAccess, expected none: aimd's devices have nothing to administer")
    try:
        name = DeviceName.parse(str(result.get("device")))
        address, size = _partition(name, snapshot)
    except (InvalidInputError, NotFoundError) as error:
        return [*mistakes, f"request {request}: {error}"]
    units, slots, wrong = _consumed(result, size)
    values, misread = _settings(claim, request)
    values = {**beside, **values}
    mistakes += [*wrong, *misread]
    if values.get("limit", slots) < slots:
        mistakes.append(
            f"request {request}: PartitionConfig.limit is {values['limit']}, expected at least its slots ({slots})"
        )
    if mistakes:
        return mistakes
    spec = ClaimSpec(
        memory_units=units,
        qos=values.get("qosPriority", QosClass.MEDIUM),
        mode=PartitionMode(name.mode),
        partition=PartitionRef(name.index, address),
        guarantee=slots,
        limit=values.get("limit"),
        weight=values.get("weight", 1),
        slo=Slo(values.get("sloLatencySeconds"), values.get("sloObjective"), values.get("sloThroughput")),
    )
    limit = reserved_bytes(units, size) if size is not None else None
    waits = bool(result.get("bindingConditions"))
    return Reservation(request, str(result["pool"]), name, result.get("shareID"), spec, limit, waits)


def _partition(name: DeviceName, snapshot: NodeSnapshot) -> tuple[str, int | None]:
    """The GPU's PCI address, and the partition's bytes as it is or will be."""
    status = snapshot.find(name.gpu_name)
    sizes = division(status.gpu).get(name.mode, ())
    if name.index >= len(sizes):
        modes = ", ".join(f"{mode} ({len(each)})" for mode, each in division(status.gpu).items()) or "none"
        raise NotFoundError(f"device {name} is not on this node, expected a partition of {name.gpu_name}: {modes}")
    return status.gpu.pci_address, sizes[name.index]


def _consumed(result: Object, size: int | None) -> tuple[int, int, list[str]]:
    """Units of memory and slots; what is wrong with them."""
    request, mistakes = str(result.get("request")), []
    said = result.get("consumedCapacity") or {}
    memory, slots = _amount(said, MEMORY), _amount(said, SLOTS) or Fraction(0)
    whole = nominal_units(size) if size is not None else None
    units = -(-memory // UNIT_BYTES) if memory is not None else 0
    if units <= 0 or (whole is not None and units > whole):
        what = said.get(MEMORY, said.get(f"{DRIVER}/{MEMORY}", "missing"))
        most = f" and at most {gb_text(whole)}Gi" if whole is not None else ""
        mistakes.append(f"request {request}: capacity {MEMORY} is {what}, expected more than 0{most}")
    if slots.denominator != 1 or slots < 0:
        mistakes.append(f"request {request}: capacity {SLOTS} is {slots}, expected a whole number of dispatch slots")
    return int(units), int(slots), mistakes


def _amount(consumed: Object, name: str) -> Fraction | None:
    """A capacity's, by its name with or without the driver's domain; None if it is not there or no quantity."""
    said = consumed.get(name, consumed.get(f"{DRIVER}/{name}"))
    try:
        return parse_quantity(said) if said is not None else None
    except ValueError:
        return None


def _settings(claim: Object, request: str) -> tuple[dict[str, Any], list[str]]:
    """What the class and then the claim itself configure for a request; of an alternative also what its request has."""
    names = {request, request.partition("/")[0]}
    ours = [one for one in _devices(claim).get("config") or () if (one.get("opaque") or {}).get("driver") == DRIVER]
    ours = [one for one in ours if not one.get("requests") or names & set(one["requests"])]
    ours.sort(key=lambda one: one.get("source") != "FromClass")
    return merged(_read(one) for one in ours)


def _read(config: Object) -> tuple[dict[str, Any], list[str]]:
    whose = "DeviceClass" if config.get("source") == "FromClass" else "claim"
    return read_config(config["opaque"].get("parameters"), whose)


def _devices(claim: Object) -> Object:
    found: Object = ((claim.get("status") or {}).get("allocation") or {}).get("devices") or {}
    return found


def pods_of(claim: Object) -> tuple[PodRef, ...]:
    """The pods that it is reserved for (`status.reservedFor`), the first one first."""
    users: Iterable[Object] = (claim.get("status") or {}).get("reservedFor") or ()
    namespace = claim["metadata"]["namespace"]
    return tuple(
        PodRef(namespace, one["name"], one["uid"])
        for one in users
        if one.get("resource") == "pods" and not one.get("apiGroup")
    )
