"""ports_cluster.Cluster: two watches, works that write and read, and the Events of a node, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from aimd.adapters.kube import access, resources
from aimd.adapters.kube.connection import Connection
from aimd.adapters.kube.devices import KubeDevices
from aimd.adapters.kube.events import EventRecorder
from aimd.adapters.kube.objects import ApiObjects
from aimd.adapters.kube.patience import Patience
from aimd.adapters.kube.pods import pod
from aimd.adapters.kube.reflector import Reflector
from aimd.adapters.kube.writer import Work, Writer
from aimd.domain.cluster import KubeStatistics, ObjectRef
from aimd.domain.pod import Pod, PodRef

Object = Mapping[str, Any]


class KubeCluster:
    """The cluster as one node takes part in it.

    Args:
        node_name: of the Node object.
        kubeconfig: a file; None is the service account of the pod that this runs in.
        user_agent: how the API server's logs name this program.
        driver: of the devices that this node publishes; None if it publishes none.

    Attributes:
        devices: what the driver needs, None without one.

    Raises:
        ConfigError: there is no such file or account, or it does not say what it has to.
    """

    def __init__(
        self,
        node_name: str,
        kubeconfig: Path | None,
        user_agent: str = "aimd",
        patience: Patience | None = None,
        *,
        driver: str | None = None,
    ) -> None:
        self.node_name = node_name
        configure = partial(access.of_kubeconfig, kubeconfig) if kubeconfig else access.of_service_account
        self._connection = Connection(configure, user_agent, patience)
        self._objects = ApiObjects(self._connection, node_name)
        on_node, by_name = f"spec.nodeName={node_name}", f"metadata.name={node_name}"
        self._pods = Reflector(self._connection, resources.pods(), on_node, pod, patience)
        self._partitions: Reflector[Object] = Reflector(
            self._connection, resources.node_partitions(), by_name, _as_it_is, patience
        )
        self._writer = Writer(self._objects, self._connection, patience)
        self._reader = Writer(self._objects, self._connection, patience, kind="read")
        self._events = EventRecorder(self._objects, self._writer, node_name)
        self.devices = (
            KubeDevices(self._connection, self._writer.submit, node_name, driver, patience) if driver else None
        )

    @property
    def synced(self) -> bool:
        return self._pods.synced and self._partitions.synced

    def start(self, on_change: Callable[[], None]) -> None:
        self._pods.start(on_change)
        self._partitions.start(on_change)
        self._writer.start()
        if self.devices is not None:
            self.devices.start(on_change)
        self._reader.start()

    def pods(self) -> tuple[Pod, ...]:
        return self._pods.things()

    def node_partitions(self) -> Object | None:
        return next(iter(self._partitions.things()), None)

    def write(self, key: str, work: Work, *, urgent: bool = True) -> bool:
        return self._writer.submit(key, work, urgent=urgent)

    def read(self, key: str, work: Work, *, urgent: bool = True) -> bool:
        return self._reader.submit(key, work, urgent=urgent)

    def tell(self, about: PodRef | ObjectRef, reason: str, message: str, *, warning: bool = False) -> None:
        if isinstance(about, PodRef):
            about = ObjectRef("v1", "Pod", about.name, about.uid, about.namespace)
        self._events.tell(about, reason, message, warning=warning)

    def statistics(self) -> KubeStatistics:
        watches = self.devices.watches() if self.devices is not None else ()
        return KubeStatistics(
            (self._pods.statistics(), self._partitions.statistics(), *watches),
            replace(self._writer.statistics(), events_held_back=self._events.held_back),
            self._connection.counts.requests(),
            self._connection.counts.durations(),
            self._connection.counts.reloads(),
            self._connection.server,
            self._reader.statistics(),
        )

    def close(self) -> None:
        if self.devices is not None:
            self.devices.close()
        self._writer.close()
        self._reader.close()
        self._pods.close()
        self._partitions.close()
        self._connection.close()


def _as_it_is(item: Object) -> Object:
    return item
