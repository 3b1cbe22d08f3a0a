"""What ResourceClaims have of the node: taken in the ledger, waited for, given back. For the control loop's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aimd.daemon.published import Published
from aimd.domain.claim import Claim, PodRequest
from aimd.domain.dra import ClaimRef
from aimd.domain.node import NodeSnapshot
from aimd.domain.pod import Pod, PodRef
from aimd.errors import ConflictError, InvalidInputError, NotFoundError, UnreachableError
from aimd.planning.dra.conditions import Readiness
from aimd.planning.dra.kept import Kept, kept
from aimd.planning.dra.requests import Allocation, allocation, pods_of
from aimd.planning.sharing.asked import Refused
from aimd.planning.sharing.owner import model_of

Object = Mapping[str, Any]
LOOK_SECONDS = 0.2  # for a pod that the watch has not told of yet
FOLLOW_SECONDS = 5.0
# The pod, if the node knows it; what its annotations and its service say beside its claim.
FindPod = Callable[[PodRef], Pod | None]
SettingsOf = Callable[[Pod], Mapping[str, Any]]


class ClaimControl(Protocol):
    """What the control loop makes durable before it answers."""

    async def take_devices(self, uid: str, requests: tuple[PodRequest, ...]) -> Claim: ...

    async def leave_devices(self, uid: str, *, waiting: bool = False) -> None: ...


class Reservations:
    """The shares of all ResourceClaims.

    Args:
        pool: the node's, by its name.
    """

    def __init__(
        self,
        control: ClaimControl,
        shown: Published[NodeSnapshot],
        pool: str,
        find_pod: FindPod,
        settings_of: SettingsOf = lambda _pod: {},
    ) -> None:
        self._control = control
        self._shown = shown
        self._find_pod = find_pod
        self._settings_of = settings_of
        self.pool = pool

    @property
    def snapshot(self) -> NodeSnapshot:
        return self._shown.latest()

    def kept(self) -> dict[str, Kept]:
        """By UID of the ResourceClaim."""
        return kept(self.snapshot, self.pool)

    def read(self, claim: Object, pod: Pod | None) -> Allocation:
        """What a ResourceClaim was allocated here; `pod` is one of its users, whose settings fill what it leaves open.

        Raises:
            NotFoundError: nothing of this node.
            InvalidInputError: what cannot be carried out, a sentence for each mistake.
        """
        found = allocation(claim, self.pool, self.snapshot, self._settings_of(pod) if pod is not None else {})
        metadata = claim["metadata"]
        if found is None:
            raise NotFoundError(
                f"claim {metadata['namespace']}/{metadata['name']} has no device of node {self.pool} (any more)",
                code="not_allocated",
            )
        if isinstance(found, Refused):
            raise InvalidInputError(found.message, code="claim_invalid")
        return found

    async def looked(self, until: float) -> None:
        """Wait for the first look at the node; UnreachableError if there is none until then."""
        while not self.snapshot.ready:
            left = until - time.monotonic()
            if left <= 0:
                raise UnreachableError(
                    "aimd does not know its GPUs yet", hint="the kubelet asks again; aimctl doctor tells why"
                )
            await self._shown.newer(self.snapshot.generation, min(left, FOLLOW_SECONDS))

    async def user(self, claim: Object, until: float) -> Pod:
        """The first pod that may use the claim; waits until the watch tells of it.

        Raises:
            ConflictError: it is reserved for none; NotFoundError: none of them is on this node.
        """
        users = pods_of(claim)
        name = f"claim {claim['metadata']['namespace']}/{claim['metadata']['name']}"
        if not users:
            raise ConflictError(f"{name} is reserved for no pod", code="not_reserved")
        while True:
            for ref in users:
                if (pod := self._find_pod(ref)) is not None:
                    return pod
            left = until - time.monotonic()
            if left <= 0:
                raise NotFoundError(f"pod {users[0]} of {name} is not known on node {self.pool}", code="unknown_pod")
            await self._shown.newer(self.snapshot.generation, min(left, LOOK_SECONDS))

    async def take(self, allocated: Allocation, pod: Pod, *, prepared: bool) -> None:
        """Reserve it, durably; the GPU is switched if it has to be.

        Raises:
            ConflictError: the model's name is taken by a claim that no pod has made.
        """
        requests = allocated.asked(model_of(pod), prepared=prepared)
        await self._control.take_devices(allocated.claim.uid, requests)

    async def ready(self, claim: ClaimRef, until: float) -> Kept:
        """The claim when its partitions are there.

        Raises:
            ConflictError: they are not at `until` (CLOCK_MONOTONIC seconds); the message says what is in the way.
            NotFoundError: it was given back meanwhile.
        """
        while True:
            snapshot = self.snapshot
            one = kept(snapshot, self.pool).get(claim.uid)
            if one is None:
                raise NotFoundError(f"claim {claim} was given back meanwhile", code="not_allocated")
            if one.worst.readiness is Readiness.READY:
                return one
            left = until - time.monotonic()
            if left <= 0:
                raise ConflictError(
                    f"claim {claim} has no partition yet: {one.worst.message}",
                    code="not_placed",
                    hint="the kubelet asks again in a minute; aimctl get claims -o wide tells more",
                )
            await self._shown.newer(snapshot.generation, min(left, FOLLOW_SECONDS))

    async def leave(self, uid: str, *, waiting: bool = False) -> None:
        """Give the claim's shares back, if it has any. Memory that processes of it go on using stays reserved.

        Args:
            waiting: only if the kubelet has not asked for it, which may have happened since somebody looked.
        """
        await self._control.leave_devices(uid, waiting=waiting)
