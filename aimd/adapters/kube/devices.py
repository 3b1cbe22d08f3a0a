"""ports_dra.DeviceCluster: claims, the pool, and the pods that wait for their devices, put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aimd.adapters.kube import resources
from aimd.adapters.kube.claims import ApiClaims
from aimd.adapters.kube.connection import Connection
from aimd.adapters.kube.patience import Patience
from aimd.adapters.kube.pods import unbound_pod
from aimd.adapters.kube.reflector import Reflector
from aimd.adapters.kube.slices import SlicePool
from aimd.adapters.kube.writer import Work
from aimd.domain.cluster import WatchStatistics
from aimd.domain.pod import Pod


class KubeDevices:
    """By a connection and a thread that writes of the cluster's (`KubeCluster`).

    Args:
        submit: has work done in the thread that writes.
    """

    def __init__(
        self,
        connection: Connection,
        submit: Callable[[str, Work], bool],
        node_name: str,
        driver: str,
        patience: Patience | None = None,
    ) -> None:
        self.claims = ApiClaims(connection)
        self.pool = SlicePool(connection, submit, node_name, driver, patience)
        self._nominated = Reflector(
            connection, resources.pods(), f"status.nominatedNodeName={node_name}", unbound_pod, patience
        )

    @property
    def synced(self) -> bool:
        return self.pool.synced and self._nominated.synced

    def waiting(self) -> tuple[Pod, ...]:
        return tuple(each for each in self._nominated.things() if each is not None)

    def start(self, on_change: Callable[[], None]) -> None:
        """`on_change` is called in a thread of this adapter whenever `waiting` differs."""
        self.pool.start()
        self._nominated.start(on_change)

    def watches(self) -> tuple[WatchStatistics, ...]:
        return (self.pool.watch(), replace(self._nominated.statistics(), resource="nominatedpods"))

    def close(self) -> None:
        self.pool.close()
        self._nominated.close()
