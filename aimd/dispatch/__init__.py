"""Who may use a partition now: the face of the native core, its specification, and what clients need.

Names are imported when they are first asked for (PEP 562), so that a model server that wants a lease pays for the
client alone and not for the daemon's side. Type checkers see plain imports, and thereby the true types.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimd._native.sketch import LatencySketch
    from aimd.dispatch.client import (
        AsyncClient,
        AsyncLease,
        AsyncPending,
        Client,
        ClientClosedError,
        DispatchError,
        DispatchProtocolError,
        DispatchUnreachableError,
        DrainingError,
        ExpiredError,
        Lease,
        LeaseLostError,
        Pending,
        QueueFullError,
        RenewalRefusedError,
        UnauthorisedError,
        UnknownModelError,
        WouldBlockError,
    )
    from aimd.dispatch.core import ModelLatencies, NativeCore, NativeSnapshot
    from aimd.dispatch.face import DispatchCore, Event, SteppedSnapshot, canonical
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
    "AsyncClient",
    "AsyncLease",
    "AsyncPending",
    "Class",
    "Client",
    "ClientClosedError",
    "CoreSnapshot",
    "DispatchCore",
    "DispatchError",
    "DispatchProtocolError",
    "DispatchUnreachableError",
    "DrainingError",
    "End",
    "Event",
    "ExpiredError",
    "Fault",
    "Kind",
    "LatencySketch",
    "Lease",
    "LeaseLostError",
    "LeaseRecord",
    "Limits",
    "ModelConfig",
    "ModelLatencies",
    "ModelSnapshot",
    "NativeCore",
    "NativeSnapshot",
    "Outcome",
    "PartitionConfig",
    "PartitionSnapshot",
    "Pending",
    "PriorityQueue",
    "QueueFullError",
    "Reference",
    "RenewalRefusedError",
    "SteppedSnapshot",
    "UnauthorisedError",
    "UnknownModelError",
    "WouldBlockError",
    "canonical",
]

_HOMES = {
    "AsyncClient": "client",
    "AsyncLease": "client",
    "AsyncPending": "client",
    "Client": "client",
    "ClientClosedError": "client",
    "DispatchError": "client",
    "DispatchProtocolError": "client",
    "DispatchUnreachableError": "client",
    "DrainingError": "client",
    "ExpiredError": "client",
    "Lease": "client",
    "LeaseLostError": "client",
    "Pending": "client",
    "QueueFullError": "client",
    "RenewalRefusedError": "client",
    "UnauthorisedError": "client",
    "UnknownModelError": "client",
    "WouldBlockError": "client",
    "DispatchCore": "face",
    "Event": "face",
    "LatencySketch": "core",
    "ModelLatencies": "core",
    "NativeCore": "core",
    "NativeSnapshot": "core",
    "PriorityQueue": "queue",
    "Reference": "reference",
    "SteppedSnapshot": "face",
    "canonical": "face",
}

if not TYPE_CHECKING:  # else any misspelt name would have a type

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'values')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
