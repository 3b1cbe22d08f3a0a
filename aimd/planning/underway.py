"""The mode change that runs, as claims see it: the GPUs that it has not done with, and the node when it has ended well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from aimd.domain.gpu import Observed
from aimd.domain.modes import ComputeMode
from aimd.domain.switch import ModeChange
from aimd.planning.rooms import imagined


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Nothing runs without a `change` (its name); `gpus` are the compute modes to come, None where none changes."""

    change: str | None = None
    gpus: Mapping[str, ComputeMode | None] = field(default_factory=dict)

    @classmethod
    def of(cls, change: ModeChange) -> UnderWay:
        left = [switch.step for switch in change.switches if not switch.final]
        return cls(change.name, {gpu: step.after.compute for step in left for gpu in step.gpus})

    def afterwards(self, observed: Observed) -> Observed:
        """The node as it will be if the change succeeds; a GPU of an unknown model stays as it is."""
        return replace(
            observed,
            gpus=tuple(
                (imagined(gpu, mode) if (mode := self.gpus.get(gpu.pci_address)) is not None else None) or gpu
                for gpu in observed.gpus
            ),
        )


NOTHING_UNDER_WAY = UnderWay()
