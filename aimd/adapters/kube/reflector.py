"""One resource's objects as the API server has them, in memory: list, then watch, in a thread of its own.

What follows from what is decided in `watching`; here it is done. The watch of the `kubernetes` library is not used: it
waits for ever on a half-open connection and leaves 410 and versions to its caller.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from aimd.adapters.kube.answers import problem_of
from aimd.adapters.kube.connection import Connection, Lines
from aimd.adapters.kube.patience import Patience
from aimd.adapters.kube.resources import Target
from aimd.adapters.kube.watching import ENDED, GARBLED, Known, Restart, applied, listed, restart
from aimd.domain.cluster import WatchStatistics
from aimd.errors import AimdError, ConfigError, GoneError, NotFoundError, UnreachableError

log = logging.getLogger("aimd.kube")
T = TypeVar("T")
_ANY_VERSION = "0"  # from the API server's memory: what a fleet's start does not ask of etcd
_NEWEST = ""
_SECONDS_TO_END = 2.0


class Reflector(Generic[T]):
    """Follows the objects of a collection that a field selector names.

    Args:
        translate: makes of an object what is kept of it; LookupError and TypeError mean that it is not as agreed.
        clock, wall: monotonic seconds, and seconds since the epoch.
        chance: a random number in [0, 1).
    """

    def __init__(
        self,
        connection: Connection,
        target: Target,
        selector: str,
        translate: Callable[[Mapping[str, Any]], T],
        patience: Patience | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._connection = connection
        self._target = target
        self._selector = selector
        self._translate = translate
        self._patience = patience or Patience()
        self._clock, self._wall, self._chance = clock, wall, chance
        self._on_change: Callable[[], None] = lambda: None
        self._known: Known[T] | None = None  # None: list before anything else
        self._things: Mapping[str, T] = {}
        self._list_from = _ANY_VERSION
        self._lines: Lines | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"aimd-watch-{target.plural}", daemon=True)
        self._lock = threading.Lock()  # of all below
        self._restarts: Counter[str] = Counter()
        self._lists: Counter[str] = Counter()
        self._list_reason = "first"
        self._events = 0
        self._pause_seconds = 0.0
        self._synced = self._connected = self._missing = False
        self._told_at: float | None = None
        self._problem: str | None = None

    # -- for any thread --------------------------------------------------------------------------------------

    @property
    def synced(self) -> bool:
        """It has been listed once, or the API server has said that there is no such resource."""
        return self._synced

    def things(self) -> tuple[T, ...]:
        """What is there, as last told; kept while there is no connection."""
        return tuple(self._things.values())

    def start(self, on_change: Callable[[], None]) -> None:
        """`on_change` is called in the reflector's thread when `things` or `synced` differ."""
        self._on_change = on_change
        self._thread.start()

    def close(self) -> None:
        """End the watch; returns when the thread has ended, or after two seconds of an answer that does not come."""
        self._stopping.set()
        with self._lock:
            if self._lines is not None:
                self._lines.cut()
        if self._thread.ident is not None:
            self._thread.join(_SECONDS_TO_END)

    def statistics(self) -> WatchStatistics:
        with self._lock:
            return WatchStatistics(
                self._target.plural,
                connected=self._connected,
                synced=bool(self._lists) and not self._missing,
                missing=self._missing,
                told_at=self._told_at,
                objects=len(self._things),
                lists=dict(self._lists),
                events=self._events,
                restarts=dict(self._restarts),
                pause_seconds=self._pause_seconds,
                problem=self._problem,
                running=self._thread.is_alive(),
            )

    # -- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._follow()
        finally:
            with self._lock:
                self._connected = False
            if not self._stopping.is_set():  # a defect; Python tells which
                self._problem = f"the thread that watches {self._target.plural} has ended: restart aimd"
                log.critical(self._problem)

    def _follow(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            shortest, longest = self._patience.watch
            asked = shortest + (longest - shortest) * self._chance()
            error, began = None, self._clock()
            try:
                if self._known is None:
                    self._list()
                    began = self._clock()
                self._watch(asked)
            except AimdError as caught:
                error = caught
            lived = self._clock() - began if self._lines is not None else 0.0
            if self._stopping.is_set():
                return
            step = restart(error, lived, asked, failures, self._chance(), self._patience)
            failures = step.failures
            self._ended(step, error)
            if step.relist:
                self._known, self._list_from, self._list_reason = None, _NEWEST, step.reason
            if isinstance(error, NotFoundError):
                self._replace({})
            if step.reload:
                self._reload()
            self._stopping.wait(step.seconds)

    def _list(self) -> None:
        query = {"fieldSelector": self._selector}
        if self._list_from != _NEWEST:
            query["resourceVersion"] = self._list_from
        self._known = listed(self._connection.ask("list", self._target, **query), self._translate)
        with self._lock:
            self._lists[self._list_reason] += 1
            self._missing = False
            self._told_at = self._wall()
        self._replace(self._known.things)

    def _watch(self, asked: float) -> None:
        assert self._known is not None
        lines = self._connection.follow(
            self._target,
            fieldSelector=self._selector,
            resourceVersion=self._known.version,
            allowWatchBookmarks="true",
            timeoutSeconds=str(max(1, round(asked))),
        )
        with self._lock:
            self._lines, self._connected = lines, True
            self._problem = None
        if self._stopping.is_set():  # `close` may have come before there was anything to cut
            lines.cut()
        try:
            for line in lines:
                self._take(line)
        finally:
            lines.close()

    def _take(self, line: bytes) -> None:
        """An event: from now on it counts, or it has changed nothing."""
        assert self._known is not None
        try:
            event = json.loads(line)
        except ValueError as error:
            raise UnreachableError(f"a line of a watch is not JSON ({error})", code=GARBLED) from error
        before, self._known = self._known, applied(self._known, event, self._translate)
        with self._lock:
            self._events += 1
            self._told_at = self._wall()
        if self._known.things is not before.things:
            self._replace(self._known.things)

    def _replace(self, things: Mapping[str, T]) -> None:
        news = not self._synced or things != self._things
        self._things, self._synced = things, True
        if news and not self._stopping.is_set():
            self._on_change()

    def _ended(self, step: Restart, error: AimdError | None) -> None:
        with self._lock:
            self._lines, self._connected = None, step.reason == ENDED
            self._missing = isinstance(error, NotFoundError) or (self._missing and self._known is None)
            self._restarts[step.reason] += 1
            self._pause_seconds += step.seconds
            told, self._problem = self._problem, problem_of(error) if error is not None else self._problem
        if error is not None and told is None and not isinstance(error, GoneError):
            log.warning("the watch of %s has to begin again: %s", self._target.plural, error)

    def _reload(self) -> None:
        try:
            self._connection.reload()
        except ConfigError as error:
            with self._lock:
                self._problem = problem_of(error)
