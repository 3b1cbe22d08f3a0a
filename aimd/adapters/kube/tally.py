"""Which Events are sent, and which only counted. Pure: no clock, no thread; memory is bounded."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from aimd.domain.cluster import ObjectRef

BURST = 25  # Events about one object at once, as client-go's spam filter allows
REFILL_SECONDS = 300.0  # until one more may follow
FORGOTTEN_SECONDS = 3600.0  # the API server keeps an Event for an hour (--event-ttl)
KEPT = 500


@dataclass
class Story:
    """One Event: what was told of an object, how often, when last.

    Attributes:
        first, last: seconds since the epoch.
        tried: it was sent; whether it arrived may be unknown.
        sent: the API server has it.
    """

    about: ObjectRef
    reason: str
    message: str
    warning: bool
    first: float
    last: float
    count: int = 1
    tried: bool = False
    sent: bool = False


@dataclass
class _Allowance:
    tokens: float
    since: float


class Tally:
    """What has been told lately."""

    def __init__(self) -> None:
        self._stories: OrderedDict[tuple[str, str, str], Story] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()

    def told(self, about: ObjectRef, reason: str, message: str, now: float, *, warning: bool) -> tuple[Story, bool]:
        """The Event that this is (again), and whether it may be sent now. `now`: seconds since the epoch."""
        key = (about.uid, reason, message)
        story = self._stories.pop(key, None)
        if story is None or now - story.last > FORGOTTEN_SECONDS:
            story = Story(about, reason, message, warning, now, now)
        else:
            story.count += 1
            story.last = now
        self._stories[key] = story
        if len(self._stories) > KEPT:
            self._stories.popitem(last=False)
        return story, self._allowed(about.uid, now)

    def _allowed(self, uid: str, now: float) -> bool:
        allowance = self._allowances.pop(uid, None) or _Allowance(BURST, now)
        self._allowances[uid] = allowance
        if len(self._allowances) > KEPT:
            self._allowances.popitem(last=False)
        allowance.tokens = min(BURST, allowance.tokens + max(0.0, now - allowance.since) / REFILL_SECONDS)
        allowance.since = now
        if allowance.tokens < 1:
            return False
        allowance.tokens -= 1
        return True
