"""The node's part in its cluster."""

from __future__ import annotations

from dataclasses import replace

from aimd.adapters.http.api import Api
from aimd.adapters.http.call import Answer, Call, Result
from aimd.adapters.http.routes import Route
from aimd.protocol.cluster import ClusterMessage, cluster_message


async def read_cluster(api: Api, call: Call) -> Result:
    """A process in a pod does not hear of others' pods."""
    standing = api.cluster() if api.cluster is not None else None
    if standing is not None and call.peer.in_pod:
        standing = replace(standing, pods_refused={})
    return Answer(cluster_message(standing))


ROUTES = (
    Route(
        "GET",
        "/v1/cluster",
        "How the node takes part in its Kubernetes cluster: connection, writes, what stands in the way",
        read_cluster,
        {200: ClusterMessage},
    ),
)
