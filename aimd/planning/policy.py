"""Settings that decisions depend on."""

from __future__ import annotations

from dataclasses import dataclass

from aimd.domain.accounting import OverrunPolicy
from aimd.planning.rooms import Repartition


@dataclass(frozen=True, slots=True)
class Policy:
    """The part of the configuration that planning sees; times in seconds.

    `overrun_seconds` is how long a claim has used more memory than it has reserved before that is a finding.
    `rivals` are other managers of partitions that were found on the node, a sentence each: with one no mode is changed.
    `reload_seconds` is what the GPUs of a hive have to come back after a driver load: with eight of them minutes.
    """

    allow_memory_mode_change: bool = False
    wait_seconds: float = 30.0
    settle_seconds: float = 30.0
    reload_seconds: float = 300.0
    wish_retry_seconds: float = 60.0
    repartition: Repartition = Repartition.WHEN_IDLE
    slots_per_partition: int = 16
    orphan_grace_seconds: float = 60.0
    on_memory_overrun: OverrunPolicy = OverrunPolicy.REPORT
    overrun_seconds: float = 10.0
    rivals: tuple[str, ...] = ()
