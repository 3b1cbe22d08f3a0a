"""Priority queues with one face: fill, then `cycles` of pop + push or of cancel + push.

Keys are (priority, deadline) pairs, as a dispatcher has them. A queue without cancellation has `can_cancel = False`.
Each runs in its own tight loop, so that the face costs the same nothing for all.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import queue
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable

import prqrs
from heapdict import heapdict
from pqdict import pqdict
from sortedcontainers import SortedList

from aimd.dispatch import PriorityQueue

Key = tuple[int, int]


def keys(count: int, seed: int = 1) -> list[Key]:
    """Random keys: three classes, deadlines within a second in ns."""
    rng = random.Random(seed)
    return [(rng.randrange(3), rng.randrange(1_000_000_000)) for _ in range(count)]


class Peer:
    """A filled queue; `slow` peers are given fewer cycles, because one costs O(n)."""

    can_cancel = True
    slow_pop = False
    slow_cancel = False

    def __init__(self, filling: list[Key]) -> None:
        raise NotImplementedError

    def pop_push(self, new: Iterable[Key]) -> None:
        raise NotImplementedError

    def cancel_push(self, new: Iterable[Key]) -> None:
        """Cancel the oldest entry that was pushed, then push one."""
        raise NotImplementedError


class Aimd(Peer):
    def __init__(self, filling: list[Key]) -> None:
        self.queue: PriorityQueue[int] = PriorityQueue()
        self.handles = deque(self.queue.push(0, *key) for key in filling)

    def pop_push(self, new: Iterable[Key]) -> None:
        pop, push = self.queue.pop, self.queue.push
        for priority, deadline in new:
            pop()
            push(0, priority, deadline)

    def cancel_push(self, new: Iterable[Key]) -> None:
        cancel, push, oldest, remember = self.queue.cancel, self.queue.push, self.handles.popleft, self.handles.append
        for priority, deadline in new:
            cancel(oldest())
            remember(push(0, priority, deadline))


class Heapq(Peer):
    """Tuples (priority, deadline, sequence, item); cancelling is remove + heapify, the way vLLM does it."""

    slow_cancel = True

    def __init__(self, filling: list[Key]) -> None:
        self.sequence = itertools.count()
        self.heap = [(*key, next(self.sequence), 0) for key in filling]
        self.entries = deque(self.heap)
        heapq.heapify(self.heap)

    def pop_push(self, new: Iterable[Key]) -> None:
        pop, push, heap, sequence = heapq.heappop, heapq.heappush, self.heap, self.sequence
        for priority, deadline in new:
            pop(heap)
            push(heap, (priority, deadline, next(sequence), 0))

    def cancel_push(self, new: Iterable[Key]) -> None:
        heap, sequence, entries = self.heap, self.sequence, self.entries
        for priority, deadline in new:
            heap.remove(entries.popleft())
            heapq.heapify(heap)
            entry = (priority, deadline, next(sequence), 0)
            entries.append(entry)
            heapq.heappush(heap, entry)


class StandardQueue(Peer):
    """queue.PriorityQueue."""

    can_cancel = False

    def __init__(self, filling: list[Key]) -> None:
        self.sequence = itertools.count()
        self.queue: queue.PriorityQueue[tuple[int, int, int, int]] = queue.PriorityQueue()
        for key in filling:
            self.queue.put((*key, next(self.sequence), 0))

    def pop_push(self, new: Iterable[Key]) -> None:
        get, put, sequence = self.queue.get_nowait, self.queue.put_nowait, self.sequence
        for priority, deadline in new:
            get()
            put((priority, deadline, next(sequence), 0))


class AsyncioQueue(Peer):
    """asyncio.PriorityQueue, without a loop in the way."""

    can_cancel = False

    def __init__(self, filling: list[Key]) -> None:
        self.sequence = itertools.count()
        self.queue: asyncio.PriorityQueue[tuple[int, int, int, int]] = asyncio.PriorityQueue()
        for key in filling:
            self.queue.put_nowait((*key, next(self.sequence), 0))

    pop_push = StandardQueue.pop_push


class Sorted(Peer):
    """sortedcontainers.SortedList, a common idiom for a queue with removal."""

    def __init__(self, filling: list[Key]) -> None:
        self.sequence = itertools.count()
        self.list = SortedList((*key, next(self.sequence), 0) for key in filling)
        self.entries = deque(self.list)

    def pop_push(self, new: Iterable[Key]) -> None:
        pop, add, sequence = self.list.pop, self.list.add, self.sequence
        for priority, deadline in new:
            pop(0)
            add((priority, deadline, next(sequence), 0))

    def cancel_push(self, new: Iterable[Key]) -> None:
        remove, add, sequence, entries = self.list.remove, self.list.add, self.sequence, self.entries
        for priority, deadline in new:
            remove(entries.popleft())
            entry = (priority, deadline, next(sequence), 0)
            entries.append(entry)
            add(entry)


class Mapping(Peer):
    """Queues that are mappings from a handle to a key: pqdict and heapdict."""

    def __init__(self, filling: list[Key], make: Callable[[], pqdict]) -> None:
        self.sequence = itertools.count()
        self.mapping = make()
        for key in filling:
            self.mapping[next(self.sequence)] = key
        self.oldest = itertools.count()

    def pop_push(self, new: Iterable[Key]) -> None:
        mapping, sequence, pop = self.mapping, self.sequence, self.mapping.popitem
        for key in new:
            pop()
            mapping[next(sequence)] = key

    def cancel_push(self, new: Iterable[Key]) -> None:
        mapping, sequence, oldest = self.mapping, self.sequence, self.oldest
        for key in new:
            del mapping[next(oldest)]
            mapping[next(sequence)] = key


class Pqdict(Mapping):
    def __init__(self, filling: list[Key]) -> None:
        super().__init__(filling, pqdict)


class Heapdict(Mapping):
    def __init__(self, filling: list[Key]) -> None:
        super().__init__(filling, heapdict)


class Prqrs(Peer):
    """A Rust binary heap behind Python; its priority is one signed 32-bit integer, the least first."""

    can_cancel = False

    def __init__(self, filling: list[Key]) -> None:
        self.queue = prqrs.PriorityQueue()
        for priority, deadline in filling:
            self.queue.push(prqrs.Item(0, priority << 29 | deadline >> 1))

    def pop_push(self, new: Iterable[Key]) -> None:
        pop, push, item = self.queue.pop, self.queue.push, prqrs.Item
        for priority, deadline in new:
            pop()
            push(item(0, priority << 29 | deadline >> 1))


class ThreeDeques(Peer):
    """The prototype: a deque per class and a lock; no deadlines, and cancelling searches."""

    slow_cancel = True

    def __init__(self, filling: list[Key]) -> None:
        self.lock = threading.Lock()
        self.sequence = itertools.count()
        self.lanes: tuple[deque[int], ...] = (deque(), deque(), deque())
        self.entries: deque[tuple[int, int]] = deque()
        for priority, _ in filling:
            number = next(self.sequence)
            self.lanes[priority].append(number)
            self.entries.append((priority, number))

    def pop_push(self, new: Iterable[Key]) -> None:
        lock, lanes, sequence = self.lock, self.lanes, self.sequence
        for priority, _ in new:
            with lock:
                for lane in lanes:
                    if lane:
                        lane.popleft()
                        break
            with lock:
                lanes[priority].append(next(sequence))

    def cancel_push(self, new: Iterable[Key]) -> None:
        lock, lanes, sequence, entries = self.lock, self.lanes, self.sequence, self.entries
        rng = random.Random(2)
        for priority, _ in new:
            entries.rotate(rng.randrange(len(entries)))  # the oldest one is found at once: not what users cancel
            lane, number = entries.popleft()
            with lock:
                lanes[lane].remove(number)
                fresh = next(sequence)
                lanes[priority].append(fresh)
            entries.append((priority, fresh))


PEERS: dict[str, type[Peer]] = {
    "aimd": Aimd,
    "heapq": Heapq,
    "queue.PriorityQueue": StandardQueue,
    "asyncio.PriorityQueue": AsyncioQueue,
    "sortedcontainers": Sorted,
    "pqdict": Pqdict,
    "heapdict": Heapdict,
    "prqrs": Prqrs,
    "three deques": ThreeDeques,
}
