"""Names that aimd's devices have in a cluster: of a partition in a mode, of capacities, taints and conditions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aimd.domain.modes import ComputeMode
from aimd.errors import InvalidInputError

MEMORY, SLOTS = "memory", "slots"  # capacities of a device
READY, FAILED = "gpu.aimd.dev/partition-ready", "gpu.aimd.dev/partition-failed"  # binding conditions
_NAME = re.compile(r"gpu(0|[1-9][0-9]{0,2})-([a-z]{3})-(0|[1-9][0-9]?)")


@dataclass(frozen=True, slots=True, order=True)
class DeviceName:
    """A partition of a GPU in a mode, whether the GPU is in that mode or not; a DNS label: `gpu0-cpx-3`."""

    gpu: int
    mode: ComputeMode
    index: int

    def __str__(self) -> str:
        return f"gpu{self.gpu}-{self.mode.lower()}-{self.index}"

    @property
    def gpu_name(self) -> str:
        return f"gpu{self.gpu}"

    @classmethod
    def parse(cls, text: str) -> DeviceName:
        """The name that reads so; raises InvalidInputError."""
        found = _NAME.fullmatch(text)
        if found is None or found[2].upper() not in ComputeMode.__members__:
            raise InvalidInputError(
                f"device {text!r} is not one of aimd's, expected a name like gpu0-cpx-3", code="device_invalid"
            )
        return cls(int(found[1]), ComputeMode[found[2].upper()], int(found[3]))
