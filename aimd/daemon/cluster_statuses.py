"""InferenceServices are told what their pods here have got: when that changes, and when one is seen that says otherwise.

What neighbours leave of a partition is news for all services on it whenever a pod comes or goes: it is told a little
later, once for all that has happened meanwhile, and after what is more urgent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from aimd.daemon.cluster_services import Look
from aimd.domain.node import NodeSnapshot
from aimd.domain.pod import Pod, PodRef
from aimd.planning.sharing.answers import Answer
from aimd.planning.sharing.requests import ServiceKey, service_key
from aimd.planning.sharing.service_status import service_patch
from aimd.ports_cluster import Cluster, Object, Objects

NEIGHBOURS_SECONDS = 3.0
Said = tuple[Answer, ...]


class ServiceStatuses:
    """What every service was told last.

    Args:
        now: RFC 3339.
    """

    def __init__(self, cluster: Cluster, now: Callable[[], str]) -> None:
        self._cluster = cluster
        self._now = now
        self._told: dict[ServiceKey, Said] = {}
        self._later: dict[ServiceKey, float] = {}  # when neighbours are to be told of, in CLOCK_MONOTONIC seconds
        self._gone: dict[ServiceKey, frozenset[str]] = {}  # as of the last check
        self._owed: set[ServiceKey] | None = None  # to be written in any case; None before the first turn

    def tell(
        self,
        pods: Iterable[Pod],
        found: Mapping[PodRef, Answer],
        unread: AbstractSet[ServiceKey],
        looks: Iterable[Look],
        snapshot: NodeSnapshot,
        now: float,
    ) -> None:
        """Have written what is to be said anew.

        Args:
            found: what is answered to pods.
            unread: services of which it is not known yet what is to be answered to all of their pods.
            looks: services as they were seen since the last time.
            now: CLOCK_MONOTONIC seconds.
        """
        said = _by_service(pods, found)
        if self._owed is None:
            # Their pods may have gone before the start, or the daemon ended before it could tell of a release.
            self._owed = _services_of(snapshot) | _services_told(self._cluster.node_partitions())
        self._owed |= {look.key for look in looks if self._differs(look, said.get(look.key, ()))}
        for key in {*said, *self._told, *self._owed} - unread:
            here, told = said.get(key, ()), self._told.get(key, ())
            news = key in self._owed or _own(here) != _own(told)
            if not news and (here == told or now < self._later.setdefault(key, now + NEIGHBOURS_SECONDS)):
                continue
            if self._cluster.write(f"service {key[0]}/{key[1]}", self._work(key, here), urgent=news):
                self._owed.discard(key)
                self._later.pop(key, None)
                self._told[key] = here
                if key not in said:
                    del self._told[key]
                    self._gone.pop(key, None)

    def _differs(self, look: Look, said: Said) -> bool:
        if look.gone is not None:
            self._gone[look.key] = look.gone
        return look.service is not None and self._patch(look.key, look.service, said) is not None

    def _work(self, key: ServiceKey, said: Said) -> Callable[[Objects], None]:
        def work(objects: Objects) -> None:
            service = objects.service(*key)
            patch = self._patch(key, service, said) if service is not None else None
            if patch is not None:
                objects.patch_service_status(*key, patch)

        return work

    def _patch(self, key: ServiceKey, service: Object, said: Said) -> dict[str, Any] | None:
        return service_patch(service, self._cluster.node_name, said, self._now(), self._gone.get(key, frozenset()))


def _by_service(pods: Iterable[Pod], found: Mapping[PodRef, Answer]) -> dict[ServiceKey, Said]:
    """Of all services that have a pod here."""
    said: dict[ServiceKey, Said] = {}
    for pod in sorted(pods, key=lambda pod: pod.ref):
        if (key := service_key(pod)) is not None:
            said[key] = (*said.get(key, ()), *((found[pod.ref],) if pod.ref in found else ()))
    return said


def _own(said: Said) -> list[Answer]:
    """Without what neighbours leave."""
    return [replace(one, place=replace(one.place, available_gb=None)) if one.place else one for one in said]


def _services_of(snapshot: NodeSnapshot) -> set[ServiceKey]:
    """Services of claims that pods have made."""
    return _services(claim.name for claim in snapshot.claims if claim.pods)


def _services_told(record: Object | None) -> set[ServiceKey]:
    """Services that the node's record has a place for: it is written after their statuses."""
    return _services(
        one["model"]
        for gpu in ((record or {}).get("status") or {}).get("gpus") or ()
        for partition in gpu.get("partitions") or ()
        for one in partition.get("assignments") or ()
        if one.get("pod")
    )


def _services(models: Iterable[str]) -> set[ServiceKey]:
    parts = (model.split("/") for model in models)
    return {(each[0], each[1]) for each in parts if len(each) == 2}
