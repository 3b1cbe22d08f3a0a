"""aimd.toml: read, typed, and refused as a whole if anything in it is unknown or out of range."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args, get_type_hints

import msgspec
import tomli

from aimd.domain.modes import PartitionMode
from aimd.errors import ConfigError, InvalidInputError
from aimd.mistakes import mistake

_GPU = re.compile(r"default|gpu\d+|[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
METRICS_ADDRESS = "127.0.0.1:9855"
Typed = TypeVar("Typed", bound=msgspec.Struct)
Seconds = Annotated[float, msgspec.Meta(ge=0.05, le=86400)]
Uid = Annotated[int, msgspec.Meta(ge=0)]
AT_START = "at start"  # marks a setting for what is built then: a reload leaves it as it is


class Switching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[switching]: budgets of a mode switch, in seconds."""

    wait_seconds: Seconds = 30.0
    settle_seconds: Seconds = 30.0
    wish_retry_seconds: Seconds = 60.0


class Placement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[placement]: of claims.

    Attributes:
        repartition: "when-idle": a claim may switch a GPU that nobody is assigned to; "never": it may not.
        slots_per_partition: dispatch slots that guarantees are taken from.
        orphan_grace_seconds: how long a holder that was found dead keeps its place.
    """

    repartition: Literal["when-idle", "never"] = "when-idle"
    slots_per_partition: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 16
    orphan_grace_seconds: Seconds = 60.0


Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


class Waits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[dispatch.wait_seconds]: how long a request of a class waits when it does not say."""

    high: Seconds = 5.0
    medium: Seconds = 15.0
    low: Seconds = 60.0


class Allow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[[dispatch.allow]]: who may use which models, beyond operators, owners and holders of claims.

    Attributes:
        user, group: name or number; pod: a pattern for pod UIDs. At least one is given, and all that are must fit.
        models, partitions: patterns with * and ?.
        highest: the best class that may be asked for.
    """

    models: Annotated[list[str], msgspec.Meta(min_length=1)]
    highest: Literal["high", "medium", "low"] = "medium"
    partitions: Annotated[list[str], msgspec.Meta(min_length=1)] = msgspec.field(default_factory=lambda: ["*"])
    user: str | Uid | None = None
    group: str | Uid | None = None
    pod: str | None = None


class Dispatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[dispatch]: the service that requests of models wait at.

    Attributes:
        queue_cap: waiting requests of a partition, model_queue_cap: of a model on it.
        lease_max_seconds: after this a lease that was not renewed is taken back.
        lost_seconds: how long the lease of a living process without a connection is kept.
        connections: in all, connections_per_user: of one uid.
        waiting_per_connection, waiting_per_user: requests.
        patience_seconds: how long a client that does not read is kept.
    """

    queue_cap: Count = 4096
    model_queue_cap: Count = 1024
    lease_max_seconds: Seconds = 600.0
    lost_seconds: Seconds = 30.0
    connections: Annotated[Annotated[int, msgspec.Meta(ge=1, le=65536)], AT_START] = 8192
    connections_per_user: Annotated[Count, AT_START] = 1024
    waiting_per_connection: Annotated[Count, AT_START] = 1024
    waiting_per_user: Annotated[Count, AT_START] = 16384
    patience_seconds: Annotated[Seconds, AT_START] = 30.0
    wait_seconds: Waits = Waits()
    allow: list[Allow] = []


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[metrics]: the page for Prometheus; on metrics.sock it is served in any case.

    Attributes:
        listen: IP address and port for TCP, or "off". The default address is given up, with a warning, if it is taken.
    """

    listen: str = METRICS_ADDRESS

    def address(self) -> tuple[str, int] | None:
        """IP address and port, None for off; raises ValueError for anything else."""
        if self.listen == "off":
            return None
        host, _, port = self.listen.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        version = 6 if bare != host else 4
        if ipaddress.ip_address(bare).version != version or not (
            port.isascii() and port.isdigit() and int(port) < 65536
        ):
            raise ValueError(self.listen)
        return bare, int(port)


class Kubernetes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[kubernetes]: the cluster that this machine is a node of.

    Attributes:
        enabled: whether pods of the node are given partitions, and the cluster is told.
        node: name of the Node object; None: $NODE_NAME, else the machine's name.
        kubeconfig: a file; None: the service account of the pod that aimd runs in.
        refresh_seconds: how often a status is written that has not changed.
        devices: whether partitions are offered to the scheduler as devices (Dynamic Resource Allocation).
        kubelet_root, cdi_directory: folders of the kubelet, and of what container runtimes read about devices.
        device_root: folder of the node's device files, kfd and dri/renderD128 and so on.
    """

    enabled: bool = False
    node: str | None = None
    kubeconfig: str | None = None
    refresh_seconds: Annotated[float, msgspec.Meta(ge=60, le=86400)] = 300.0
    devices: bool = False
    kubelet_root: str = "/var/lib/kubelet"
    cdi_directory: str = "/var/run/cdi"
    device_root: str = "/dev"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        sysfs_root: where /sys is: the system's, a mounted simulation or a captured tree.
        allow_memory_mode_change: whether aimd may request memory modes (NPS) at all.
        operators: user names or uids that may change things, beside root and the daemon's own user.
        poll_seconds: how often the topology's generation is looked at.
        memory_probe: whether HIP is asked, by a helper process, how much memory is free; hip_library: by which file of
            libamdhip64 (None: what the loader finds); probe_seconds: how often.
        on_memory_overrun: what follows when a claim uses more memory than it has reserved for memory_overrun_seconds,
            beside a finding and an event: "deny-new-leases": its model gets no new leases there until it uses less.
        layout: modes by `default`, `gpu<n>` or PCI address, applied at start.
    """

    sysfs_root: Annotated[str, AT_START] = "/sys"
    allow_memory_mode_change: bool = False
    operators: Annotated[list[str | Uid], AT_START] = []
    poll_seconds: Annotated[Seconds, AT_START] = 2.0
    memory_probe: Annotated[Literal["hip", "off"], AT_START] = "hip"
    hip_library: Annotated[str | None, AT_START] = None
    probe_seconds: Annotated[Seconds, AT_START] = 300.0
    on_memory_overrun: Literal["report", "deny-new-leases"] = "report"
    memory_overrun_seconds: Seconds = 10.0
    log_level: Annotated[str, AT_START] = "info"
    switching: Switching = Switching()
    placement: Placement = Placement()
    dispatch: Dispatch = Dispatch()
    metrics: Annotated[Metrics, AT_START] = Metrics()
    kubernetes: Annotated[Kubernetes, AT_START] = Kubernetes()
    layout: dict[str, str] = {}

    def modes(self) -> dict[str, PartitionMode]:
        """The layout, parsed."""
        return {gpu.lower(): PartitionMode.parse(mode) for gpu, mode in self.layout.items()}

    def layout_digest(self) -> str:
        """Changes when the layout does; empty for no layout."""
        if not self.layout:
            return ""
        said = "\n".join(f"{gpu}={mode}" for gpu, mode in sorted(self.modes().items()))
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def _marked(kind: type[msgspec.Struct]) -> list[str]:
    return [name for name, hint in get_type_hints(kind, include_extras=True).items() if AT_START in get_args(hint)]


def needs_restart() -> frozenset[str]:
    """Settings that take effect at the next start only; those of [dispatch] as dispatch.<name>."""
    return frozenset([*_marked(Config), *(f"dispatch.{name}" for name in _marked(Dispatch))])


class _LayoutFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    layout: dict[str, str]


def read_config(path: Path) -> Config:
    """The configuration in a file.

    Raises:
        ConfigError: unreadable, no TOML, an unknown key (named by its path) or a value that is not expected.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise ConfigError(f"{path} cannot be read: {why}", hint="name another file with --config") from error
    return parse_config(text, str(path))


def parse_config(text: str, name: str) -> Config:
    """The configuration in a text; `name` is how messages call it. Raises ConfigError."""
    config = _typed(text, name, Config, "systemd/aimd.toml explains every setting")
    if config.log_level not in ("debug", "info", "warning", "error"):
        raise ConfigError(f"{name}: log_level is {config.log_level!r}, expected debug, info, warning or error")
    if config.hip_library is not None and not config.hip_library.startswith("/"):
        raise ConfigError(
            f"{name}: hip_library is {config.hip_library!r}, expected the absolute path of a file",
            hint="leave it away to have the loader look for libamdhip64",
        )
    try:
        config.metrics.address()
    except ValueError as error:
        raise ConfigError(
            f'{name}: metrics.listen is {config.metrics.listen!r}, expected an IP address and a port, or "off"',
            hint=f'for example "{METRICS_ADDRESS}" or "[::1]:9855"',
        ) from error
    for number, rule in enumerate(config.dispatch.allow):
        if rule.user is None and rule.group is None and rule.pod is None:
            raise ConfigError(
                f"{name}: dispatch.allow[{number}] says not whom it is for, expected user, group or pod",
                hint='for everybody outside of pods: user = "..." per user, or a group; for every pod: pod = "*"',
            )
    _check_layout(config.layout, name)
    return config


def parse_layout(text: str, name: str) -> dict[str, PartitionMode]:
    """The modes of a layout file: TOML with the table [layout] of aimd.toml and nothing else.

    Args:
        text: the file's content.
        name: how messages call it.

    Raises:
        ConfigError: as parse_config.
    """
    layout = _typed(text, name, _LayoutFile, 'for example [layout] and below it gpu0 = "CPX/NPS1"').layout
    _check_layout(layout, name)
    return {gpu.lower(): PartitionMode.parse(mode) for gpu, mode in layout.items()}


def _typed(text: str, name: str, kind: type[Typed], hint: str) -> Typed:
    try:
        values = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigError(f"{name} is no TOML: {error}", hint=hint) from error
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {mistake(values, kind) or error}", hint=hint) from error


def _check_layout(layout: dict[str, str], name: str) -> None:
    named = set()
    for gpu, mode in layout.items():
        if gpu.lower() in named:
            raise ConfigError(f"{name}: layout: {gpu.lower()} is named twice", hint="names are the same in any case")
        named.add(gpu.lower())
        if _GPU.fullmatch(gpu.lower()) is None:
            raise ConfigError(
                f"{name}: layout.{gpu!r} names no GPU, expected default, gpu0, gpu1, ... or a PCI address"
            )
        try:
            PartitionMode.parse(mode)
        except InvalidInputError as error:
            raise ConfigError(f"{name}: layout.{gpu}: {error}", hint=error.hint) from error
