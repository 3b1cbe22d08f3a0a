"""What a policy achieved: requests that were complete in time, and how long a class was passed over."""

from __future__ import annotations

from dataclasses import dataclass, field

from aimd.dispatch.values import Class


def _zeros() -> list[int]:
    return [0] * len(Class)


@dataclass(slots=True)
class Score:
    """Counts by class.

    Attributes:
        arrived: all requests.
        met: complete in time.
        late: granted and complete too late; what neither met nor was late has expired without a grant.
        longest_gap: the most excess grants in a row that went to other classes while one of this class waited.
    """

    arrived: list[int] = field(default_factory=_zeros)
    met: list[int] = field(default_factory=_zeros)
    late: list[int] = field(default_factory=_zeros)
    longest_gap: list[int] = field(default_factory=_zeros)
    _waiting: list[int] = field(default_factory=_zeros)
    _gap: list[int] = field(default_factory=_zeros)

    def arrives(self, klass: int) -> None:
        self.arrived[klass] += 1
        self._waiting[klass] += 1

    def expires(self, klass: int) -> None:
        self._waiting[klass] -= 1
        if not self._waiting[klass]:
            self._gap[klass] = 0

    def grants(self, klass: int, *, met: bool) -> None:
        """An excess grant: no model of a replay has a guarantee, so that each grant is one."""
        if met:
            self.met[klass] += 1
        else:
            self.late[klass] += 1
        self._waiting[klass] -= 1
        self._gap[klass] = 0
        for other in Class:
            if other != klass and self._waiting[other]:
                self._gap[other] += 1
                self.longest_gap[other] = max(self.longest_gap[other], self._gap[other])

    def add(self, other: Score) -> None:
        """The counts of both; the longer gap of either."""
        for klass in Class:
            self.arrived[klass] += other.arrived[klass]
            self.met[klass] += other.met[klass]
            self.late[klass] += other.late[klass]
            self.longest_gap[klass] = max(self.longest_gap[klass], other.longest_gap[klass])

    def expired(self, klass: int) -> int:
        return self.arrived[klass] - self.met[klass] - self.late[klass]

    def met_percent(self, klass: int | None = None) -> float | None:
        """Of the class, or of all; None if there were none."""
        met, arrived = (sum(self.met), sum(self.arrived)) if klass is None else (self.met[klass], self.arrived[klass])
        return 100 * met / arrived if arrived else None
