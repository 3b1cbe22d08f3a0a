"""The node's part in a cluster, if the configuration has one."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from aimd import __version__
from aimd.adapters.amdgpu.bus import driver_version, pcie_roots
from aimd.adapters.dra.cdi import CdiFiles
from aimd.config import Config, Kubernetes
from aimd.daemon.cluster import ClusterService
from aimd.daemon.devices.part import DevicePart, Outside
from aimd.daemon.effective import Effective
from aimd.daemon.loop import ControlLoop
from aimd.daemon.published import Published
from aimd.domain.cluster import ClusterStanding
from aimd.domain.dra import DRIVER
from aimd.domain.node import NodeSnapshot
from aimd.errors import ConfigError
from aimd.planning.dra.cdi import NodeFiles
from aimd.planning.dra.surroundings import Surroundings
from aimd.ports import Sysfs
from aimd.ports_dra import DeviceDriver, Preparing
from aimd.rundirs import RunDirectories


@dataclass(frozen=True, slots=True)
class ClusterPart:
    """What takes part in the cluster; `devices` is None where the scheduler is offered none."""

    service: ClusterService
    devices: DevicePart | None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until the context ends. Raises ConfigError and ConflictError if the kubelet cannot be served."""
        async with self.service.running():
            if self.devices is None:
                yield
                return
            async with self.devices.running():
                yield


def cluster_part(
    config: Config,
    shown: Published[NodeSnapshot],
    loop: ControlLoop,
    effective: Effective,
    boot_id: str,
    paths: RunDirectories,
    sysfs: Sysfs,
) -> ClusterPart | None:
    """None where no cluster is configured.

    Raises:
        ConfigError: a library is missing, or what leads to the API server is.
    """
    settings = config.kubernetes
    if not settings.enabled:
        return None
    try:
        from aimd.adapters.kube.cluster import KubeCluster  # noqa: PLC0415 - 40 MB that no node outside a cluster needs
    except ImportError as error:
        raise _missing(error, "enabled", "kube") from error
    node = settings.node or os.environ.get("NODE_NAME") or platform.node().lower()
    kubeconfig = Path(settings.kubeconfig) if settings.kubeconfig is not None else None
    about = {"aimdVersion": __version__, "bootID": boot_id}
    cluster = KubeCluster(node, kubeconfig, f"aimd/{__version__}", driver=DRIVER if settings.devices else None)
    devices = None
    if cluster.devices is not None:
        outside = Outside(
            cluster.devices,
            _driver(settings),
            CdiFiles(Path(settings.cdi_directory)),
            cluster.pods,
            lambda pod: service.declared(pod),  # noqa: PLW0108 - it comes later, since it asks the part itself
        )
        files = NodeFiles(paths.runtime, f"{settings.device_root}/kfd", f"{settings.device_root}/dri")
        devices = DevicePart(loop, shown, node, outside, _Surroundings(effective, shown, sysfs), files)
    service = ClusterService(cluster, shown, loop.post, effective, about, settings.refresh_seconds, devices)
    return ClusterPart(service, devices)


def standing_of(part: ClusterPart | None) -> Callable[[], ClusterStanding] | None:
    """What tells how the node takes part, if it does."""
    return part.service.standing if part is not None else None


def taking_part(part: ClusterPart | None) -> contextlib.AbstractAsyncContextManager[None]:
    """While the context lasts."""
    return part.running() if part is not None else contextlib.nullcontext()


def _driver(settings: Kubernetes) -> Callable[[Preparing], DeviceDriver]:
    try:
        from aimd.adapters.dra.driver import KubeletDriver  # noqa: PLC0415 - gRPC is not needed where none is offered
    except ImportError as error:
        raise _missing(error, "devices", "dra") from error
    return lambda preparing: KubeletDriver(preparing, Path(settings.kubelet_root))


def _missing(error: ImportError, setting: str, extra: str) -> ConfigError:
    return ConfigError(
        f"[kubernetes] {setting} is true, and the package {error.name} is not installed",
        hint=f"pip install 'aimd[{extra}]'",
    )


class _Surroundings:
    """What counts now; what is of the machine's build is read when its GPUs are first known."""

    def __init__(self, effective: Effective, shown: Published[NodeSnapshot], sysfs: Sysfs) -> None:
        self._effective = effective
        self._shown = shown
        self._sysfs = sysfs
        self._roots: dict[str, str] = {}
        self._known: frozenset[str] = frozenset()

    def __call__(self) -> Surroundings:
        policy = self._effective.policy
        addresses = frozenset(status.gpu.pci_address for status in self._shown.latest().gpus)
        if addresses != self._known:
            self._known, self._roots = addresses, pcie_roots(self._sysfs, addresses)
        return Surroundings(
            policy.slots_per_partition,
            policy.repartition,
            policy.rivals,
            driver_version=driver_version(self._sysfs, platform.release()),
            pcie_roots=self._roots,
        )
