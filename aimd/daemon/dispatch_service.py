"""The dispatch service in the daemon: it follows the node, admits callers, and a mode switch drains through it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from aimd.daemon.dispatch_served import CLASSES, ServedPartitions, ServiceSettings
from aimd.dispatch.core import ModelCells, ModelHistograms
from aimd.dispatch.numbers import NumberBook
from aimd.dispatch.server import DispatchServer, Question
from aimd.dispatch.values import SECOND, CoreSnapshot, Outcome
from aimd.domain.metering import BUCKETS_SECONDS
from aimd.domain.node import NodeSnapshot
from aimd.domain.partition import PartitionKey
from aimd.domain.serving import Caller
from aimd.planning.access import DENIALS, UNAUTHORISED, Admission, admit
from aimd.planning.serving import served_partitions

log = logging.getLogger("aimd.dispatch")

POLL_SECONDS = 0.01  # between two looks at a partition that is being drained
_BOUNDS = tuple(round(bound * SECOND) for bound in BUCKETS_SECONDS)

# The process of this identity (pid, start time, uid, gid) as it is now; None if it has ended.
Identify = Callable[[int, int, int, int], "Caller | None"]


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
        self._partitions = ServedPartitions(server, book)
        self._settings = settings
        self._snapshot = snapshot
        self._identify = identify
        self._closed: set[str] = set()
        self._generation = -1
        self._problems: tuple[str, ...] = ()
        self._denied: dict[str, int] = dict.fromkeys(DENIALS, 0)
        self.ended = asyncio.Event()  # the dispatch thread is no more

    # -- life ------------------------------------------------------------------------------------------------

    def begin(self) -> int:
        """Configure what is there, take over the leases of an earlier daemon and serve; returns how many run on."""
        self.apply()
        running = self._server.restore()
        self._partitions.forget_names()
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
        problems = self._partitions.follow(wanted, self._settings)
        for problem in problems:
            if problem not in self._problems:
                log.error("%s", problem)
        self._problems = tuple(problems)
        if not problems:
            self._generation = snapshot.generation

    # -- reading ---------------------------------------------------------------------------------------------

    def served(self) -> dict[tuple[int, int], tuple[PartitionKey, str]]:
        """Partition and model by their numbers in the core."""
        return self._partitions.served()

    def partitions(self) -> dict[int, PartitionKey]:
        """The partitions that are served, by their numbers in the core."""
        return self._partitions.partitions()

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
        served = list(self._partitions.all.values())
        said = admit(caller, question.model, question.partition, served, self._snapshot(), self._settings.rules)
        if not isinstance(said, Admission):
            self._deny(question, said.outcome, said.message)
            return
        highest = CLASSES[said.highest]
        self._server.admit(
            question,
            partition=self._partitions.number(said.partition),
            model=self._partitions.model_number(said.model.name),
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
        numbers = {self._partitions.number(key) for key in self._partitions.all if key.gpu == gpu}
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
