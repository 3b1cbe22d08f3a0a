"""ports_dra.DeviceCluster: claims, the pool, and the pods that wait for their devices, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from aimd.adapters.kube import resources
from aimd.adapters.kube.claims import ApiClaims
from aimd.adapters.kube.connection import Connection
from aimd.adapters.kube.patience import Patience
from aimd.adapters.kube.reflector import Reflector
from aimd.adapters.kube.slices import SlicePool
from aimd.adapters.kube.writer import Work
from aimd.domain.cluster import WatchStatistics
from aimd.domain.dra import PodClaims
from aimd.domain.pod import PodRef


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
            connection, resources.pods(), f"status.nominatedNodeName={node_name}", pod_claims, patience
        )

    @property
    def synced(self) -> bool:
        return self.pool.synced and self._nominated.synced

    def waiting(self) -> tuple[PodClaims, ...]:
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


def pod_claims(item: Mapping[str, Any]) -> PodClaims | None:
    """What a core/v1 Pod that is not bound yet claims; None for others.

    The names are those of existing claims: given by the pod's maker, made from a template, or for extended resources.
    """
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    given = [each.get("resourceClaimName") for each in spec.get("resourceClaims") or ()]
    made = [each.get("resourceClaimName") for each in status.get("resourceClaimStatuses") or ()]
    extended = (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName")
    names = tuple(dict.fromkeys(name for name in (*given, *made, extended) if name))
    if spec.get("nodeName") or not names:
        return None
    ref = PodRef(metadata["namespace"], metadata["name"], metadata["uid"])
    return PodClaims(ref, names, deleting=bool(metadata.get("deletionTimestamp")))
