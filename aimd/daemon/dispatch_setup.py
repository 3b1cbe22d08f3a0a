"""Makes the dispatch service from configuration: bounds, settings, rules, its socket and files."""

from __future__ import annotations

import grp
import pwd
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from aimd.adapters.callers import caller_of
from aimd.adapters.unix.listening import listen
from aimd.adapters.unix.peer import Operators
from aimd.config import Allow, Config
from aimd.daemon.dispatch_served import ServiceSettings
from aimd.daemon.dispatch_service import DispatchService
from aimd.dispatch.lease_file import read_leases
from aimd.dispatch.numbers import NumberBook
from aimd.dispatch.server import Caps, DispatchServer
from aimd.dispatch.values import SECOND, SLOT_BITS, Limits
from aimd.domain.claim import QosClass
from aimd.domain.node import NodeSnapshot
from aimd.domain.serving import Rule
from aimd.errors import ConfigError, UnreachableError
from aimd.rundirs import DISPATCH_SOCKET, RunDirectories

BACKLOG = 1024
LEASES_FILE = "leases"
NAMES_FILE = "leases.names"
PARTITIONS = 128  # 64 of eight GPUs in CPX, and as many that were and still have leases
MODELS = 1024


def settings_of(config: Config) -> ServiceSettings:
    """Raises ConfigError for a user or group that this machine does not know."""
    dispatch, waits = config.dispatch, config.dispatch.wait_seconds
    return ServiceSettings(
        slots=config.placement.slots_per_partition,
        queue_cap=dispatch.queue_cap,
        model_queue_cap=dispatch.model_queue_cap,
        lease_max_ns=round(dispatch.lease_max_seconds * SECOND),
        orphan_grace_ns=round(dispatch.lost_seconds * SECOND),
        waits_ns=(round(waits.high * SECOND), round(waits.medium * SECOND), round(waits.low * SECOND)),
        rules=tuple(_rule(allow, number) for number, allow in enumerate(dispatch.allow)),
    )


def _rule(allow: Allow, number: int) -> Rule:
    where = f"dispatch.allow[{number}]"
    return Rule(
        QosClass(allow.highest),
        tuple(allow.models),
        tuple(allow.partitions),
        _id(allow.user, f"{where}: user", lambda name: pwd.getpwnam(name).pw_uid),
        _id(allow.group, f"{where}: group", lambda name: grp.getgrnam(name).gr_gid),
        allow.pod,
    )


def _id(name: str | int | None, what: str, find: Callable[[str], int]) -> int | None:
    if name is None or isinstance(name, int):
        return name
    try:
        return find(name)
    except KeyError as error:
        raise ConfigError(f"{what} {name!r} does not exist on this machine") from error


def limits_of(config: Config, slots_in_use: int) -> Limits:
    """Bounds of the core: enough for every partition of a node at its queue cap; `slots_in_use` are an earlier one's."""
    slots, dispatch = config.placement.slots_per_partition, config.dispatch
    return Limits(
        partitions=PARTITIONS,
        models=MODELS,
        requests=min(1 << 24, PARTITIONS * (dispatch.queue_cap + slots)),
        leases=min(1 << SLOT_BITS, max(4096, PARTITIONS * slots, slots_in_use)),
        connections=dispatch.connections,
        requests_per_connection=dispatch.waiting_per_connection,
    )


def dispatch_service(
    config: Config,
    paths: RunDirectories,
    boot_id: str,
    operators: Operators,
    snapshot: Callable[[], NodeSnapshot],
    given: socket.socket | None = None,
) -> tuple[DispatchService, socket.socket]:
    """The service, not begun yet, and its listening socket, which is the caller's to close.

    Args:
        given: a listening socket that is there already; else one is bound in the runtime directory.

    Raises:
        ConfigError: a rule names nobody.
        UnreachableError: socket, files or memory cannot be had.
    """
    settings = settings_of(config)
    runtime, dispatch = Path(paths.runtime), config.dispatch
    found = read_leases(runtime / LEASES_FILE, boot_id).leases
    slots = 1 + max((lease.lease & (1 << SLOT_BITS) - 1 for lease in found), default=0)
    caps = Caps(dispatch.connections_per_user, dispatch.waiting_per_user, dispatch.patience_seconds)
    try:
        listening = given or listen(runtime / DISPATCH_SOCKET, BACKLOG)
        server = DispatchServer(limits_of(config, slots), listening, runtime / LEASES_FILE, boot_id, caps)
    except (OSError, MemoryError) as error:
        raise UnreachableError(
            f"the dispatch service cannot be set up in {runtime}: {error}",
            hint="check the space of that file system and the limit of open files",
        ) from error
    used = [number for lease in found for number in (lease.partition, lease.model)]
    book = NumberBook(runtime / NAMES_FILE, used)

    service = DispatchService(server, book, settings, snapshot, partial(caller_of, operators=operators))
    return service, listening
