"""Pods are told what became of them by Events: once for every answer that is another one, over restarts, too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aimd.domain.node import NodeSnapshot
from aimd.domain.pod import Pod, PodRef
from aimd.planning.sharing.answers import INVALID, Answer, Place
from aimd.planning.sharing.requests import Asked
from aimd.ports_cluster import Cluster


class PodEvents:
    """What every pod was told last."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._told: dict[PodRef, Answer] | None = None

    def tell(self, pods: Iterable[Pod], found: Mapping[PodRef, Answer], asked: Asked, snapshot: NodeSnapshot) -> None:
        """Have told what is otherwise than before."""
        if self._told is None:
            known = {one.pod for claim in snapshot.claims for one in claim.pods}
            self._told = {ref: answer for ref, answer in found.items() if ref in known}  # by an earlier process
        here = {pod.ref for pod in pods}
        refused = {pod.ref: mistakes.message for pod, mistakes in asked.refused}
        for ref, answer in found.items():
            before = self._told.get(ref)
            if before is None or _news(before) != _news(answer):
                self._tell(ref, answer, refused.get(ref))
        self._told = {ref: answer for ref, answer in {**self._told, **found}.items() if ref in here}

    def _tell(self, ref: PodRef, answer: Answer, mistakes: str | None) -> None:
        if answer.place is not None:
            self._cluster.tell(ref, "PartitionAssigned", _words(answer.place))
        elif answer.reason != "Pending":
            self._cluster.tell(ref, answer.reason or "Pending", answer.message or "", warning=True)
        if mistakes is not None and answer.place is not None:
            self._cluster.tell(ref, INVALID, mistakes, warning=True)


def _news(answer: Answer) -> tuple[str | None, str | None]:
    """What makes an Event another one: not what neighbours leave of a partition, nor the details of why a pod waits."""
    return _words(answer.place) if answer.place is not None else None, answer.reason


def _words(place: Place) -> str:
    return f"{place.partition} ({place.compute_mode}/{place.memory_mode}), {place.allocated_gb:g} GB"
