"""Sentences of the reconciler: what happened to the node, and why a request has to wait."""

from __future__ import annotations

from aimd.domain.event import NodeEvent
from aimd.domain.plan import Reason
from aimd.domain.switch import ModeChange
from aimd.errors import ConflictError
from aimd.planning.effects import DrainingSet, DriverChanged, Instant


def under_way(change: ModeChange) -> ConflictError:
    """The answer to a request that needs the node-wide lock while this change has it."""
    return ConflictError(
        f"mode change {change.name} is under way; one runs at a time on a node",
        code=Reason.SWITCH_IN_PROGRESS.value,
        hint=f"aimctl describe plan {change.name} shows how far it is; try again when it has ended",
    )


def reboot_note(now: Instant) -> NodeEvent:
    return NodeEvent("rebooted", "node", "the machine was rebooted since aimd ran last", now.wall)


def driver_note(event: DriverChanged, now: Instant) -> NodeEvent:
    words = f"driver event {event.kind}" + (f" of GPU {event.address}" if event.address else "")
    return NodeEvent(event.kind, event.address or "node", words, now.wall)


def drain_note(event: DrainingSet, now: Instant) -> NodeEvent:
    words = f"GPU {event.gpu} takes " + ("no new claims" if event.draining else "claims again")
    return NodeEvent("gpu_draining" if event.draining else "gpu_undrained", event.gpu, words, now.wall)
