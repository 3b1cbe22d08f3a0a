"""Watching lists: what lies between two states as lines, and the bounded past that a watcher may go on from.

A line's `generation` is what `since` takes to go on after that line. The lines of one step come one by one, and only the
last of them completes it: the others carry the generation that the step began at, so that a watcher that was cut off in
the middle is told the whole step again (ADDED, MODIFIED and DELETED may be repeated, their effect is the same).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Generic, Literal, TypeVar

from aimd.domain.node import NodeSnapshot
from aimd.errors import GoneError
from aimd.protocol.messages import Message

KEPT_SNAPSHOTS = 256
NOTHING = 0  # the generation of a watcher that knows nothing yet

Object = TypeVar("Object", bound=Message)
Change = Literal["ADDED", "MODIFIED", "DELETED"]


class WatchMessage(Message, Generic[Object], frozen=True):
    """A line of a watched list; `object` is its new state, or the last one if it was deleted.

    `generation` is the `since` of a later watch that goes on after this line.
    """

    type: Change
    generation: int
    object: Object


def step(
    before: Mapping[str, Object], after: Mapping[str, Object], *, since: int, reached: int
) -> list[WatchMessage[Object]]:
    """The lines that lead from one state of a list to another, both by the objects' names.

    Args:
        before, after: the objects at the generations `since` and `reached`.
        since: what the lines before the last one carry.
        reached: what the last line carries.
    """
    changes: list[tuple[Change, Object]] = [("DELETED", was) for name, was in before.items() if name not in after]
    for name, now in after.items():
        if name not in before:
            changes.append(("ADDED", now))
        elif before[name] != now:
            changes.append(("MODIFIED", now))
    last = len(changes) - 1
    return [
        WatchMessage(type=kind, generation=reached if index == last else since, object=each)
        for index, (kind, each) in enumerate(changes)
    ]


class History:
    """The snapshots that clients were told a generation of, the newest `kept` of them.

    Only what was shown has to be kept: nobody can go on from a generation that nobody has seen. Generations of an
    earlier life of the daemon are not found, either, because a life begins at the clock's milliseconds.
    """

    def __init__(self, kept: int = KEPT_SNAPSHOTS) -> None:
        self._kept = kept
        self._snapshots: OrderedDict[int, NodeSnapshot] = OrderedDict()

    def keep(self, snapshot: NodeSnapshot) -> NodeSnapshot:
        """Remember a snapshot that is about to be shown; the same one may be shown many times."""
        if snapshot.generation not in self._snapshots:
            self._snapshots[snapshot.generation] = snapshot
            while len(self._snapshots) > self._kept:
                self._snapshots.popitem(last=False)
        return snapshot

    def at(self, generation: int) -> NodeSnapshot:
        """The snapshot of that generation; an empty one for NOTHING.

        Raises:
            GoneError: it is not kept (any more), or was another daemon's.
        """
        if generation == NOTHING:
            return NodeSnapshot()
        found = self._snapshots.get(generation)
        if found is None:
            raise GoneError(
                f"since: generation {generation} is not known (any more), expected one of the last {self._kept} shown "
                "by this daemon",
                code="generation_gone",
                hint="list or watch anew without since",
            )
        return found
