"""What the kubelet asks for: a claim's partition for a pod that is about to start, and back when the pod has ended.

Called in the driver's threads; what is decided is decided on the control loop, what waits for the API server is not.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from aimd.daemon.devices.files import Files
from aimd.daemon.devices.reserving import Reservations
from aimd.domain.dra import ClaimRef, PreparedDevice
from aimd.errors import NotFoundError, UnreachableError
from aimd.ports_dra import Claims

log = logging.getLogger("aimd.devices")

Object = Mapping[str, Any]
Result = TypeVar("Result")
MARGIN_SECONDS = 1.0  # before the deadline: an answer that says why is better than none


class Kubelet:
    """ports_dra.Preparing.

    Args:
        loop: where everything else of the daemon runs.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, reservations: Reservations, claims: Claims, files: Files
    ) -> None:
        self._loop = loop
        self._reservations = reservations
        self._claims = claims
        self._files = files

    def prepare(self, claim: ClaimRef, deadline: float) -> Sequence[PreparedDevice]:
        """Reserve what the claim was allocated, switch the GPU if it is in another mode, and write the container's files."""
        item = self._claims.claim(claim)
        if item is None:
            raise NotFoundError(f"claim {claim} does not exist (any more)", code="unknown_claim")
        return self._on_loop(self._prepare(claim, item, deadline - MARGIN_SECONDS), deadline)

    def unprepare(self, claim: ClaimRef, deadline: float) -> None:
        """By the ledger alone: the claim may be gone from the cluster."""
        self._on_loop(self._unprepare(claim), deadline)

    async def _prepare(self, claim: ClaimRef, item: Object, until: float) -> Sequence[PreparedDevice]:
        reservations = self._reservations
        await reservations.looked(until)
        pod = await reservations.user(item, until)
        allocated = reservations.read(item, pod)
        await reservations.take(allocated, pod, prepared=True)
        one = await reservations.ready(claim, until)
        names = await self._files.write(one)
        log.info("claim %s of pod %s has %s", claim, pod.ref, ", ".join(sorted(one.outcomes)))
        return [
            PreparedDevice(each.pool, str(each.name), (each.request,), (names[each.request],), each.share_id)
            for each in allocated.reservations
        ]

    async def _unprepare(self, claim: ClaimRef) -> None:
        await self._reservations.leave(claim.uid)
        await self._files.remove(claim.uid)
        log.info("claim %s was given back", claim)

    def _on_loop(self, work: Coroutine[Any, Any, Result], deadline: float) -> Result:
        """Its result; raises UnreachableError if there is none by the deadline."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:  # the loop is closed
            work.close()
            raise UnreachableError("aimd is ending", hint="ask again when it is back") from error
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError) as error:
            future.cancel()
            raise UnreachableError("aimd did not come to it in time", hint="it may be starting or ending") from error
