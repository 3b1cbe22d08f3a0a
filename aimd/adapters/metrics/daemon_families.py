"""Families of the daemon itself: what it is, whether it is well, its ledger's contents, what a page costs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from aimd.adapters.metrics.family import Descriptor, Family
from aimd.adapters.metrics.view import View
from aimd.domain.claim import ClaimState
from aimd.domain.ledger import HolderRecord
from aimd.domain.node import NodeSnapshot

BUILD = Descriptor(
    "aim_build",
    "info",
    "The running daemon; simulated is 1 on a simulated node. Of this daemon; never absent.",
    ("version", "simulated"),
)
READY = Descriptor(
    "aim_node_ready",
    "gauge",
    "1 if the node's inventory is complete and the daemon can be used. Of this daemon; never absent.",
)
CHECK = Descriptor(
    "aim_health_check",
    "gauge",
    "1 if the check of /healthz or /readyz is passed, 0 if not; the pages say why. Of this daemon; never absent.",
    ("check",),
)
WARNINGS = Descriptor(
    "aim_node_warnings",
    "gauge",
    "What the last look at the node could not make out, and what of the configuration cannot be carried out; aimctl doctor. Of this daemon; never absent.",
)
CLAIMS = Descriptor(
    "aim_claims",
    "gauge",
    "Claims in the ledger by state: placed, switching, pending. Of this daemon; never absent.",
    ("state",),
)
ASSIGNMENTS = Descriptor(
    "aim_assignments",
    "gauge",
    "Replicas of claims that have a place, by state: held by a living process, orphaned (its process was found dead), free. Of this daemon; never absent.",
    ("state",),
)
ORPHANS = Descriptor(
    "aim_orphans",
    "gauge",
    "Processes of claims that were found dead and still keep their place. Of this daemon; never absent.",
)
LEFT_BEHIND = Descriptor(
    "aim_left_behind",
    "gauge",
    "Processes that go on after their claim was released; what they have stays reserved. Of this daemon; never absent.",
)
TURN = Descriptor(
    "aim_control_loop_idle_seconds",
    "gauge",
    "Seconds since the control loop has ended a turn. Of this daemon; never absent.",
)
FAILURES = Descriptor(
    "aim_control_loop_failures",
    "counter",
    "Events and effects that the control loop could not handle; the log has them. Of this daemon; never absent.",
)
COLLECTOR_SECONDS = Descriptor(
    "aim_collector_duration_seconds",
    "gauge",
    "Seconds that a part of this page took (dispatch, pods, telemetry), or of the last one (render). Of this daemon; never absent.",
    ("collector",),
)
COLLECTOR_ERRORS = Descriptor(
    "aim_collector_errors",
    "counter",
    "Pages on which a part is missing since it could not be read; the log says why. Of this daemon; never absent.",
    ("collector",),
)
OVERFLOW = Descriptor(
    "aim_metrics_label_overflow",
    "counter",
    "Models that came when as many as may be had a label of their own; their series are added up under model=other. Of this daemon; never absent.",
)
COLLECTORS = ("dispatch", "pods", "telemetry")


def families(view: View) -> Iterator[Family]:
    """All of the daemon that a view tells."""
    snapshot = view.snapshot
    yield BUILD.of([((view.version, str(int(view.simulated))), 1)])
    yield READY.of([((), int(snapshot.ready))])
    yield CHECK.of([((check,), int(check not in view.failing)) for check in view.checks])
    yield WARNINGS.of([((), len(snapshot.warnings))])
    yield from _claims(snapshot)
    yield TURN.of([((), view.overdue_seconds)])
    yield FAILURES.of([((), view.failures)])


def _claims(snapshot: NodeSnapshot) -> Iterator[Family]:
    states = Counter(claim.state for claim in snapshot.claims)
    yield CLAIMS.of([((state.value,), states[state]) for state in ClaimState])
    holders: dict[tuple[str, int], list[HolderRecord]] = {}
    for holder in snapshot.claim_holders:
        holders.setdefault((holder.claim, holder.replica), []).append(holder)
    places = [holders.get((one.claim, one.replica), []) for claim in snapshot.claims for one in claim.assignments]
    found = Counter(_state(each) for each in places)
    yield ASSIGNMENTS.of([((state,), found[state]) for state in ("held", "orphaned", "free")])
    every = snapshot.claim_holders
    yield ORPHANS.of([((), sum(holder.ended_at is not None for holder in every))])
    yield LEFT_BEHIND.of([((), sum(holder.released_at is not None and holder.ended_at is None for holder in every))])


def _state(holders: list[HolderRecord]) -> str:
    here = [holder for holder in holders if holder.released_at is None]
    if any(holder.ended_at is None for holder in here):
        return "held"
    return "orphaned" if here else "free"
