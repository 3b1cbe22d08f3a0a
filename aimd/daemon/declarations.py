"""What InferenceServices declare (`spec.gpuSharing`): read when their pods appear or change, and again now and then.

It is not in the pods, so an edit restarts none: services that use the field are read every minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aimd.domain.pod import Pod
from aimd.errors import AimdError
from aimd.planning.sharing.requests import ServiceKey, service_key
from aimd.ports_cluster import Objects

log = logging.getLogger("aimd.cluster")

REREAD_SECONDS = 60.0
AGAIN_SECONDS = 5.0  # after a read that failed


@dataclass(frozen=True, slots=True)
class _Declared:
    sharing: Mapping[str, Any] | None
    pods: list[Pod]
    read_at: float


class Declarations:
    """Of the services that have pods here."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: dict[ServiceKey, _Declared] = {}
        self._failed: dict[ServiceKey, float] = {}

    @property
    def known(self) -> dict[ServiceKey, Mapping[str, Any] | None]:
        return {key: one.sharing for key, one in self._known.items()}

    def unknown(self, pods: Iterable[Pod]) -> frozenset[ServiceKey]:
        """Services of these pods that could not be read yet."""
        keys = {key for pod in pods if (key := service_key(pod)) is not None}
        return frozenset(key for key in keys if key not in self._known)

    async def refresh(self, pods: Iterable[Pod], now: float) -> bool:
        """Read what is due (`now` in CLOCK_MONOTONIC seconds); whether anything is declared otherwise."""
        by_service: dict[ServiceKey, list[Pod]] = {}
        for pod in sorted(pods, key=lambda pod: pod.ref):
            if (key := service_key(pod)) is not None and not pod.over:
                by_service.setdefault(key, []).append(pod)
        before = self.known
        self._known = {key: one for key, one in self._known.items() if key in by_service}
        due = [key for key, own in by_service.items() if self._due(key, own, now)]
        read = await asyncio.gather(*(asyncio.to_thread(self._read, key) for key in due))
        for key, (fine, sharing) in zip(due, read, strict=True):
            if fine:
                self._known[key] = _Declared(sharing, by_service[key], now)
                self._failed.pop(key, None)
            else:
                self._failed[key] = now
        return self.known != before

    def _due(self, key: ServiceKey, pods: list[Pod], now: float) -> bool:
        if now - self._failed.get(key, float("-inf")) < AGAIN_SECONDS:
            return False
        one = self._known.get(key)
        if one is None or one.pods != pods:
            return True
        return one.sharing is not None and now - one.read_at >= REREAD_SECONDS

    def _read(self, key: ServiceKey) -> tuple[bool, Mapping[str, Any] | None]:
        try:
            service = self._objects.service(*key)
        except AimdError as error:
            log.warning("InferenceService %s/%s cannot be read: %s", *key, error)
            return False, None
        sharing = ((service or {}).get("spec") or {}).get("gpuSharing")
        return True, sharing if isinstance(sharing, Mapping) else None
