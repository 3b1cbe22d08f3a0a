"""From devices to the ResourceSlices of the node's pool, and whether what is published is what should be.

Limits of resource.k8s.io/v1: 64 devices that consume counters or have taints, or 8 counter sets, in a slice; never both.
A pool counts its slices and their generation, and the scheduler uses it only while they agree. It takes devices in the
order of the slices' names, then as they stand in each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from hashlib import sha256
from typing import Any

from aimd.domain.dra import DRIVER
from aimd.planning.dra.devices import Devices
from aimd.planning.dra.quantities import same_quantity

Object = Mapping[str, Any]
MOST_DEVICES = 64
MOST_COUNTER_SETS = 8
_LONGEST_NODE = 220  # characters of a node's name that a slice's name repeats; it has 253
_QUANTITIES = frozenset({"value", "default", "min", "max", "step"})
_ADDED = frozenset({"timeAdded"})  # by the API server


class Difference(str, Enum):
    """How a pool differs from what it should be.

    NONE: not at all. ORDER: the same devices in another order, which costs a worse place at most; can wait. CONTENT:
    otherwise, or slices are missing or do not agree.
    """

    NONE = "none"
    ORDER = "order"
    CONTENT = "content"

    __str__ = str.__str__


def slice_parts(offered: Devices) -> tuple[Object, ...]:
    """What the slices have of their own, in the order that their names are to have; none for a node without devices.

    Each is a spec without `driver`, `nodeName` and `pool`.
    """
    sets, devices = offered.counter_sets, offered.devices
    counting = [{"sharedCounters": list(some)} for some in _portions(sets, MOST_COUNTER_SETS)]
    return tuple(counting) + tuple({"devices": list(some)} for some in _portions(devices, MOST_DEVICES))


def pool_slices(parts: Sequence[Object], node: str, generation: int) -> tuple[Object, ...]:
    """The ResourceSlices of the node's pool."""
    pool = {"name": node, "generation": generation, "resourceSliceCount": len(parts)}
    return tuple(
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": slice_name(node, number)},
            "spec": {"driver": DRIVER, "nodeName": node, "pool": pool, **part},
        }
        for number, part in enumerate(parts)
    )


def slice_name(node: str, number: int) -> str:
    """Names of a pool's slices sort by number; a node's name that is too long is cut, and told apart by its hash."""
    if len(node) > _LONGEST_NODE:
        node = f"{node[:_LONGEST_NODE].rstrip('-.')}-{sha256(node.encode()).hexdigest()[:8]}"
    return f"{node}-aimd-{number:03}"


def difference(parts: Sequence[Object], published: Iterable[Object]) -> Difference:
    """How the published ResourceSlices of the node's pool, all there are, differ from those with these parts."""
    there = sorted(published, key=lambda one: str(one["metadata"]["name"]))
    pools = [one["spec"]["pool"] for one in there]
    agree = len({pool["generation"] for pool in pools}) <= 1 and all(
        pool["resourceSliceCount"] == len(there) for pool in pools
    )
    if len(there) != len(parts) or not agree:
        return Difference.CONTENT
    specs = [one["spec"] for one in there]
    if not _same(_entries(specs, "sharedCounters"), _entries(parts, "sharedCounters")):
        return Difference.CONTENT
    now, wanted = _entries(specs, "devices"), _entries(parts, "devices")
    if _same(now, wanted):
        return Difference.NONE
    return Difference.ORDER if _same(_by_name(now), _by_name(wanted)) else Difference.CONTENT


def next_generation(published: Iterable[Object]) -> int:
    """One that is newer than all that are there."""
    return 1 + max((one["spec"]["pool"]["generation"] for one in published), default=0)


def decided(
    parts: Sequence[Object], node: str, published: Sequence[Object], *, in_order: bool = False
) -> tuple[Object, ...] | None:
    """The slices that there should be, of a new generation; None if those that are there are right.

    Args:
        in_order: another order of the same devices is wrong, too. While slices are replaced the scheduler cannot use the
            pool: with every pod that comes or goes the order is another one, and costs more than it is worth.
    """
    wrong = (Difference.CONTENT, Difference.ORDER) if in_order else (Difference.CONTENT,)
    if difference(parts, published) not in wrong:
        return None
    return pool_slices(parts, node, next_generation(published))


def _portions(entries: Sequence[Object], most: int) -> list[Sequence[Object]]:
    return [entries[first : first + most] for first in range(0, len(entries), most)]


def _entries(specs: Iterable[Object], key: str) -> list[Any]:
    return [entry for spec in specs for entry in spec.get(key) or ()]


def _by_name(devices: Iterable[Object]) -> list[Object]:
    return sorted(devices, key=lambda device: str(device["name"]))


def _same(one: Any, other: Any, key: str = "") -> bool:
    """Whether two values mean the same to the API server: absent is empty, quantities are numbers."""
    if _empty(one) or _empty(other):
        return _empty(one) and _empty(other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = {name for name in (*one, *other) if name not in _ADDED}
        return all(_same(one.get(name), other.get(name), name) for name in keys)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other or (key in _QUANTITIES and same_quantity(one, other)))


def _empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, Mapping | list | tuple) and not value)
