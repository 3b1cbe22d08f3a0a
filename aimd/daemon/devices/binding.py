"""Pods that wait for a partition which is not there yet: the scheduler has allocated it, and binds them when it is.

Level-triggered, like all that follows the cluster: what is allocated, what the ledger keeps and what was said are
compared again and again, so that a restart in between changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from aimd.daemon.devices.offering import Offering
from aimd.daemon.devices.reserving import Reservations
from aimd.daemon.turning import turning
from aimd.domain.dra import ClaimRef
from aimd.domain.pod import Pod
from aimd.errors import AimdError, ConflictError, InvalidInputError, NotFoundError
from aimd.planning.dra.conditions import Outcome, Readiness, device_entries
from aimd.planning.dra.kept import Kept
from aimd.planning.dra.requests import claim_ref, results_of
from aimd.ports_dra import Claims

log = logging.getLogger("aimd.devices")

Object = Mapping[str, Any]
LOOK_SECONDS = 1.0
SOON_SECONDS = 0.2  # a pod is nominated before its claim is allocated, and nothing tells of that
AGAIN_SECONDS = 5.0  # between two reads of a claim of which nothing is heard
PATIENCE_SECONDS = 3.0  # with what is in the way: processes of a pod that has just ended hold a GPU a moment longer
INVALID = "InvalidClaim"
_Key = tuple[str, str]  # namespace and name
_Which = tuple[tuple[str, str, str, str], ...]


class Binding:
    """For the control loop's thread; reads and writes of the API server are done in threads.

    Args:
        pods: those that are about to be bound to this node, and those that are.
        changed: set whenever they are others.
        patience_seconds: how long an obstacle may stand before the scheduler is told to look elsewhere.
    """

    def __init__(
        self,
        reservations: Reservations,
        claims: Claims,
        offering: Offering,
        pods: Callable[[], Iterable[Pod]],
        changed: asyncio.Event,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._reservations = reservations
        self._claims = claims
        self._offering = offering
        self._pods = pods
        self._changed = changed
        self._patience_seconds = patience_seconds
        self._failing: dict[_Key, tuple[_Which, float]] = {}  # since when (CLOCK_MONOTONIC seconds)
        self._soon = False  # a claim is about to be allocated
        self._ours: dict[_Key, bool] = {}
        self._read: dict[_Key, tuple[str, float]] = {}  # version of the pod, and when to read again
        self._given_up: dict[_Key, _Which] = {}  # the allocation that has failed
        self._told: dict[_Key, tuple[_Which, Readiness]] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Followed until the context ends."""
        async with turning(self._run, log, "following claims of pods that wait"):
            yield

    def serves(self, pod: Pod) -> bool:
        """Whether one of the pod's ResourceClaims is of this node's pool, or none was read yet."""
        return any(self._ours.get((pod.ref.namespace, name), True) for name in pod.resource_claims)

    async def _run(self) -> None:
        while True:
            await self._something()
            if not self._reservations.snapshot.ready:
                continue
            for work in (self._follow_pods, self._follow_ledger):
                try:
                    await work()
                except AimdError as error:
                    log.warning("claims of pods that wait cannot be followed: %s", error)
                    await asyncio.sleep(LOOK_SECONDS)

    async def _something(self) -> None:
        waiting = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({waiting}, timeout=SOON_SECONDS if self._soon else LOOK_SECONDS)
        finally:
            waiting.cancel()
        self._changed.clear()

    async def _follow_pods(self) -> None:
        """Read the claims of pods that have changed, and reserve what was allocated to them."""
        now = time.monotonic()
        waiting = {
            (pod.ref.namespace, name): pod for pod in self._pods() for name in pod.resource_claims if not pod.over
        }
        _forget(waiting, self._read, self._given_up, self._ours)
        self._soon = False
        for key, pod in waiting.items():
            version, due = self._read.get(key, ("", 0.0))
            if version == pod.version and now < due:
                continue
            item = await asyncio.to_thread(self._claims.claim_named, *key)
            allocated = item is not None and bool((item.get("status") or {}).get("allocation"))
            self._soon = self._soon or not allocated
            self._read[key] = (pod.version, now + (AGAIN_SECONDS if allocated else SOON_SECONDS))
            if item is not None and allocated:
                self._ours[key] = bool(results_of(item, self._reservations.pool))
                await self._look(item, pod)

    async def _look(self, item: Object, pod: Pod) -> None:
        results, ref = results_of(item, self._reservations.pool), claim_ref(item)
        which = _which(ref, results)
        if not any(one.get("bindingConditions") for one in results) or self._given_up.get(_key(ref)) == which:
            return
        known = self._reservations.kept().get(ref.uid)
        if known is not None and (known.prepared or which == _kept_which(known)):
            return
        try:
            allocated = self._reservations.read(item, pod)
            await self._reservations.take(allocated, pod, prepared=False)
        except (InvalidInputError, ConflictError, NotFoundError) as error:
            failed = Outcome(Readiness.FAILED, INVALID, error.message)
            await self._fail(item, {str(one["device"]): failed for one in results})

    async def _follow_ledger(self) -> None:
        """Say what became of claims whose pods are not bound yet; give back those that have lost their allocation."""
        waiting = {_key(one.allocation.claim): one for one in self._reservations.kept().values() if not one.prepared}
        _forget(waiting, self._told, self._failing)
        for key, one in waiting.items():
            ref, readiness, which = one.allocation.claim, self._readiness(key, one), _kept_which(one)
            news = readiness is not Readiness.WAITING and self._told.get(key) != (which, readiness)
            version, due = self._read.get(key, ("", 0.0))
            if not news and time.monotonic() < due:
                continue
            item = await asyncio.to_thread(self._claims.claim, ref)
            self._read[key] = (version, time.monotonic() + AGAIN_SECONDS)
            if item is None or _which(ref, results_of(item, self._reservations.pool)) != which:
                await self._reservations.leave(ref.uid, waiting=True)
                self._read.pop(key, None)  # there may be another allocation by now
            elif readiness is Readiness.FAILED:
                await self._fail(item, one.outcomes)
            elif readiness is Readiness.READY and await self._tell(item, one.outcomes):
                self._told[key] = (which, readiness)

    def _readiness(self, key: _Key, one: Kept) -> Readiness:
        """As it is, but what has only begun to fail may still come right."""
        readiness, which, now = one.worst.readiness, _kept_which(one), time.monotonic()
        if readiness is not Readiness.FAILED:
            self._failing.pop(key, None)
            return readiness
        before, since = self._failing.get(key, ((), now))
        if before != which:
            self._failing[key] = (which, since := now)
        return readiness if now >= since + self._patience_seconds else Readiness.WAITING

    async def _fail(self, item: Object, outcomes: Mapping[str, Outcome]) -> None:
        """The allocation cannot be carried out; the taint comes first, or the scheduler would choose the same again."""
        ref = claim_ref(item)
        gpus = {name.split("-")[0] for name, outcome in outcomes.items() if outcome.readiness is Readiness.FAILED}
        if any(outcome.reason != INVALID for outcome in outcomes.values()):
            here = [status.gpu.pci_address for status in self._reservations.snapshot.gpus if status.name in gpus]
            await self._offering.rest(here)
        if await self._tell(item, outcomes):
            self._given_up[_key(ref)] = _which(ref, results_of(item, self._reservations.pool))
            await self._reservations.leave(ref.uid, waiting=True)

    async def _tell(self, item: Object, outcomes: Mapping[str, Outcome]) -> bool:
        """Whether it is told; if not, the claim has changed meanwhile and is to be read again."""
        ref = claim_ref(item)
        entries = device_entries(item, self._reservations.pool, outcomes, _now())
        if entries is not None:
            try:
                await asyncio.to_thread(
                    self._claims.apply_devices, ref, entries, item["metadata"].get("resourceVersion")
                )
            except (NotFoundError, ConflictError):
                self._read.pop(_key(ref), None)
                return False
            log.info("claim %s: %s", ref, "; ".join(sorted(one.message for one in outcomes.values())))
        return True


def _forget(waiting: Mapping[_Key, object], *kept: dict[_Key, Any]) -> None:
    for each in kept:
        for key in [key for key in each if key not in waiting]:
            del each[key]


def _key(ref: ClaimRef) -> _Key:
    return (ref.namespace, ref.name)


def _which(ref: ClaimRef, results: Iterable[Object]) -> _Which:
    """What tells an allocation from others of this claim and of earlier ones of its name."""
    return tuple(
        sorted((ref.uid, str(one.get("request")), str(one.get("device")), str(one.get("shareID"))) for one in results)
    )


def _kept_which(one: Kept) -> _Which:
    uid = one.allocation.claim.uid
    return tuple(
        sorted((uid, each.request, str(each.name), str(each.share_id)) for each in one.allocation.reservations)
    )


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
