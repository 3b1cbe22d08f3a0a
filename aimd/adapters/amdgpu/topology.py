"""KFD's topology: GPU nodes as values, read so that nothing moved meanwhile.

Facts (hardware notes 2.2): with every node added or removed the driver tears down and rebuilds the whole nodes/ tree and
then raises generation_id; nodes are hidden (EPERM) from a process whose device cgroup denies their render minor.
"""

from __future__ import annotations

import errno
import re
import time
from dataclasses import dataclass

from aimd.adapters.amdgpu.errnos import ABSENT, OWN_WANT, unreadable
from aimd.errors import DriverError, UnstableError
from aimd.ports import Sysfs

ATTEMPTS = 40
PAUSE_SECONDS = 0.005
_MOVED = (errno.ENOENT, errno.ENODEV)
_PROPERTY = re.compile(r"(\S+)\s+(-?[0-9]+)\s*")


@dataclass(frozen=True, slots=True)
class KfdNode:
    """A GPU node. `properties` are KFD's own names; `gpu_id` and `memory_bytes` are None where unreadable."""

    number: int
    properties: dict[str, int]
    gpu_id: int | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Topology:
    """A consistent reading. `hidden` counts nodes that the device cgroup hides, `broken` those that cannot be read.

    `system_bytes` is the memory of the CPU nodes, None if it cannot be read of each.
    """

    generation: int | None
    nodes: tuple[KfdNode, ...]
    hidden: int = 0
    broken: tuple[int, ...] = ()
    system_bytes: int | None = None


def parse_properties(text: bytes) -> dict[str, int]:
    """`name value` lines; lines of another form are left out, unknown names are kept."""
    properties = {}
    for line in text.decode("ascii", "replace").splitlines():
        if (found := _PROPERTY.fullmatch(line)) is not None:
            properties[found[1]] = int(found[2])
    return properties


def read_generation(sysfs: Sysfs, topology: str) -> int | None:
    """generation_id, or None where there is none (no driver, or a capture without it).

    Raises:
        DriverError: it is there and could not be read.
    """
    path = f"{topology}/generation_id"
    try:
        return int(sysfs.read(path))
    except ValueError:
        return None
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise unreadable(error, path, "the KFD topology's generation") from error


def read_topology(sysfs: Sysfs, topology: str, root: str = "/sys") -> Topology:
    """Read until generation and node list are the same before and after.

    The generation alone does not tell: it is raised after the tree was rebuilt, so a reader that comes and goes
    within a rebuild sees it unmoved. The list of nodes moves then, or is empty. Errors call the sysfs `root`.

    Raises:
        UnstableError: it moved during each of ATTEMPTS readings.
        DriverError: there is no topology (ENOENT, ENODEV), or it could not be read (any other errno).
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_SECONDS)
        before = read_generation(sysfs, topology)
        try:
            numbers = _node_numbers(sysfs, topology)
            nodes = [_read_node(sysfs, f"{topology}/nodes/{number}", number) for number in numbers]
            after = _node_numbers(sysfs, topology)
        except OSError as error:
            if error.errno in _MOVED and read_generation(sysfs, topology) is not None:
                continue
            raise _no_topology(error, topology, root) from error
        if numbers and numbers == after and before == read_generation(sysfs, topology):
            return _collect(before, nodes)
    raise UnstableError(
        f"the KFD topology kept moving during {ATTEMPTS} readings", hint="a mode switch or driver load is under way"
    )


def _no_topology(error: OSError, topology: str, root: str) -> DriverError:
    if error.errno not in ABSENT:
        return unreadable(error, f"{root}/{topology}", "the KFD topology")
    return DriverError(
        f"{root}/{topology} cannot be read ({error.strerror}): the amdgpu driver is not loaded or has no compute GPU",
        hint="load it (modprobe amdgpu); the kernel log says why a GPU was not brought up",
        errno=error.errno or errno.EIO,
        path=topology,
    )


def _node_numbers(sysfs: Sysfs, topology: str) -> list[int]:
    return sorted(int(name) for name in sysfs.listdir(f"{topology}/nodes") if name.isdigit())


@dataclass(frozen=True, slots=True)
class _Reading:
    """One node folder: the GPU node, or why it is none (`cpu` with its memory, `hidden`, `broken`)."""

    number: int
    node: KfdNode | None
    kind: str
    memory_bytes: int | None = None


def _read_node(sysfs: Sysfs, path: str, number: int) -> _Reading:
    try:
        properties = parse_properties(sysfs.read(f"{path}/properties"))
    except OSError as error:
        if error.errno in _MOVED:
            sysfs.listdir(path)  # raises when the node has gone: the caller reads again
        if error.errno in OWN_WANT:
            raise
        return _Reading(number, None, "hidden" if error.errno == errno.EPERM else "broken")
    gpu_id = _read_int(sysfs, f"{path}/gpu_id")
    simds = properties.get("simd_count")
    if not gpu_id and (simds == 0 or (simds is None and properties.get("cpu_cores_count"))):
        return _Reading(number, None, "cpu", _read_memory(sysfs, path))
    nameless = properties.get("location_id", -1) < 0  # nobody could say whose partition it is
    if nameless or not (gpu_id or simds):
        return _Reading(number, None, "broken")
    return _Reading(number, KfdNode(number, properties, gpu_id, _read_memory(sysfs, path)), "gpu")


def _read_int(sysfs: Sysfs, path: str) -> int | None:
    """None where it is absent or unreadable; raises OSError for want of this process or machine."""
    try:
        return int(sysfs.read(path))
    except ValueError:
        return None
    except OSError as error:
        if error.errno in OWN_WANT:
            raise
        return None


def _read_memory(sysfs: Sysfs, path: str) -> int | None:
    """Sum of the node's memory banks, None where no bank can be read; raises OSError like `_read_int`."""
    total = None
    try:
        banks = sysfs.listdir(f"{path}/mem_banks")
    except OSError as error:
        if error.errno in OWN_WANT:
            raise
        return None
    for bank in banks:
        try:
            size = parse_properties(sysfs.read(f"{path}/mem_banks/{bank}/properties")).get("size_in_bytes")
        except OSError as error:
            if error.errno in OWN_WANT:
                raise
            size = None
        if size is not None:
            total = (total or 0) + size
    return total


def _collect(generation: int | None, readings: list[_Reading]) -> Topology:
    system = [reading.memory_bytes for reading in readings if reading.kind == "cpu"]
    return Topology(
        generation=generation,
        nodes=tuple(reading.node for reading in readings if reading.node is not None),
        hidden=sum(reading.kind == "hidden" for reading in readings),
        broken=tuple(reading.number for reading in readings if reading.kind == "broken"),
        system_bytes=sum(size for size in system if size) if system and None not in system else None,
    )
