"""From configuration to policy, and what a reload changes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from aimd.config import Config, read_config
from aimd.daemon.loop import Reload
from aimd.planning import effects as fx
from aimd.planning.policy import Policy
from aimd.planning.rooms import Repartition

# Read once at the start: what they decide is built then.
NEEDS_RESTART = frozenset({"sysfs_root", "operators", "poll_seconds", "log_level"})


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
    )


def reloading(path: Path, first: Config) -> Reload:
    """A function that reads the file anew; a file that is not valid raises ConfigError and changes nothing."""
    current = first

    def reload() -> tuple[fx.Reconfigured, list[str], list[str]]:
        nonlocal current
        before, after = current, read_config(path)
        current = after
        names = [field.name for field in msgspec.structs.fields(Config)]
        changed = [name for name in names if getattr(before, name) != getattr(after, name)]
        event = fx.Reconfigured(
            policy_of(after), after.modes(), after.layout_digest(), before.layout_digest(), before.modes()
        )
        return event, changed, [name for name in changed if name in NEEDS_RESTART]

    return reload
