"""From configuration to policy, and what a reload changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from aimd.config import Config, Dispatch, needs_restart, read_config
from aimd.daemon.dispatch_served import ServiceSettings
from aimd.daemon.dispatch_setup import settings_of
from aimd.daemon.loop import Reload
from aimd.domain.accounting import OverrunPolicy
from aimd.planning import effects as fx
from aimd.planning.policy import Policy
from aimd.planning.rooms import Repartition


def policy_of(config: Config) -> Policy:
    """The part of the configuration that decisions depend on."""
    switching, placement = config.switching, config.placement
    return Policy(
        allow_memory_mode_change=config.allow_memory_mode_change,
        wait_seconds=switching.wait_seconds,
        settle_seconds=switching.settle_seconds,
        wish_retry_seconds=switching.wish_retry_seconds,
        repartition=Repartition(placement.repartition),
        slots_per_partition=placement.slots_per_partition,
        orphan_grace_seconds=placement.orphan_grace_seconds,
        on_memory_overrun=OverrunPolicy(config.on_memory_overrun),
        overrun_seconds=config.memory_overrun_seconds,
    )


def _changed(before: Config, after: Config) -> list[str]:
    """Settings that differ; those of [dispatch] one by one, since only some of them need a restart."""
    names = [field.name for field in msgspec.structs.fields(Config) if field.name != "dispatch"]
    changed = [name for name in names if getattr(before, name) != getattr(after, name)]
    fields = [field.name for field in msgspec.structs.fields(Dispatch)]
    inner = [name for name in fields if getattr(before.dispatch, name) != getattr(after.dispatch, name)]
    return changed + [f"dispatch.{name}" for name in inner]


def reloading(
    path: Path,
    first: Config,
    reconfigure: Callable[[ServiceSettings], None],
    configured: Callable[[Config], fx.Reconfigured],
) -> Reload:
    """A function that reads the file anew; a file that is not valid raises ConfigError and changes nothing.

    `reconfigure` is the dispatch service's, `configured` makes of the file what counts (daemon.effective).
    """
    current, later = first, needs_restart()

    def reload() -> tuple[fx.Reconfigured, list[str], list[str]]:
        nonlocal current
        before, after = current, read_config(path)
        settings = settings_of(after)
        current = after
        reconfigure(settings)
        changed = _changed(before, after)
        event = configured(after)
        return event, changed, [name for name in changed if name in later]

    return reload
