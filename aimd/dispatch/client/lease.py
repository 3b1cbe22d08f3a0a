"""What the leases of both clients tell about themselves."""

from __future__ import annotations

from time import monotonic_ns

from aimd.dispatch.client.records import Held, LeaseState
from aimd.dispatch.values import Class


class LeaseFacts:
    """A lease as its holder sees it; what it tells is as new as what was read from the daemon."""

    __slots__ = ("_held",)

    def __init__(self, held: Held) -> None:
        self._held = held

    @property
    def id(self) -> int:
        """The daemon's number for it; never used for another lease."""
        return self._held.lease

    @property
    def partition(self) -> str:
        """Where to run: a GPU's PCI address and a partition index, like 0000:05:00.0/3."""
        return self._held.partition

    @property
    def klass(self) -> Class:
        """The class in which it was granted."""
        return Class(self._held.klass)

    @property
    def guaranteed(self) -> bool:
        """Within the model's guarantee; else it was spare capacity, and its renewal may be refused."""
        return self._held.guaranteed

    @property
    def lost(self) -> bool:
        """It ended without being released: its life was over, or a restarted daemon did not know it any more."""
        return self._held.state is LeaseState.LOST

    def remaining(self) -> float:
        """Seconds until the daemon takes it back if it is not renewed; 0 when it is not held any more."""
        if self._held.state is not LeaseState.HELD:
            return 0.0
        return max(0, self._held.expires - monotonic_ns()) / 1e9

    def __repr__(self) -> str:
        held = self._held
        return f"<{type(self).__name__} {held.lease:#x} on {held.partition}, {held.state.value}>"
