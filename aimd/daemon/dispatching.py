"""The dispatch service in the daemon: the node's partitions and claims become the core's configuration, callers are
admitted, and a mode switch drains through it.

Level-triggered: `apply` compares what should be served with what is, whatever has happened in between.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from aimd.dispatch.core import ModelCells, ModelHistograms
from aimd.dispatch.numbers import NumberBook
from aimd.dispatch.policy import ModelShares, partition_config
from aimd.dispatch.server import DispatchServer, Question
from aimd.dispatch.values import SECOND, Class, CoreSnapshot, ModelConfig, Outcome, PartitionConfig
from aimd.domain.claim import QosClass
from aimd.domain.metering import BUCKETS_SECONDS
from aimd.domain.node import NodeSnapshot
from aimd.domain.serving import Caller, PartitionKey, Rule, ServedPartition
from aimd.errors import InvalidInputError
from aimd.planning.admission import DENIALS, UNAUTHORISED, Admission, admit
from aimd.planning.serving import served_partitions

log = logging.getLogger("aimd.dispatch")

LONGEST_LATENCY = 1e9  # seconds; what is beyond is no target
POLL_SECONDS = 0.01  # between two looks at a partition that is being drained
_BOUNDS = tuple(round(bound * SECOND) for bound in BUCKETS_SECONDS)
CLASSES = {QosClass.HIGH: Class.HIGH, QosClass.MEDIUM: Class.MEDIUM, QosClass.LOW: Class.LOW}

# The process of this identity (pid, start time, uid, gid) as it is now; None if it has ended.
Identify = Callable[[int, int, int, int], "Caller | None"]


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


class DispatchService:
    """ports.Dispatch over a DispatchServer; on the control loop's thread.

    Args:
        server: not started yet; `begin` starts it, once the first partitions are known.
        book: numbers of partitions and models.
        snapshot: the node as published last.
        identify: tells who asks.
    """

    def __init__(
        self,
        server: DispatchServer,
        book: NumberBook,
        settings: ServiceSettings,
        snapshot: Callable[[], NodeSnapshot],
        identify: Identify,
    ) -> None:
        self._server = server
        self._book = book
        self._settings = settings
        self._snapshot = snapshot
        self._identify = identify
        self._closed: set[str] = set()
        self._served: dict[PartitionKey, ServedPartition] = {}
        self._configured: dict[PartitionKey, ServiceSettings] = {}  # by which settings it is served
        self._generation = -1
        self._problems: tuple[str, ...] = ()
        self._denied: dict[str, int] = dict.fromkeys(DENIALS, 0)
        self.ended = asyncio.Event()  # the dispatch thread is no more

    # -- life ------------------------------------------------------------------------------------------------

    def begin(self) -> int:
        """Configure what is there, take over the leases of an earlier daemon and serve; returns how many run on."""
        self.apply()
        running = self._server.restore()
        self._forget_names()
        loop = asyncio.get_running_loop()
        self._server.start(lambda _: loop.call_soon_threadsafe(self.ended.set))
        loop.add_reader(self._server.question_fd, self.answer)
        return running

    async def follow(self, changed: Callable[[int], Awaitable[NodeSnapshot]]) -> None:
        """Apply every snapshot; `changed` waits for one newer than a generation. Until cancelled."""
        generation = -1
        while True:
            generation = (await changed(generation)).generation
            self.apply()

    @property
    def beats(self) -> float:
        """Moves when the dispatch thread has turned after `ask_beat`."""
        return self._server.beats

    def ask_beat(self) -> None:
        self._server.ask_beat()

    def close(self) -> None:
        """End the service; leases stay with their clients."""
        asyncio.get_running_loop().remove_reader(self._server.question_fd)
        self._server.stop()

    def reconfigure(self, settings: ServiceSettings) -> None:
        """Use other settings from now on; callers whose rights may have changed open their models anew."""
        if settings.rules != self._settings.rules:
            self._server.revalidate()
        self._settings = settings
        self._generation = -1
        self.apply()

    # -- configuration ---------------------------------------------------------------------------------------

    @property
    def problems(self) -> tuple[str, ...]:
        """Partitions that could not be brought to what they should be, and why: they go on as they were."""
        return self._problems

    def apply(self) -> None:
        """Bring the core to what the last snapshot says; a partition that cannot be brought there holds up no other."""
        snapshot = self._snapshot()
        if snapshot.generation == self._generation or not snapshot.ready:
            return
        wanted = {served.key: served for served in served_partitions(snapshot, self._closed)}
        problems = self._follow(wanted)
        for problem in problems:
            if problem not in self._problems:
                log.error("%s", problem)
        self._problems = tuple(problems)
        if not problems:
            self._generation = snapshot.generation

    def _follow(self, wanted: dict[PartitionKey, ServedPartition]) -> list[str]:
        """Do it; gives what could not be done, a sentence each."""
        try:
            self._book.numbers(_names(wanted.values()))
        except OSError as error:
            return [f"the dispatch service cannot keep names, and serves nothing new: {error}"]
        for key in sorted(self._served.keys() - wanted.keys()):
            self._server.remove(self._number(key))
            del self._served[key], self._configured[key]
        problems = []
        for key, served in wanted.items():
            try:
                self._bring(key, served)
            except (ValueError, InvalidInputError) as error:
                problems.append(f"the dispatch service keeps partition {key} as it was: {error}")
        return problems

    def _bring(self, key: PartitionKey, served: ServedPartition) -> None:
        before, settings = self._served.get(key), self._configured.get(key)
        if before == served and settings == self._settings:
            return
        number = self._number(key)
        if before is None or before.models != served.models or settings != self._settings:
            self._server.configure(number, self._config(served))
        if before is None or before.closed != served.closed:
            self._server.drain(number, draining=served.closed)
        self._served[key], self._configured[key] = served, self._settings

    def _forget_names(self) -> None:
        """Drop the names of what is gone, as each mode change brings new ones; those of leases that run are kept."""
        used = {number for lease in self._server.found.leases for number in (lease.partition, lease.model)}
        running = {name for name in map(self._book.name, used) if name is not None}
        try:
            self._book.forget({*running, *_names(self._served.values())})
        except OSError as error:
            log.warning("names of the dispatch service could not be tidied up: %s", error)

    def _config(self, served: ServedPartition) -> PartitionConfig:
        settings = self._settings
        models = [
            ModelShares(
                model.name,
                ModelConfig(
                    self._book.number(_model(model.name)),
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

    def _number(self, key: PartitionKey) -> int:
        return self._book.number(_place(key))

    # -- reading ---------------------------------------------------------------------------------------------

    def served(self) -> dict[tuple[int, int], tuple[PartitionKey, str]]:
        """Partition and model by their numbers in the core."""
        places = {key: self._number(key) for key in self._served}
        return {
            (places[key], self._book.number(_model(model.name))): (key, model.name)
            for key, served in self._served.items()
            for model in served.models
        }

    def partitions(self) -> dict[int, PartitionKey]:
        """The partitions that are served, by their numbers in the core."""
        return {self._number(key): key for key in self._served}

    def counters(self) -> CoreSnapshot:
        """All counters of the core. Blocks, a millisecond: not in the loop."""
        return self._server.snapshot()

    def cells(self) -> tuple[ModelCells, ...]:
        """All latencies of the core. Blocks, a twentieth of a second where 64 partitions have four models each."""
        return self._server.cells()

    def metered(self) -> tuple[CoreSnapshot, tuple[ModelHistograms, ...], dict[str, int]]:
        """Counters, latencies up to each of BUCKETS_SECONDS, and the socket's own numbers. Blocks, some milliseconds."""
        counters, histograms = self._server.metered(_BOUNDS)
        return counters, histograms, self._server.statistics()

    @property
    def queue_cap(self) -> int:
        """Requests that may wait on a partition."""
        return self._settings.queue_cap

    @property
    def denied(self) -> Mapping[str, int]:
        """Questions to use a model that were answered by no, by outcome; the core never hears of them."""
        return self._denied

    # -- callers ---------------------------------------------------------------------------------------------

    def answer(self) -> None:
        """Answer the clients that ask to use a model."""
        self.apply()
        for question in self._server.questions():
            self._answer(question)

    def _answer(self, question: Question) -> None:
        caller = self._identify(question.pid, question.start_time, question.uid, question.gid)
        if caller is None:
            self._deny(question, UNAUTHORISED, f"process {question.pid} is not there any more")
            return
        served = list(self._served.values())
        said = admit(caller, question.model, question.partition, served, self._snapshot(), self._settings.rules)
        if not isinstance(said, Admission):
            self._deny(question, said.outcome, said.message)
            return
        highest = CLASSES[said.highest]
        self._server.admit(
            question,
            partition=self._number(said.partition),
            model=self._book.number(_model(said.model.name)),
            highest=highest,
            default_class=max(highest, CLASSES[said.model.qos]),
            slots=self._settings.slots,
            lease_max_ns=self._settings.lease_max_ns,
            place=str(said.partition),
        )

    def _deny(self, question: Question, outcome: str, message: str) -> None:
        self._denied[outcome] += 1
        self._server.deny(question, Outcome[outcome.upper()], message)

    # -- ports.Dispatch --------------------------------------------------------------------------------------

    async def drain(self, gpu: str, until: float) -> tuple[int, ...]:
        self._close(gpu, closed=True)
        numbers = {self._number(key) for key in self._served if key.gpu == gpu}
        while any(any(self._server.busy(number)) for number in numbers):
            if time.monotonic() >= until:
                return self._server.holders(numbers)
            await asyncio.sleep(POLL_SECONDS)
        return ()

    def undrain(self, gpu: str) -> None:
        self._close(gpu, closed=False)

    def _close(self, gpu: str, *, closed: bool) -> None:
        (self._closed.add if closed else self._closed.discard)(gpu)
        self._generation = -1
        self.apply()


def _names(partitions: Iterable[ServedPartition]) -> list[str]:
    """Of the partitions and of the models on them."""
    found = list(partitions)
    models = dict.fromkeys(model.name for served in found for model in served.models)
    return [*(_place(served.key) for served in found), *map(_model, models)]


def _place(key: PartitionKey) -> str:
    return f"{key}@{key.mode_epoch}"


def _model(name: str) -> str:
    return f"model {name}"
