"""What the spec of the node's NodePartitions asks for, and what it makes of the node's own configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aimd.domain.modes import PartitionMode
from aimd.errors import InvalidInputError
from aimd.planning.layouts import Layout
from aimd.planning.policy import Policy
from aimd.planning.rooms import Repartition

_GPU = re.compile(r"default|gpu[0-9]{1,3}|[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """Attributes:
    layout: modes by GPU; None where the object has none: then the node's own configuration counts.
    repartition: likewise.
    mistakes: what of the spec is no mode, GPU or setting; a sentence each. Nothing of a spec with one is carried out.
    """

    layout: Layout | None = None
    repartition: Repartition | None = None
    mistakes: tuple[str, ...] = field(default_factory=tuple)


def node_spec(spec: Mapping[str, Any] | None) -> NodeSpec:
    """The spec as it is meant. The API server has checked it already, where the CRD is ours and new enough."""
    said, mistakes = spec or {}, []
    layout: dict[str, PartitionMode] = {}
    wished = said.get("layout") or {}
    if not isinstance(wished, Mapping):
        return NodeSpec(mistakes=(f"layout is a {type(wished).__name__}, expected modes by GPU",))
    for gpu, mode in sorted(wished.items()):
        if _GPU.fullmatch(gpu) is None:
            mistakes.append(f"layout names {gpu}, expected default, gpu0, gpu1, ... or a PCI address")
            continue
        try:
            layout[gpu] = PartitionMode.parse(str(mode))
        except InvalidInputError as error:
            mistakes.append(f"layout.{gpu}: {error}")
    wanted = (said.get("policy") or {}).get("repartition")
    repartition = None
    if wanted is not None:
        try:
            repartition = Repartition(wanted)
        except ValueError:
            expected = " or ".join(sorted(each.value for each in Repartition))
            mistakes.append(f"policy.repartition is {wanted!r}, expected {expected}")
    if mistakes:
        return NodeSpec(mistakes=tuple(mistakes))
    return NodeSpec(layout if "layout" in said else None, repartition)


def with_spec(policy: Policy, spec: NodeSpec, rivals: tuple[str, ...]) -> Policy:
    """The policy that counts: the node's own, with what the cluster says of it and found on the node."""
    if spec.repartition is not None:
        policy = replace(policy, repartition=spec.repartition)
    return replace(policy, rivals=rivals)
