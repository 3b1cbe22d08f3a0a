"""PriorityQueue, the indexed queue of the dispatch core as a public class; use `from aimd.dispatch import PriorityQueue`.

`push(item, priority=0, deadline=0)` returns a handle; `pop()` and `peek()` give the item of the smallest priority,
then the earliest deadline, then the first pushed; `cancel(handle)` and `rekey(handle, priority, deadline)` find an
entry in O(1) and say False when it already left: a handle never names another entry.

    queue: PriorityQueue[str] = PriorityQueue()
    late = queue.push("report", priority=2)
    queue.push("answer", priority=0, deadline=1_000)
    queue.rekey(late, 0, 500)
    assert queue.pop() == "report"

The default deadline 0 comes before every positive one, which is right for a queue that uses no deadlines; an entry
without a deadline among entries that have one is pushed with the greatest, `deadline=2**63 - 1`, and comes last.

Made for one process's scheduling loops: no blocking get, no lock of its own beyond the GIL, which makes each call
atomic. Compiled from native/queue.pyx; there is no slower twin in Python, an installation without it fails here.
"""

from __future__ import annotations

from aimd._native.queue import PriorityQueue

__all__ = ["PriorityQueue"]
