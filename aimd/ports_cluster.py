"""What the daemon needs of a Kubernetes cluster, as protocols. adapters.kube implements them.

Objects are JSON as the API server sends it (`Object`); only pods are translated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from aimd.domain.cluster import KubeStatistics, ObjectRef
from aimd.domain.pod import Pod, PodRef

Object = Mapping[str, Any]


class Objects(Protocol):
    """Single requests. Each blocks for a minute at most; reads give None where there is no such object.

    Raises:
        ConflictError: another has changed it meanwhile (or `already_exists`): read again.
        NotFoundError: what is to be changed does not exist.
        InvalidInputError: the API server's validation or admission refuses it.
        DeniedError: RBAC or a policy does; UnauthenticatedError: the credentials are not good.
        UnreachableError: no answer, or one of the 5xx; ThrottledError: too many requests.
    """

    def service(self, namespace: str, name: str) -> Object | None:
        """An InferenceService (v1beta1)."""
        ...

    def patch_service_status(self, namespace: str, name: str, patch: Object) -> Object:
        """JSON merge patch; gives the object as it then is."""
        ...

    def pod(self, namespace: str, name: str) -> Object | None:
        """A pod of any node."""
        ...

    def node_partitions(self) -> Object | None:
        """This node's own, asked for now (`Cluster.node_partitions` costs no request)."""
        ...

    def create_node_partitions(self, item: Object) -> Object: ...

    def patch_node_partitions_status(self, patch: Object) -> Object: ...

    def node(self) -> Object | None:
        """This node's Node."""
        ...

    def resource_slices(self) -> Sequence[Object]:
        """The ResourceSlices of this node; none where the API server has no such API."""
        ...


class Cluster(Protocol):
    """The cluster as this node takes part in it. No method blocks unless it says so; all are for any thread."""

    @property
    def node_name(self) -> str: ...

    @property
    def synced(self) -> bool:
        """Whether pods and node_partitions say what is, not only that nothing is known yet."""
        ...

    def start(self, on_change: Callable[[], None]) -> None:
        """Begin to listen. `on_change` is called in a thread of the adapter whenever pods, node_partitions or synced differ."""
        ...

    def pods(self) -> tuple[Pod, ...]:
        """The pods bound to this node, as of the last word of the API server."""
        ...

    def node_partitions(self) -> Object | None:
        """This node's own NodePartitions; None while there is none."""
        ...

    def write(self, key: str, work: Callable[[Objects], None], *, urgent: bool = True) -> bool:
        """Have the work done soon in the adapter's thread, and again until it raises nothing.

        The key's first word is one of WRITE_KINDS. The newest work of a key is the one that is done; it reads what it
        changes and decides anew at each attempt. NotFoundError and InvalidInputError end it; the latter is in the log.
        False if too much waits already: try at the next occasion. What is not urgent waits for all that is.
        """
        ...

    def read(self, key: str, work: Callable[[Objects], None], *, urgent: bool = True) -> bool:
        """Likewise in another thread: what is read waits for nothing that is written, and hands over what it finds."""
        ...

    def tell(self, about: PodRef | ObjectRef, reason: str, message: str, *, warning: bool = False) -> None:
        """An Event: `reason` in CamelCase, the message a sentence. The same again is counted, not sent anew."""
        ...

    def statistics(self) -> KubeStatistics: ...

    def close(self) -> None:
        """End listening and writing; blocks for seconds at most. What waits to be written is given up."""
        ...
