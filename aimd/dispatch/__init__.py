"""Who may use a partition now: the face of the native core, its specification, and what clients need.

Names are imported when they are first asked for (PEP 562), so that a model server that wants a lease pays for the
client alone and not for the daemon's side.
"""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "Class": "values",
    "DispatchCore": "face",
    "Limits": "values",
    "LatencySketch": "core",
    "ModelConfig": "values",
    "NativeCore": "core",
    "Outcome": "values",
    "PartitionConfig": "values",
    "PriorityQueue": "queue",
    "Reference": "reference",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
