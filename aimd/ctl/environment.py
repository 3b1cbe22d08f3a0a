"""The environment of a claim's process, computed in the caller's own view of the node and never stored.

An ordinal is the place in the order of KFD's GPU nodes, less those that the caller's device cgroup hides. Every mode
switch moves it, also that of another GPU (hardware fact: nodes that come are put at the end of KFD's list).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aimd.ctl.fields import number, required, text, texts
from aimd.errors import ConflictError, DeniedError

TOPOLOGY = "class/kfd/kfd/topology"
DEVICES = Path("/dev/dri")
ATTEMPTS = 20


def variables(answer: Mapping[str, Any], devices: Path = DEVICES) -> dict[str, str]:
    """The variables for an EnvironmentMessage.

    ROCR_VISIBLE_DEVICES chooses the partition; HIP_VISIBLE_DEVICES counts within what that leaves, so it is 0.

    Raises:
        DeniedError: the caller's device cgroup hides the partition.
        ConflictError: the partition is not there, or the topology moves all the time.
    """
    partition, holder = text(answer, "partition"), answer.get("holder")
    return {
        **({"AIM_HOLDER": str(holder)} if holder is not None else {}),
        "ROCR_VISIBLE_DEVICES": str(_ordinal(answer, partition, devices)),
        "HIP_VISIBLE_DEVICES": "0",
        "AIM_CLAIM": text(answer, "claim"),
        "AIM_PARTITION_ID": partition,
        "AIM_MEMORY_LIMIT_BYTES": str(int(number(answer, "memory_limit_bytes") or 0)),
    }


def _ordinal(answer: Mapping[str, Any], partition: str, devices: Path) -> int:
    visible, hidden = _seen(answer, devices)
    if partition in visible:
        return visible.index(partition)
    if hidden:
        raise DeniedError(
            f"partition {partition} is not visible here: {hidden} KFD nodes are hidden by the device cgroup of this process, "
            "or have no render node in its /dev/dri",
            code="partition_hidden",
            hint="allow the render nodes (char 226:* rw) and have them in /dev/dri, or run it where they are",
        )
    raise ConflictError(
        f"partition {partition} is not in the KFD topology",
        code="partition_missing",
        hint="a mode switch or driver load may be under way: try again, or look at aimctl get partitions",
    )


def _seen(answer: Mapping[str, Any], devices: Path) -> tuple[list[str], int]:
    """Partitions in the order of their ordinals, and how many are hidden from the caller.

    KFD's own list says what the device cgroup allows. A runtime leaves out, too, what has no render node in /dev/dri, where
    a container has those that it was given (ROCT-Thunk-Interface, topology_sysfs_check_node_supported). A pod that cannot see
    the node's list goes by its render nodes alone. Where there is none of them, as on a simulated node, they tell nothing.
    """
    root = required(answer, "sysfs_root")
    minors = render_minors(answer)
    listed = root is not None and (answer.get("pod") is None or Path(f"{root}/{TOPOLOGY}").is_dir())
    visible, hidden = visible_partitions(str(root)) if listed else (list(minors), 0)
    there = {name for name in visible if (devices / f"renderD{minors.get(name)}").exists()}
    if not there:
        return visible, hidden
    return [name for name in visible if name in there], hidden + len(visible) - len(there)


def render_minors(answer: Mapping[str, Any]) -> dict[str, int | None]:
    """All partitions of the node in KFD's order, with the minors of their render nodes; None where not told."""
    order, told = texts(answer, "kfd_order"), answer.get("render_minors")
    minors = told if isinstance(told, list) and len(told) == len(order) else [None] * len(order)
    return {name: minor if isinstance(minor, int) else None for name, minor in zip(order, minors, strict=True)}


def visible_partitions(root: str) -> tuple[list[str], int]:
    """Partitions (`0000:05:00.0/3`) in the order of their KFD nodes, and how many nodes are hidden from the caller.

    Read until generation and list of nodes are the same before and after, as libhsakmt does.

    Raises:
        ConflictError: it kept moving.
    """
    for _ in range(ATTEMPTS):
        try:
            before = _generation(root), _numbers(root)
            read = [_partition(root, node) for node in before[1]]
            if before == (_generation(root), _numbers(root)):
                return [name for name in read if name], read.count(None)
        except FileNotFoundError:
            continue  # the driver rebuilds the tree
        except OSError as cause:
            raise ConflictError(
                f"the KFD topology below {root} cannot be read: {cause.strerror}", code="topology_unreadable"
            ) from cause
    raise ConflictError(
        f"the KFD topology below {root} moved during {ATTEMPTS} readings, or is not there",
        code="topology_unstable",
        hint="a mode switch or driver load is under way: try again",
    )


def _generation(root: str) -> str:
    return _read(f"{root}/{TOPOLOGY}/generation_id")


def _numbers(root: str) -> list[int]:
    return sorted(int(name) for name in os.listdir(f"{root}/{TOPOLOGY}/nodes") if name.isdigit())  # noqa: PTH208 - as below


def render_minor(root: str, partition: str) -> int | None:
    """Minor number of the partition's render node, None if that is hidden, not there or cannot be read now."""
    try:
        for node in _numbers(root):
            properties = _properties(root, node)
            if properties is not None and _name(properties) == partition:
                return int(properties.get("drm_render_minor", 0)) or None
    except (OSError, ValueError):
        return None  # the driver rebuilds the tree
    return None


def _partition(root: str, node: int) -> str | None:
    """The node's partition, "" for a CPU, None for a node that is hidden (EPERM)."""
    properties = _properties(root, node)
    return None if properties is None else _name(properties)


def _properties(root: str, node: int) -> dict[str, str] | None:
    try:
        lines = _read(f"{root}/{TOPOLOGY}/nodes/{node}/properties").splitlines()
    except PermissionError:
        return None
    return {name: value for name, _, value in (line.partition(" ") for line in lines) if value}


def _name(properties: Mapping[str, str]) -> str:
    if int(properties.get("simd_count", 0)) == 0:
        return ""
    # location_id is bus << 8 | devfn, and its low three bits, which are 0 on these GPUs, have the partition's index.
    location, domain = int(properties.get("location_id", 0)), int(properties.get("domain", 0))
    return f"{domain:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.0/{location & 7}"


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - pathlib is not needed otherwise
        return file.read()
