"""Who may use a partition now: the face of the native core, its specification, and what clients need.

Names are imported when they are first asked for (PEP 562), so that a model server that wants a lease pays for the
client alone and not for the daemon's side. Type checkers see plain imports, and thereby the true types.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimd._native.sketch import LatencySketch
    from aimd.dispatch.core import ModelLatencies, NativeCore
    from aimd.dispatch.face import DispatchCore, Event, canonical
    from aimd.dispatch.queue import PriorityQueue
    from aimd.dispatch.reference import Reference
    from aimd.dispatch.values import (
        Class,
        CoreSnapshot,
        End,
        Fault,
        Kind,
        LeaseRecord,
        Limits,
        ModelConfig,
        ModelSnapshot,
        Outcome,
        PartitionConfig,
        PartitionSnapshot,
    )

__all__ = [
    "Class",
    "CoreSnapshot",
    "DispatchCore",
    "End",
    "Event",
    "Fault",
    "Kind",
    "LatencySketch",
    "LeaseRecord",
    "Limits",
    "ModelConfig",
    "ModelLatencies",
    "ModelSnapshot",
    "NativeCore",
    "Outcome",
    "PartitionConfig",
    "PartitionSnapshot",
    "PriorityQueue",
    "Reference",
    "canonical",
]

_HOMES = {
    "DispatchCore": "face",
    "Event": "face",
    "LatencySketch": "core",
    "ModelLatencies": "core",
    "NativeCore": "core",
    "PriorityQueue": "queue",
    "Reference": "reference",
    "canonical": "face",
}

if not TYPE_CHECKING:  # else any misspelt name would have a type

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'values')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
