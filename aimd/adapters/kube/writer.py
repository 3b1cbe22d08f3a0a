"""Requests to the API server, one after the other in a thread of their own, so that the daemon never waits for them.

A queue of keys: the newest work of a key is the one that is done. What fails is tried again as `writing` decides.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from aimd.adapters.kube.answers import problem_of
from aimd.adapters.kube.connection import Connection
from aimd.adapters.kube.counting import WriteCounts
from aimd.adapters.kube.patience import Patience
from aimd.adapters.kube.writing import verdict
from aimd.domain.cluster import WriteStatistics
from aimd.errors import AimdError, ConfigError, ConflictError, InvalidInputError, UnreachableError
from aimd.ports_cluster import Objects

log = logging.getLogger("aimd.kube")
Work = Callable[[Objects], None]
KEYS = 1000  # a node has 250 pods at most, and fewer services
_ATTEMPTS = 5  # of what may be lost
_SECONDS_TO_END = 2.0
_FULL = "full"  # a work that found no room
_STUMBLED = "stumbled"  # a work over an object that is not as agreed: it will again


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A work in the queue; `due` and `since` (when its key came) in clock seconds, `optional`: it may be lost.

    What is not `urgent` waits for all that is and may be done.
    """

    work: Work
    due: float
    since: float
    urgent: bool
    optional: bool
    failures: int = 0


class Writer:
    """The queue and its thread.

    Args:
        kind: `write` or `read`, for names and messages.
        connection: only to read its credentials again.
        clock: monotonic seconds; `wall`: since the epoch; `chance`: a random number in [0, 1).
    """

    def __init__(
        self,
        objects: Objects,
        connection: Connection,
        patience: Patience | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        kind: str = "write",
    ) -> None:
        self._kind = kind
        self._objects = objects
        self._connection = connection
        self._patience = patience or Patience()
        self._clock, self._wall, self._chance = clock, wall, chance
        self._changed = threading.Condition()  # guards all below
        self._queue: dict[str, _Waiting] = {}
        self._busy: tuple[str, bool] | None = None  # the key that is done now, and whether it has failed before
        self._stopping = False
        self._not_before = 0.0
        self._server_failures = 0
        self._counts = WriteCounts()
        self._pause_seconds = 0.0
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"aimd-cluster-{kind}s", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, key: str, work: Work, *, urgent: bool = True, optional: bool = False) -> bool:
        """Have it done instead of what waits with this key; False if there is no room.

        A key that fails keeps its pause, one that is urgent stays it. What is optional has half of the room and is tried five times.
        """
        with self._changed:
            before = self._queue.get(key)
            if before is not None:
                self._queue[key] = replace(before, work=work, urgent=urgent or before.urgent, optional=optional)
            elif len(self._queue) >= (KEYS // 2 if optional else KEYS):
                self._counts.dropped(key, _FULL)
                return False
            else:
                now = self._clock()
                self._queue[key] = _Waiting(work, now, now, urgent, optional)
            self._changed.notify_all()
        return True

    def wait_until_idle(self, seconds: float) -> bool:
        """Whether all is done within that time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and self._busy is None, seconds)

    def close(self) -> None:
        """Give up what waits; returns when the thread has ended, or after two seconds of an answer that does not come."""
        with self._changed:
            self._stopping = True
            self._queue.clear()
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_SECONDS_TO_END)

    def statistics(self) -> WriteStatistics:
        with self._changed:
            queue = {key: waiting.failures > 0 for key, waiting in self._queue.items()}
            keys = list(queue.items()) + ([self._busy] if self._busy is not None else [])
            kinds = self._counts.read(keys)
            alive = self._thread.is_alive()
            return WriteStatistics(kinds, 0, self._pause_seconds, self._problem, running=alive)

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._work()
        finally:
            if not self._stopping:  # a defect; Python tells which
                self._problem = f"the thread of {self._kind}s in the cluster has ended: restart aimd"
                log.critical(self._problem)

    def _work(self) -> None:
        while (next_one := self._next()) is not None:
            key, waiting = next_one
            error: AimdError | None = None
            try:
                waiting.work(self._objects)
            except AimdError as caught:
                error = caught
            except (LookupError, TypeError, ValueError, AttributeError) as caught:  # an object is not as agreed
                log.exception("the %s of %s is given up", self._kind, key)
                error = UnreachableError(f"{key}: {caught!r}", code=_STUMBLED)
            if error is None:
                self._succeeded(key, waiting)
            else:
                self._failed(key, waiting, error)

    def _next(self) -> tuple[str, _Waiting] | None:
        """The first that is due, when it is; None at the end."""
        with self._changed:
            self._busy = None
            self._changed.notify_all()
            while not self._stopping:
                if not self._queue:
                    self._changed.wait()
                    continue
                now = self._clock()
                key = min(self._queue, key=lambda each: self._rank(self._queue[each], now))  # the first of the same
                seconds = self._rank(self._queue[key], now)[0] - now
                if seconds <= 0:
                    waiting = self._queue.pop(key)
                    self._busy = key, waiting.failures > 0
                    return key, waiting
                self._changed.wait(seconds)
        return None

    def _rank(self, waiting: _Waiting, now: float) -> tuple[float, bool, float]:
        """By when it may be done, and its place among all that may be done now."""
        return max(waiting.due, self._not_before, now), not waiting.urgent, waiting.due

    def _succeeded(self, key: str, waiting: _Waiting) -> None:
        with self._changed:
            self._counts.done(key, self._clock() - waiting.since, self._wall())
            self._server_failures = 0
            self._problem = None

    def _failed(self, key: str, waiting: _Waiting, error: AimdError) -> None:
        about_server = verdict(error, 0, 0.0, self._patience).everyone
        failures = self._server_failures if about_server else waiting.failures
        decided = verdict(error, failures, self._chance(), self._patience)
        if error.code == _STUMBLED:
            decided = replace(decided, again=False, everyone=False)
        if decided.reload:
            self._reload()
        with self._changed:
            told = self._problem
            if not isinstance(error, ConflictError):  # others write, too
                self._problem = problem_of(error)
            self._server_failures = self._server_failures + 1 if decided.everyone else 0
            due = self._clock() + decided.seconds
            if decided.everyone:
                self._not_before = due
                self._pause_seconds += decided.seconds
            self._retry_or_drop(key, waiting, due, error.code, again=decided.again)
        if isinstance(error, InvalidInputError):
            log.warning("the %s of %s is given up: %s", self._kind, key, error)
        elif told is None and not isinstance(error, ConflictError):
            log.warning("a %s has failed: %s", self._kind, error)

    def _retry_or_drop(self, key: str, waiting: _Waiting, due: float, reason: str, *, again: bool) -> None:
        newer = self._queue.get(key)  # came while this one was tried, and takes over
        if not again or (waiting.optional and waiting.failures + 1 >= _ATTEMPTS):
            if newer is None:
                self._counts.dropped(key, reason)
            return
        self._counts.retried(key, reason)
        if not self._stopping:
            self._queue[key] = replace(newer or waiting, due=due, since=waiting.since, failures=waiting.failures + 1)

    def _reload(self) -> None:
        try:
            self._connection.reload()
        except ConfigError as error:
            log.warning("%s", error)
