"""What the dispatch core serves: its partitions and models by the node's names, configured as is wanted.

Level-triggered: what is wanted is compared with what is, whatever has happened in between.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aimd.dispatch.numbers import NumberBook
from aimd.dispatch.policy import ModelShares, partition_config
from aimd.dispatch.server import DispatchServer
from aimd.dispatch.values import SECOND, Class, ModelConfig, PartitionConfig
from aimd.domain.claim import QosClass
from aimd.domain.partition import PartitionKey
from aimd.domain.serving import Rule, ServedPartition
from aimd.errors import InvalidInputError

log = logging.getLogger("aimd.dispatch")

LONGEST_LATENCY = 1e9  # seconds; what is beyond is no target
CLASSES = {QosClass.HIGH: Class.HIGH, QosClass.MEDIUM: Class.MEDIUM, QosClass.LOW: Class.LOW}


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What the configuration says of every partition; caps in requests, `waits` by class.

    `rules` are those of [[dispatch.allow]].
    """

    slots: int = 16
    queue_cap: int = 4096
    model_queue_cap: int = 1024
    lease_max_ns: int = 600 * SECOND
    orphan_grace_ns: int = 30 * SECOND
    waits_ns: tuple[int, int, int] = (5 * SECOND, 15 * SECOND, 60 * SECOND)
    rules: tuple[Rule, ...] = ()


class ServedPartitions:
    """The partitions that a DispatchServer is configured for.

    Args:
        book: numbers of partitions and models.
    """

    def __init__(self, server: DispatchServer, book: NumberBook) -> None:
        self._server = server
        self._book = book
        self._served: dict[PartitionKey, ServedPartition] = {}
        self._configured: dict[PartitionKey, ServiceSettings] = {}  # by which settings it is served

    @property
    def all(self) -> Mapping[PartitionKey, ServedPartition]:
        return self._served

    def follow(self, wanted: Mapping[PartitionKey, ServedPartition], settings: ServiceSettings) -> list[str]:
        """Bring the core there; gives what could not be done, a sentence each: that goes on as it was."""
        try:
            self._book.numbers(_names(wanted.values()))
        except OSError as error:
            return [f"the dispatch service cannot keep names, and serves nothing new: {error}"]
        for key in sorted(self._served.keys() - wanted.keys()):
            self._server.remove(self.number(key))
            del self._served[key], self._configured[key]
        problems = []
        for key, served in wanted.items():
            try:
                self._bring(key, served, settings)
            except (ValueError, InvalidInputError) as error:
                problems.append(f"the dispatch service keeps partition {key} as it was: {error}")
        return problems

    def _bring(self, key: PartitionKey, served: ServedPartition, settings: ServiceSettings) -> None:
        before, same = self._served.get(key), self._configured.get(key) == settings
        if before == served and same:
            return
        number = self.number(key)
        if before is None or before.models != served.models or not same:
            self._server.configure(number, self._config(served, settings))
        if before is None or before.closed != served.closed:
            self._server.drain(number, draining=served.closed)
        self._served[key], self._configured[key] = served, settings

    def forget_names(self) -> None:
        """Drop the names of what is gone, as each mode change brings new ones; those of leases that run are kept."""
        used = {number for lease in self._server.found.leases for number in (lease.partition, lease.model)}
        running = {name for name in map(self._book.name, used) if name is not None}
        try:
            self._book.forget({*running, *_names(self._served.values())})
        except OSError as error:
            log.warning("names of the dispatch service could not be tidied up: %s", error)

    def _config(self, served: ServedPartition, settings: ServiceSettings) -> PartitionConfig:
        models = [
            ModelShares(
                model.name,
                ModelConfig(
                    self.model_number(model.name),
                    weight=model.weight,
                    queue_cap=settings.model_queue_cap,
                    default_class=CLASSES[model.qos],
                    budget_ns=settings.waits_ns,
                    latency_target_ns=round(min(model.latency_seconds or 0, LONGEST_LATENCY) * SECOND),
                    denied=model.denied,
                ),
                guarantee=model.guarantee,
                limit=None if model.limit is None else min(model.limit, settings.slots),
            )
            for model in served.models
        ]
        return partition_config(
            models,
            PartitionConfig((), settings.slots, settings.queue_cap, settings.lease_max_ns, settings.orphan_grace_ns),
        )

    def number(self, key: PartitionKey) -> int:
        return self._book.number(_place(key))

    def model_number(self, name: str) -> int:
        """Of the model in the core."""
        return self._book.number(_model(name))

    def served(self) -> dict[tuple[int, int], tuple[PartitionKey, str]]:
        """Partition and model by their numbers in the core."""
        places = {key: self.number(key) for key in self._served}
        return {
            (places[key], self.model_number(model.name)): (key, model.name)
            for key, served in self._served.items()
            for model in served.models
        }

    def partitions(self) -> dict[int, PartitionKey]:
        """The partitions that are served, by their numbers in the core."""
        return {self.number(key): key for key in self._served}


def _names(partitions: Iterable[ServedPartition]) -> list[str]:
    """Of the partitions and of the models on them."""
    found = list(partitions)
    models = dict.fromkeys(model.name for served in found for model in served.models)
    return [*(_place(served.key) for served in found), *map(_model, models)]


def _place(key: PartitionKey) -> str:
    return f"{key}@{key.mode_epoch}"


def _model(name: str) -> str:
    return f"model {name}"
