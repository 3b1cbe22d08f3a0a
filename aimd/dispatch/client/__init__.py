"""Leases from the daemon, for any Python program: the standard library alone.

    from aimd.dispatch.client import Client

    with Client() as client, client.lease("llama", timeout=0.5) as lease:
        run(lease.partition)

What is said of a request:

* `timeout`: seconds after which a grant is of no use any more; 0 is always too late (ask with `no_wait` for a slot that
  is free now); None: the model's budget for the class. Or, for those who think in completion times, `complete_in`
  and `est_service`: the wait is what is left between them.
* `klass`: "high", "medium" or "low"; None: the model's default. Policy bounds it.
* `partition`: like 0000:05:00.0/3; None: the caller's own assignment of the model, else the only one.
* `renew`: renew the lease at half its life for as long as it is held; a refusal is tried again until its life is over.

Requests wait for a daemon that is not there or restarts, for as long as they may wait at all; the leases that run meanwhile
are adopted by the daemon that comes back. All errors are DispatchError, or InvalidInputError for wrong arguments.
All durations are seconds as numbers, measured by CLOCK_MONOTONIC.

Names are imported when first asked for: a program with threads does not pay for asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aimd.dispatch.client.asynchronous import AsyncClient, AsyncLease, AsyncPending
    from aimd.dispatch.client.blocking import Client, Lease, Pending
    from aimd.dispatch.client.errors import (
        ClientClosedError,
        DispatchError,
        DispatchProtocolError,
        DispatchUnreachableError,
        DrainingError,
        ExpiredError,
        LeaseLostError,
        QueueFullError,
        RenewalRefusedError,
        UnauthorisedError,
        UnknownModelError,
        WouldBlockError,
    )

__all__ = [
    "AsyncClient",
    "AsyncLease",
    "AsyncPending",
    "Client",
    "ClientClosedError",
    "DispatchError",
    "DispatchProtocolError",
    "DispatchUnreachableError",
    "DrainingError",
    "ExpiredError",
    "Lease",
    "LeaseLostError",
    "Pending",
    "QueueFullError",
    "RenewalRefusedError",
    "UnauthorisedError",
    "UnknownModelError",
    "WouldBlockError",
]

_HOMES = {
    "AsyncClient": "asynchronous",
    "AsyncLease": "asynchronous",
    "AsyncPending": "asynchronous",
    "Client": "blocking",
    "Lease": "blocking",
    "Pending": "blocking",
}

if not TYPE_CHECKING:  # else any misspelt name would have a type

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
