"""What devices depend on beside the snapshot of the node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aimd.planning.rooms import Repartition


@dataclass(frozen=True, slots=True)
class Surroundings:
    """GPUs are named by PCI address.

    Attributes:
        slots_per_partition: dispatch slots.
        repartition: whether a claim may switch a GPU.
        rivals: other managers of partitions on the node, a sentence each.
        unswitchable: GPUs whose switch has failed a moment ago.
        expelled: draining GPUs whose pods are to be ended now, after all that is gentler.
        driver_version: of amdgpu, as it calls itself; None if unknown.
        pcie_roots: the root complex that each GPU is at, `pci0000:00`.
    """

    slots_per_partition: int = 16
    repartition: Repartition = Repartition.WHEN_IDLE
    rivals: tuple[str, ...] = ()
    unswitchable: frozenset[str] = frozenset()
    expelled: frozenset[str] = frozenset()
    driver_version: str | None = None
    pcie_roots: Mapping[str, str] = field(default_factory=dict)
