"""The control loop: events in, the reconciler decides, effects are executed, results come back as events."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from aimd.adapters.journal import about
from aimd.daemon.execute import Executor
from aimd.daemon.published import Published
from aimd.domain.claim import Claim, ClaimSpec, PodRequest
from aimd.domain.event import TROUBLES, NodeEvent
from aimd.domain.ledger import HolderRecord
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.plan import Plan
from aimd.domain.process import Process
from aimd.domain.switch import ModeChange
from aimd.errors import AimdError, LedgerError, RefusedError, UnreachableError
from aimd.planning import effects as fx
from aimd.planning.reconcile import Reconciler
from aimd.ports import DriverEvents, Health, Ledger, Reloaded

log = logging.getLogger("aimd")

COMMIT_RETRY_SECONDS = 1.0
COMMAND_LIMIT = 200  # characters of a command line that are kept
REPLY_SECONDS = 30.0


Asked = TypeVar("Asked")
# Reads the configuration again: what the reconciler is told, settings that changed, those that need a restart.
Reload = Callable[[], tuple[fx.Reconfigured, list[str], list[str]]]


def published_node(reconciler: Reconciler) -> Published[NodeSnapshot]:
    """What is shown of the node, by generation, before anything was."""
    return Published(reconciler.snapshot, lambda snapshot: snapshot.generation)


class ControlLoop:
    """ports.ControlPlane over a Reconciler; publishes the node in `node`, which others may follow without the loop.

    Commits and publishing are done in order inside a turn; everything that may take long runs beside the loop and
    comes back as an event.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        executor: Executor,
        ledger: Ledger,
        poll_seconds: float,
        reload: Reload | None = None,
        node: Published[NodeSnapshot] | None = None,
    ) -> None:
        self._reload = reload
        self._reconciler = reconciler
        self._executor = executor
        self._ledger = ledger
        self._poll_seconds = poll_seconds
        self._events: asyncio.Queue[fx.Event | None] = asyncio.Queue()  # None: an empty turn
        self._beat_asked = False
        self._requests = itertools.count(1)
        self._replies: dict[int, asyncio.Future[fx.Answer]] = {}
        self._node = node or published_node(reconciler)
        self._tasks: set[asyncio.Task[None]] = set()
        self.looked = asyncio.Event()  # the first scan has ended, well or not
        self.ready = asyncio.Event()
        self.failures = 0
        self._health = Health(time.monotonic())

    # -- ports.ControlPlane ----------------------------------------------------------------------------------

    @property
    def health(self) -> Health:
        return replace(self._health, dispatch=self._executor.dispatch_problems)

    @property
    def snapshot(self) -> NodeSnapshot:
        """The one published last: what it tells is durable, unlike what the reconciler has just decided."""
        return self._node.latest()

    async def plan(self, wishes: Sequence[tuple[str, PartitionMode]], *, drain: bool = False) -> Plan:
        seen = await self._executor.perform(fx.ListHolders(token=0))  # a poll may be seconds ago
        holders = seen.holders if isinstance(seen, fx.HoldersSeen) else None
        return self._reconciler.plan(tuple(wishes), drain=drain, holders=holders)

    async def submit(
        self,
        name: str,
        wishes: Sequence[tuple[str, PartitionMode]],
        *,
        wait_seconds: float | None,
        uid: int,
        drain: bool = False,
    ) -> ModeChange:
        asked = tuple(wishes)
        return await self._ask(ModeChange, lambda request: fx.Submitted(request, name, asked, wait_seconds, uid, drain))

    async def claim(self, name: str, spec: ClaimSpec, *, uid: int) -> Claim:
        return await self._ask(Claim, lambda request: fx.ClaimRequested(request, name, spec, uid))

    async def release(self, name: str) -> Claim:
        return await self._ask(Claim, lambda request: fx.ClaimReleased(request, name))

    async def take_devices(self, uid: str, requests: tuple[PodRequest, ...]) -> Claim:
        """What a ResourceClaim was allocated; gives the model's claim. Raises ConflictError: its name is taken."""
        return await self._ask(Claim, lambda request: fx.DevicesTaken(request, uid, requests))

    async def leave_devices(self, uid: str, *, waiting: bool = False) -> None:
        """The ResourceClaim has nothing here any more; with `waiting` unless the kubelet has asked for it meanwhile."""
        await self._ask(type(None), lambda request: fx.DevicesLeft(request, uid, waiting))

    async def set_draining(self, gpu: str, *, draining: bool) -> None:
        await self._ask(type(None), lambda request: fx.DrainingSet(request, gpu, draining))

    async def members(self, holder: HolderRecord) -> Sequence[Process]:
        return await self._executor.members(holder.pid, holder.start_time)

    async def hold(self, claim: str, replica: int | None, pid: int, *, command: str | None = None) -> HolderRecord:
        process = self._executor.identify(pid)
        named = (command or "")[:COMMAND_LIMIT] or process.command
        return await self._ask(
            HolderRecord,
            lambda request: fx.HolderJoined(request, claim, replica, pid, process.start_time, named),
        )

    async def reload(self) -> Reloaded:
        if self._reload is None:
            raise RefusedError("this daemon was started without a configuration file", code="no_config_file")
        reconfigured, changed, needs_restart = self._reload()
        problems = [*self.reconfigure(reconfigured), *self._executor.dispatch_problems]
        return Reloaded(changed, needs_restart, problems)

    def reconfigure(self, event: fx.Reconfigured) -> list[str]:
        """Take another configuration over; what of it cannot be carried out as things are, a sentence each."""
        problems = self._reconciler.problems(event)
        self.post(event)
        return problems

    async def _ask(self, kind: type[Asked], event_of: Callable[[int], fx.Event]) -> Asked:
        """Put a request to the reconciler and wait for its answer, which is durable when it comes."""
        if self.health.ledger is not None:
            raise LedgerError(f"nothing can be accepted now: {self.health.ledger}", hint="check the ledger's disk")
        request = next(self._requests)
        answer = self._replies[request] = asyncio.get_running_loop().create_future()
        self.post(event_of(request))
        try:
            # wait_for() of Python up to 3.11 forgets to be cancelled if what it waits for ends in the same moment
            await asyncio.wait({answer}, timeout=REPLY_SECONDS)
        finally:
            self._replies.pop(request, None)
        if not answer.done():
            raise UnreachableError(
                f"the daemon did not answer within {REPLY_SECONDS:.0f} s; the request may still be carried out",
                hint="aimctl get plans and aimctl get claims tell whether it was",
            )
        result = answer.result()
        if isinstance(result, AimdError):
            raise result
        assert isinstance(result, kind)
        return result

    async def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[NodeEvent]:
        return await self._executor.on_ledger(lambda: self._ledger.events(after=after, limit=limit))

    async def changed(self, generation: int, timeout: float) -> NodeSnapshot:
        return await self._node.newer(generation, timeout)

    # -- running ---------------------------------------------------------------------------------------------

    def post(self, event: fx.Event) -> None:
        """Hand an event to the loop; from the loop's thread only."""
        self._events.put_nowait(event)

    @property
    def beats(self) -> float:
        """Moves when a turn has ended, or a commit was tried anew."""
        return self._health.turned_at

    def ask_beat(self) -> None:
        """Have an empty turn after all that waits to be handled, unless one is to come already."""
        if not self._beat_asked:
            self._beat_asked = True
            self._events.put_nowait(None)

    async def run(self, started: fx.Started, sources: Sequence[DriverEvents]) -> None:
        """Run until cancelled."""
        self.post(started)
        beside = [asyncio.create_task(self._poll()), *(asyncio.create_task(self._listen(s)) for s in sources)]
        try:
            while True:
                event = await self._events.get()
                if event is not None:
                    await self._turn(event)
                else:
                    self._beat_asked = False
                    self._health = replace(self._health, turned_at=time.monotonic())
        finally:
            for task in (*beside, *self._tasks):
                task.cancel()
            await asyncio.gather(*beside, *self._tasks, return_exceptions=True)

    async def _turn(self, event: fx.Event) -> None:
        now = fx.Instant(time.monotonic(), time.time())
        try:
            for effect in self._reconciler.handle(event, now):
                await self._execute(effect, getattr(event, "request", 0))
        except Exception:  # the loop's outermost try: one bad event must not end the daemon
            self.failures += 1
            log.exception("event %s could not be handled", type(event).__name__)
            words = "the request failed inside aimd; its log has the details"
            self._answer(getattr(event, "request", 0), AimdError(words))
        self._health = Health(time.monotonic())

    async def _execute(self, effect: fx.Effect, request: int) -> None:
        if isinstance(effect, fx.Commit):
            await self._commit(effect, request)
        elif isinstance(effect, fx.Reply):
            self._answer(effect.request, effect.result)
        elif isinstance(effect, fx.Publish):
            self._node.publish(effect.snapshot)
            self.looked.set()
            if effect.snapshot.ready:
                self.ready.set()
        else:
            task = asyncio.create_task(self._beside(effect))
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._done(done, effect))

    def _answer(self, request: int, result: fx.Answer) -> None:
        waiting = self._replies.get(request)
        if waiting is not None and not waiting.done():
            waiting.set_result(result)

    async def _commit(self, effect: fx.Commit, request: int) -> None:
        """Journal first: what follows waits until this is durable, however long the disk is full.

        The client whose request it is about is told at once that it is not.
        """
        for event in effect.write.events:
            level = logging.WARNING if event.kind in TROUBLES else logging.INFO
            log.log(
                level, "%s %s: %s", event.kind, event.subject, event.message, extra=about(event.kind, event.subject)
            )
        while True:
            try:
                await self._executor.on_ledger(lambda: self._ledger.commit(effect.write))
            except LedgerError as error:
                log.error("%s; trying again in %.0f s, nothing is done before", error, COMMIT_RETRY_SECONDS)  # noqa: TRY400
                self._health = Health(time.monotonic(), error.message)
                words = f"the request is not durable yet, it goes on when it can be: {error.message}"
                self._answer(request, LedgerError(words, hint=error.hint))
                await asyncio.sleep(COMMIT_RETRY_SECONDS)
            else:
                return

    async def _beside(self, effect: fx.Effect) -> None:
        result = await self._executor.perform(effect)
        if result is not None:
            self.post(result)

    def _done(self, task: asyncio.Task[None], effect: fx.Effect) -> None:
        """What ran beside the loop has ended; a step that waits for it must not wait for ever."""
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self.failures += 1
        log.error("%s could not be executed", type(effect).__name__, exc_info=error)
        self.post(fx.EffectFailed(getattr(effect, "token", 0), f"{type(effect).__name__} failed: {error}"))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            self.post(fx.PollDue())

    async def _listen(self, source: DriverEvents) -> None:
        async for event in source:
            self.post(fx.DriverChanged(event.kind, event.address))
