"""The node's part in a cluster, if the configuration has one."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable
from pathlib import Path

from aimd import __version__
from aimd.config import Config
from aimd.daemon.cluster import ClusterService
from aimd.daemon.effective import Effective
from aimd.daemon.loop import ControlLoop
from aimd.daemon.published import Published
from aimd.domain.cluster import ClusterStanding
from aimd.domain.node import NodeSnapshot
from aimd.errors import ConfigError


def cluster_service(
    config: Config, shown: Published[NodeSnapshot], loop: ControlLoop, effective: Effective, boot_id: str
) -> tuple[ClusterService, Callable[[], ClusterStanding]] | tuple[None, None]:
    """The service and what tells how it is; None where no cluster is configured.

    Raises:
        ConfigError: the library is missing, or what leads to the API server is.
    """
    settings = config.kubernetes
    if not settings.enabled:
        return None, None
    try:
        from aimd.adapters.kube.cluster import KubeCluster  # noqa: PLC0415 - 40 MB that no node outside a cluster needs
    except ImportError as error:
        raise ConfigError(
            f"[kubernetes] is enabled, and the package {error.name} is not installed", hint="pip install 'aimd[kube]'"
        ) from error
    node = settings.node or os.environ.get("NODE_NAME") or platform.node().lower()
    kubeconfig = Path(settings.kubeconfig) if settings.kubeconfig is not None else None
    about = {"aimdVersion": __version__, "bootID": boot_id}
    cluster = KubeCluster(node, kubeconfig, f"aimd/{__version__}")
    service = ClusterService(cluster, shown, loop.post, effective, loop.reconfigure, about, settings.refresh_seconds)
    return service, service.standing


def taking_part(service: ClusterService | None) -> contextlib.AbstractAsyncContextManager[None]:
    """While the context lasts."""
    return service.running() if service is not None else contextlib.nullcontext()
