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
from typing import TypeVar

import prqrs
from heapdict import heapdict
from pqdict import pqdict
from sortedcontainers import SortedList

from aimd.dispatch import PriorityQueue

Key = tuple[int, int]
Entry = TypeVar("Entry")


class Keys:
    """Keys of the hold model for `size` entries and `total` pushes: what is pushed lies a random time behind the head.

    At constant size n the head advances by window / n per cycle, and a new entry comes up to two windows behind it, so
    the order stays mixed for ever. All fit into 30 bits, because one peer has no more.
    """

    def __init__(self, size: int, total: int, seed: int = 1) -> None:
        self._rng = random.Random(seed)
        self._size = size
        self._window = (1 << 30) // (3 + total // size)
        self._pushed = 0

    def filling(self) -> list[Key]:
        return [(0, self._rng.randrange(self._window)) for _ in range(self._size)]

    def next(self, count: int) -> list[Key]:
        head = [(self._pushed + number) * self._window // self._size for number in range(count)]
        self._pushed += count
        return [(0, at + self._rng.randrange(2 * self._window)) for at in head]


def shuffled(entries: Iterable[Entry]) -> deque[Entry]:
    """The order in which entries are cancelled: random, and the same for all peers; new ones come last."""
    chosen = list(entries)
    random.Random(2).shuffle(chosen)
    return deque(chosen)


class Peer:
    """A filled queue; those with `slow_cancel` are given fewer cycles, because one costs O(n)."""

    can_cancel = True
    slow_cancel = False

    def __init__(self, filling: list[Key]) -> None:
        raise NotImplementedError

    def pop_push(self, new: Iterable[Key]) -> None:
        raise NotImplementedError

    def cancel_push(self, new: Iterable[Key]) -> None:
        """Cancel an entry from somewhere inside, then push one."""
        raise NotImplementedError


class Aimd(Peer):
    def __init__(self, filling: list[Key]) -> None:
        self.queue: PriorityQueue[int] = PriorityQueue()
        self.handles = shuffled(self.queue.push(0, *key) for key in filling)

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
        self.entries = shuffled(self.heap)
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
        self.entries = shuffled(self.list)

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
        self.handles = shuffled(self.mapping)

    def pop_push(self, new: Iterable[Key]) -> None:
        mapping, sequence, pop = self.mapping, self.sequence, self.mapping.popitem
        for key in new:
            pop()
            mapping[next(sequence)] = key

    def cancel_push(self, new: Iterable[Key]) -> None:
        mapping, sequence, handles = self.mapping, self.sequence, self.handles
        for key in new:
            del mapping[handles.popleft()]
            handle = next(sequence)
            handles.append(handle)
            mapping[handle] = key


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
        entries = [(priority, next(self.sequence)) for priority, _ in filling]
        for priority, number in entries:
            self.lanes[priority].append(number)
        self.entries = shuffled(entries)

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
        for priority, _ in new:
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
