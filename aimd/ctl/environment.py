"""The environment of a claim's process, computed in the caller's own view of the node and never stored.

An ordinal is the place in the order of KFD's GPU nodes, less those that the caller's device cgroup hides. Every mode
switch moves it, also that of another GPU (hardware fact: nodes that come are put at the end of KFD's list).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from aimd.ctl.fields import number, required, text, texts
from aimd.errors import ConflictError, DeniedError

TOPOLOGY = "class/kfd/kfd/topology"
ATTEMPTS = 20


def variables(answer: Mapping[str, Any]) -> dict[str, str]:
    """The variables for an EnvironmentMessage.

    ROCR_VISIBLE_DEVICES chooses the partition; HIP_VISIBLE_DEVICES counts within what that leaves, so it is 0.

    Raises:
        DeniedError: the caller's device cgroup hides the partition.
        ConflictError: the partition is not there, or the topology moves all the time.
    """
    partition, holder = text(answer, "partition"), answer.get("holder")
    return {
        **({"AIM_HOLDER": str(holder)} if holder is not None else {}),
        "ROCR_VISIBLE_DEVICES": str(_ordinal(answer, partition)),
        "HIP_VISIBLE_DEVICES": "0",
        "AIM_CLAIM": text(answer, "claim"),
        "AIM_PARTITION_ID": partition,
        "AIM_MEMORY_LIMIT_BYTES": str(int(number(answer, "memory_limit_bytes") or 0)),
    }


def _ordinal(answer: Mapping[str, Any], partition: str) -> int:
    root = required(answer, "sysfs_root")
    visible, hidden = (texts(answer, "kfd_order"), 0) if root is None else visible_partitions(str(root))
    if partition in visible:
        return visible.index(partition)
    if hidden:
        raise DeniedError(
            f"partition {partition} is not visible here: the device cgroup of this process hides {hidden} KFD nodes",
            code="partition_hidden",
            hint="allow the render nodes (char 226:* rw), or run it where they are allowed",
        )
    raise ConflictError(
        f"partition {partition} is not in the KFD topology",
        code="partition_missing",
        hint="a mode switch or driver load may be under way: try again, or look at aimctl get partitions",
    )


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
