"""What of the configuration in force cannot be carried out on this node: told when it begins and when it is over."""

from __future__ import annotations

from aimd.domain.event import NodeEvent
from aimd.domain.ledger import LedgerWrite
from aimd.planning import effects as fx
from aimd.planning.claims import ClaimDesk
from aimd.planning.layouts import Layout, layout_problems, slot_problems
from aimd.planning.node_state import NodeState
from aimd.planning.policy import Policy


class Complaints:
    """Compares layout and policy with the node, once it was looked at.

    Attributes:
        layout: the one in force.
    """

    def __init__(self, node: NodeState, desk: ClaimDesk) -> None:
        self.layout: Layout = {}
        self._node = node
        self._desk = desk

    def about(self, layout: Layout, policy: Policy) -> list[str]:
        """What of a configuration cannot be carried out as things are, a sentence each; none before the first scan."""
        if not self._node.scanned:
            return []
        refused = layout_problems(layout, policy, self._node.planning_view)
        return refused + slot_problems(policy, self._desk.assignments)

    def renewed(self, now: fx.Instant) -> tuple[fx.Effect, ...]:
        """Make the present ones warnings of the node, with an event for each that is new or gone."""
        before, self._node.complaints = self._node.complaints, tuple(self.about(self.layout, self._desk.policy))
        new = [each for each in self._node.complaints if each not in before]
        gone = [f"no more: {each}" for each in before if each not in self._node.complaints]
        notes = (
            *(NodeEvent("configuration_problem", "node", words, now.wall) for words in new),
            *(NodeEvent("configuration_mended", "node", words, now.wall) for words in gone),
        )
        return (fx.Commit(LedgerWrite(events=notes)),) if notes else ()
