"""What ends requests from the side: looks at all of them a few times a second.

A lease that was taken back, a client that has gone while its body is not read or that stalls, an aimd that does not come
back: none of these wakes the task that waits for something else.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Collection

from aimd.dispatch.gate.endings import Abort, Stage
from aimd.dispatch.gate.exchange import Exchange
from aimd.dispatch.gate.reach import Reach
from aimd.dispatch.gate.settings import GateSettings

LOOK_SECONDS = 0.25
YOUNG_SECONDS = 0.2  # a request that waits for less is not worth a look at whether aimd is there


async def watch(
    settings: GateSettings, reach: Reach, exchanges: Collection[Exchange], clock: Callable[[], float]
) -> None:
    """Look until cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        look(settings, reach, exchanges, clock())


def look(settings: GateSettings, reach: Reach, exchanges: Collection[Exchange], now: float) -> None:
    """Look once."""
    waiting = [exchange for exchange in exchanges if exchange.stage is Stage.WAITING]
    for exchange in _gone(waiting):
        exchange.abort(Abort.CLIENT_GONE)
    if reach.doubtful or any(now - exchange.began >= YOUNG_SECONDS for exchange in waiting):
        reach.look(now)
        if reach.is_out(now):
            for exchange in waiting:
                exchange.abort(Abort.UNREACHABLE)
    for exchange in exchanges:
        if exchange.lease is not None and exchange.lease.lost and not settings.keep_lost:
            exchange.abort(Abort.LEASE_LOST)
        stalled = exchange.stalled_since()
        if stalled is not None and now - stalled >= settings.client_seconds:
            exchange.abort(Abort.CLIENT_STALLED)


def _gone(exchanges: Collection[Exchange]) -> list[Exchange]:
    """Those whose client has hung up. While the body of a request is not read its end of file is not seen otherwise."""
    poller, by_descriptor = select.poll(), {}
    for exchange in exchanges:
        transport = exchange.request.transport
        descriptor = -1 if transport is None else transport.get_extra_info("socket").fileno()
        if descriptor >= 0:
            by_descriptor[descriptor] = exchange
            poller.register(descriptor, select.POLLRDHUP)
    return [by_descriptor[descriptor] for descriptor, _ in poller.poll(0)] if by_descriptor else []
