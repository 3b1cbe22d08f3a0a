"""What the daemon needs to give partitions to pods by Dynamic Resource Allocation, and what the driver needs of it.

adapters.dra implements `DeviceDriver` and `ContainerDevices`, adapters.kube `Claims` and `Pool`; the daemon `Preparing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from aimd.domain.dra import (
    ClaimRef,
    ContainerDevice,
    DeviceHealth,
    PreparedDevice,
    Registration,
    Rewritten,
    SliceStatistics,
)
from aimd.domain.pod import Pod

Object = Mapping[str, Any]


class Preparing(Protocol):
    """What the kubelet wants done for a claim. Both are called in threads of the driver, and may block.

    One call runs for a claim at a time, those of several beside each other. `deadline` is CLOCK_MONOTONIC seconds: who
    has not returned by then, or when the driver is closed, goes on for nobody; the kubelet calls again. Errors are told
    to the pod by an Event, as one sentence.
    """

    def prepare(self, claim: ClaimRef, deadline: float) -> Sequence[PreparedDevice]:
        """Make the devices of the claim ready; once more if they are. Raises AimdError."""
        ...

    def unprepare(self, claim: ClaimRef, deadline: float) -> None:
        """Give them back, if they are not given back yet; the claim may be gone from the cluster. Raises AimdError."""
        ...


class DeviceDriver(Protocol):
    """The driver as the kubelet sees it. No method blocks unless it says so; all are for any thread."""

    def start(self) -> None:
        """Serve, and be found by the kubelet.

        Raises:
            ConflictError: another process serves the sockets.
            ConfigError: they cannot be made.
        """
        ...

    @property
    def registration(self) -> Registration | None:
        """What the kubelet said last; None before it said anything."""
        ...

    @property
    def problem(self) -> str | None:
        """Why the kubelet does not find the driver, a sentence; None if it can."""
        ...

    def publish_health(self, devices: Sequence[DeviceHealth], at: float) -> None:
        """All devices, as of `at` (seconds since the epoch). What is not said again within 30 s counts as unknown."""
        ...

    def close(self) -> None:
        """End serving; blocks for seconds at most. Calls that run are given a moment, then answered with an error."""
        ...


class ContainerDevices(Protocol):
    """CDI files: what the container runtime puts into containers. All methods block; for any thread.

    Raises:
        CdiError: a file cannot be written or removed.
        InvalidInputError: a claim's uid or a request is no such name.
    """

    def write(self, uid: str, devices: Sequence[ContainerDevice]) -> Mapping[str, str]:
        """The devices of a claim, durably, in place of those it had. Gives the CDI id of each request."""
        ...

    def remove(self, uid: str) -> None:
        """Those of a claim, if it has any."""
        ...

    def rewrite(self, claims: Mapping[str, Sequence[ContainerDevice]]) -> Rewritten:
        """Those of all claims, by uid: what is missing or differs is written, what belongs to no claim is removed."""
        ...


class Claims(Protocol):
    """ResourceClaims. Each call is a request that blocks for a minute at most; errors as `ports_cluster.Objects`."""

    def claim(self, claim: ClaimRef) -> Object | None:
        """It, or None if there is none of this name and uid."""
        ...

    def claim_named(self, namespace: str, name: str) -> Object | None:
        """Whichever has the name now."""
        ...

    def apply_devices(self, claim: ClaimRef, devices: Sequence[Object], version: str | None = None) -> Object:
        """Make these the entries of ours in `status.devices`; those that we wrote before and are not among them go.

        Args:
            devices: entries of resource.k8s.io/v1 (`driver`, `pool`, `device`, `shareID`, `conditions`).
            version: the claim's resourceVersion that this is about; None if any will do.

        Raises:
            NotFoundError: it has gone.
            ConflictError: it has changed since that version, or is another one of the same name.
            InvalidInputError: a device is not (any more) allocated to the claim, among others.
        """
        ...


# What the pool's ResourceSlices should be, all of them with names and generation, given those that are there; None if
# they are right. Pure: it is called in several threads, and again whenever somebody else has changed them.
Decide = Callable[[Sequence[Object]], Sequence[Object] | None]


class Pool(Protocol):
    """The node's devices as the cluster sees them: ResourceSlices of this driver and node, and of nobody else."""

    @property
    def synced(self) -> bool:
        """Whether it is known what the API server has."""
        ...

    def published(self) -> tuple[Object, ...]:
        """What the API server has, as last told."""
        ...

    def publish(self, decide: Decide) -> None:
        """From now on the pool is as this says, whatever others do to it. Returns at once."""
        ...

    def statistics(self) -> SliceStatistics: ...


class DeviceCluster(Protocol):
    """The cluster as the driver's node needs it."""

    @property
    def claims(self) -> Claims: ...

    @property
    def pool(self) -> Pool: ...

    @property
    def synced(self) -> bool:
        """Whether `waiting` and the pool say what is."""
        ...

    def waiting(self) -> tuple[Pod, ...]:
        """The pods that are nominated to this node and not bound yet, some because their devices are not ready.

        A pod is here before its claims are allocated, and nothing tells when they are: ask for them now and then.
        """
        ...


# Tells of a call that has ended: `prepare` or `unprepare`, `ok` or the error's code, seconds. For any thread.
Called = Callable[[str, str, float], None]
