"""Partition modes of a GPU: how its compute dies (XCCs) and its memory are divided."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from aimd.errors import InvalidInputError


class ComputeMode(str, Enum):
    """Compute partition mode, in the order in which the driver lists them (amdgpu_gfx.c)."""

    SPX = "SPX"
    DPX = "DPX"
    TPX = "TPX"
    QPX = "QPX"
    CPX = "CPX"

    __str__ = str.__str__


class MemoryMode(str, Enum):
    """Memory partition mode (NUMA nodes per socket), as `available_memory_partition` names them."""

    NPS1 = "NPS1"
    NPS2 = "NPS2"
    NPS3 = "NPS3"
    NPS4 = "NPS4"
    NPS6 = "NPS6"
    NPS8 = "NPS8"

    __str__ = str.__str__

    @property
    def ranges(self) -> int:
        """Number of memory ranges that the GPU's memory is split into."""
        return int(self.value[3:])


@dataclass(frozen=True, slots=True)
class PartitionMode:
    """A pair of modes; None is "unknown" in what was observed and "as it is" in what is wished."""

    compute: ComputeMode | None = None
    memory: MemoryMode | None = None

    def __str__(self) -> str:
        return f"{self.compute or '?'}/{self.memory or '?'}"

    @classmethod
    def parse(cls, text: str) -> PartitionMode:
        """Read `CPX/NPS1`, `CPX` or `NPS1`, in any case.

        Raises:
            InvalidInputError: a part is no mode, or both parts are of one kind.
        """
        compute: ComputeMode | None = None
        memory: MemoryMode | None = None
        for part in text.strip().upper().split("/"):
            if part in ComputeMode.__members__ and compute is None and memory is None:
                compute = ComputeMode[part]
            elif part in MemoryMode.__members__ and memory is None:
                memory = MemoryMode[part]
            else:
                known = part in ("", *ComputeMode.__members__, *MemoryMode.__members__)
                fact = "is not of the form COMPUTE/MEMORY" if known else f"names {part!r}, which is no partition mode"
                raise InvalidInputError(
                    f"mode {text!r} {fact}",
                    code="mode_invalid",
                    hint=f"write COMPUTE or COMPUTE/MEMORY: {'|'.join(ComputeMode.__members__)} / "
                    f"{'|'.join(MemoryMode.__members__)}, for example CPX/NPS1",
                )
        return cls(compute, memory)
