"""What names a partition."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class PartitionKey:
    """One partition for as long as it exists: with another mode epoch of its GPU it is another one."""

    gpu: str
    index: int
    mode_epoch: int

    def __str__(self) -> str:
        return f"{self.gpu}/{self.index}"
