"""Changes of the node that are followed across 410s and restarts of the daemon: what was missed is told afterwards.

After every break the list is read anew and compared with what was known, so that at most states in between are lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from aimd.ctl.client import AnswerTimeoutError, ApiClient, ProblemError
from aimd.ctl.fields import item, items, number, text
from aimd.errors import AimdError, UnreachableError

RETRY_SECONDS = 1.0
GONE, UNAVAILABLE = 410, 503
ANSWER_MALFORMED = "answer_malformed"

Object = Mapping[str, Any]


class Change(NamedTuple):
    """One object's change: `type` is ADDED, MODIFIED or DELETED, `generation` the daemon's, None for an event."""

    kind: str
    type: str
    generation: int | None
    object: Object
    before: Object | None = None


class Source(Protocol):
    """Where changes come from."""

    begun: bool

    def attempt(self, reached: Callable[[], None]) -> Iterator[Change]:
        """The changes since the last attempt until the stream ends; calls `reached` once it stands."""
        ...


class Objects:
    """The objects of one list: `gpus`, `partitions`, `claims` or `plans`."""

    def __init__(self, client: ApiClient, kind: str) -> None:
        self._client = client
        self._kind = kind
        self._known: dict[str, Object] = {}
        self.begun = False

    def attempt(self, reached: Callable[[], None]) -> Iterator[Change]:
        """Raises like ApiClient.get."""
        listed = self._client.get(f"/v1/{self._kind}")
        generation = int(number(listed, "generation") or 0)
        present: dict[str, Object] = {text(each, "name"): each for each in items(listed, self._kind)}
        if self.begun:
            yield from self._missed(present, generation)
        self._known, self.begun = present, True
        stream = self._client.stream(f"/v1/{self._kind}?watch=1&since={generation}")
        reached()
        for line in stream:
            yield self._changed(text(line, "type"), int(number(line, "generation") or 0), item(line, "object"))

    def _missed(self, present: dict[str, Object], generation: int) -> Iterator[Change]:
        for name, was in list(self._known.items()):
            if name not in present:
                yield self._changed("DELETED", generation, was)
        for name, now in present.items():
            if now != self._known.get(name):
                yield self._changed("MODIFIED" if name in self._known else "ADDED", generation, now)

    def _changed(self, type_: str, generation: int, now: Object) -> Change:
        before = self._known.pop(text(now, "name"), None)
        if type_ != "DELETED":
            self._known[text(now, "name")] = now
        return Change(self._kind, type_, generation, now, before)


class Events:
    """What the ledger keeps from now on. Sequence numbers outlive the daemon; a ledger begun anew counts from 1."""

    def __init__(self, client: ApiClient, newest: Callable[[], int]) -> None:
        self._client = client
        self._newest = newest
        self._since = 0
        self.begun = False

    def attempt(self, reached: Callable[[], None]) -> Iterator[Change]:
        """Raises like ApiClient.get."""
        if not self.begun:
            self._since, self.begun = self._newest(), True
        try:
            missed = items(self._client.get(f"/v1/events?since={self._since}"), "events")
            reached()
            yield from map(self._seen, missed)
            yield from map(self._seen, self._client.stream(f"/v1/events?since={self._since}&watch=1"))
        except ProblemError as error:
            if error.status == GONE:
                self._since = 0
            raise

    def _seen(self, event: Object) -> Change:
        self._since = int(number(event, "sequence") or 0)
        return Change("events", "ADDED", None, event)


def followed(
    source: Source, reached: Callable[[], None], lost: Callable[[], None], retry_seconds: float = RETRY_SECONDS
) -> Iterator[Change]:
    """The changes of a source without end, over breaks; `lost` and `reached` tell of the daemon's.

    Raises:
        AimdError: the daemon was never reached, or answers with what no waiting mends.
    """
    while True:
        try:
            yield from source.attempt(reached)
            lost()
        except AimdError as error:
            if not source.begun or not _passes(error):
                raise
            if not (isinstance(error, ProblemError) and error.status == GONE):
                lost()
        time.sleep(retry_seconds)


def _passes(error: AimdError) -> bool:
    """Whether asking again may help: the daemon restarts, or has forgotten where the watch was."""
    if isinstance(error, ProblemError):
        return error.status in (GONE, UNAVAILABLE)
    return isinstance(error, AnswerTimeoutError | UnreachableError) and error.code != ANSWER_MALFORMED
