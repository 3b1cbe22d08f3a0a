"""Other managers of partitions on the node: looked for every minute, beside everything else."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from aimd.errors import DeniedError
from aimd.planning.sharing.rivals import rivals
from aimd.ports_cluster import Cluster, Objects

log = logging.getLogger("aimd.cluster")

RIVALS_SECONDS = 60.0
Found = TypeVar("Found")


class Rivals:
    """As they were found last. For the control loop's thread; the reads are done in the adapter's.

    Args:
        wake: for any thread; called when something was read.

    Attributes:
        found: a sentence each; None before anybody could look.
    """

    def __init__(self, cluster: Cluster, wake: Callable[[], None]) -> None:
        self._cluster = cluster
        self._wake = wake
        self._due = float("-inf")
        self._read: deque[tuple[str, ...]] = deque(maxlen=1)
        self.found: tuple[str, ...] | None = None

    def refresh(self, now: float) -> None:
        """Take over what was read, and have read what is due; `now` in CLOCK_MONOTONIC seconds."""
        if self._read:
            self.found = self._read.pop()
        if now >= self._due and self._cluster.read("rivals", self._look):
            self._due = now + RIVALS_SECONDS

    def _look(self, objects: Objects) -> None:
        found = rivals(_permitted(objects.node, None), _permitted(objects.resource_slices, ()))
        self._read.append(found)
        self._wake()


def _permitted(read: Callable[[], Found], otherwise: Found) -> Found:
    """Who may not look finds nobody, and goes on."""
    try:
        return read()
    except DeniedError as error:
        log.warning("whether another manager of partitions is on the node cannot be read: %s", error)
        return otherwise
