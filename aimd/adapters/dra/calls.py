"""Work for claims in threads: one after the other for each claim, all claims beside each other, answered in time.

A thread that waits for something that does not come cannot be ended. So the work has threads of its own, which nobody
waits for when the process ends, and the call that asked for it returns without it.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from aimd.errors import AimdError, ConflictError, UnreachableError

T = TypeVar("T")
TIMED_OUT = "timed_out"
STOPPING = "stopping"


class Call(Generic[T]):
    """Works by claim uid, and what became of them.

    Args:
        deadline: clock seconds; what has not ended by then is an error.
    """

    def __init__(self, works: Mapping[str, Callable[[], T]], deadline: float) -> None:
        self.works = works
        self.deadline = deadline
        self.outcomes: dict[str, T | AimdError] = {}
        self.turns: dict[str, object] = {}
        self.over = False  # what has not begun does not begin any more


class Calls:
    """All calls of a driver. For any thread.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()  # guards all below, and what calls have
        self._queues: defaultdict[str, deque[object]] = defaultdict(deque)
        self._running = 0
        self._closing = self._cut = False

    def run(self, call: Call[T]) -> Mapping[str, T | AimdError]:
        """What became of each work: what it gave, the error that it raised, or why it has not ended."""
        with self._changed:
            if self._closing:
                return {uid: _stopping() for uid in call.works}
            self._running += 1
            for uid in call.works:
                call.turns[uid] = object()
                self._queues[uid].append(call.turns[uid])
        try:
            for uid in call.works:
                self._start(call, uid)
            with self._changed:
                self._wait(lambda: len(call.outcomes) == len(call.works), call)
                call.over = True
                return {uid: call.outcomes[uid] if uid in call.outcomes else self._late() for uid in call.works}
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def abandon(self, call: Call[T]) -> None:
        """Nobody waits for it any more: it returns at once."""
        with self._changed:
            call.over = True
            self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """Begin nothing more; calls that still run after so many seconds return with errors."""
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: not self._running, seconds)
            self._cut = True
            self._changed.notify_all()

    def _start(self, call: Call[T], uid: str) -> None:
        thread = threading.Thread(target=self._work, args=(call, uid), name=f"aimd-claim-{uid[:8]}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._end(call, uid, UnreachableError(f"there is no thread to work for the claim ({error})"))

    # -- a work's thread -------------------------------------------------------------------------------------

    def _work(self, call: Call[T], uid: str) -> None:
        # What else is raised is a defect, which Python tells when the thread ends by it.
        outcome: T | AimdError = AimdError("a defect in aimd has ended the work for the claim: see aimd's log")
        try:
            outcome = call.works[uid]() if self._is_next(call, uid) else self._late()
        except AimdError as error:
            outcome = error
        finally:
            self._end(call, uid, outcome)

    def _is_next(self, call: Call[T], uid: str) -> bool:
        """Once no earlier work for the claim runs; false if this one is not wanted any more."""
        with self._changed:
            self._wait(lambda: self._queues[uid][0] is call.turns[uid], call)
            return self._queues[uid][0] is call.turns[uid] and not (call.over or self._cut)

    def _end(self, call: Call[T], uid: str, outcome: T | AimdError) -> None:
        with self._changed:
            self._queues[uid].remove(call.turns[uid])
            if not self._queues[uid]:
                del self._queues[uid]
            call.outcomes[uid] = outcome
            self._changed.notify_all()

    # -- with the lock ---------------------------------------------------------------------------------------

    def _wait(self, condition: Callable[[], bool], call: Call[T]) -> None:
        left = max(0.0, call.deadline - self._clock())
        self._changed.wait_for(lambda: condition() or call.over or self._cut, left)

    def _late(self) -> AimdError:
        if self._cut:
            return _stopping()
        return ConflictError("the claim is not done with in time, the kubelet is to ask again", code=TIMED_OUT)


def _stopping() -> AimdError:
    return UnreachableError("aimd is stopping, the kubelet is to ask again", code=STOPPING)
