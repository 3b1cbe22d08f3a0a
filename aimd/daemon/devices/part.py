"""The node's part in Dynamic Resource Allocation, put together: what begins and ends with the daemon."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aimd.daemon.devices.binding import Binding
from aimd.daemon.devices.files import Files
from aimd.daemon.devices.kubelet import Kubelet
from aimd.daemon.devices.offering import Offering
from aimd.daemon.devices.reserving import ClaimControl, Reservations
from aimd.daemon.published import Published
from aimd.domain.node import NodeSnapshot
from aimd.domain.pod import Pod, PodRef
from aimd.planning.dra.cdi import NodeFiles
from aimd.planning.dra.partition_config import settings_beside
from aimd.planning.dra.surroundings import Surroundings
from aimd.ports_dra import ContainerDevices, DeviceCluster, DeviceDriver, Preparing


@dataclass(frozen=True, slots=True)
class Outside:
    """What is beyond the daemon.

    Attributes:
        driver: made for what the daemon does for the kubelet.
        bound: the pods of this node.
        declared: `spec.gpuSharing` of a pod's service.
    """

    cluster: DeviceCluster
    driver: Callable[[Preparing], DeviceDriver]
    files: ContainerDevices
    bound: Callable[[], tuple[Pod, ...]]
    declared: Callable[[Pod], Mapping[str, Any]]


class DevicePart:
    """For the control loop's thread; `wake` for any.

    Args:
        pool: name of the node.
        around: what devices depend on beside the snapshot.
    """

    def __init__(
        self,
        control: ClaimControl,
        shown: Published[NodeSnapshot],
        pool: str,
        outside: Outside,
        around: Callable[[], Surroundings],
        node_files: NodeFiles,
    ) -> None:
        self._outside = outside
        self._around = around
        self._shown = shown
        self._pool = pool
        self._changed = asyncio.Event()
        self._reservations = Reservations(control, shown, pool, self._pod, self._settings)
        self._files = Files(outside.files, shown, pool, node_files)
        self._binding: Binding | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve the kubelet and the scheduler until the context ends.

        Raises:
            ConflictError: another process serves the driver's sockets.
            ConfigError: they cannot be made.
        """
        outside = self._outside
        loop = asyncio.get_running_loop()
        driver = outside.driver(Kubelet(loop, self._reservations, outside.cluster.claims, self._files))
        offering = Offering(outside.cluster.pool, driver, self._shown, self._pool, self._around)
        self._binding = Binding(self._reservations, outside.cluster.claims, offering, self._pods, self._changed)
        await asyncio.to_thread(driver.start)
        try:
            async with self._files.running(), offering.running(), self._binding.running():
                yield
        finally:
            await asyncio.to_thread(driver.close)

    def serves(self, pod: Pod) -> bool:
        """Whether the pod has its partition by a ResourceClaim of this node, or may have."""
        return self._binding.serves(pod) if self._binding is not None else bool(pod.resource_claims)

    def wake(self) -> None:
        """Pods are others."""
        self._changed.set()

    def _pods(self) -> tuple[Pod, ...]:
        bound = tuple(pod for pod in self._outside.bound() if pod.resource_claims)
        return (*self._outside.cluster.waiting(), *bound)

    def _pod(self, ref: PodRef) -> Pod | None:
        every = (*self._outside.bound(), *self._outside.cluster.waiting())
        return next((pod for pod in every if pod.ref.uid == ref.uid), None)

    def _settings(self, pod: Pod) -> Mapping[str, Any]:
        return settings_beside(pod.annotations, self._outside.declared(pod))
