"""The checks behind /healthz and /readyz: what fails, by name, with the reason."""

from __future__ import annotations

import time
from typing import Protocol

from aimd.domain.node import NodeSnapshot
from aimd.ports import Health

ALIVE_SECONDS = 15.0  # several polls, each of which is a turn; a scan or a mode write runs beside the loop
CHECKS = ("dispatch", "inventory", "ledger", "loop")  # of both


class Examined(Protocol):
    """The part of ports.ControlPlane that the checks ask."""

    @property
    def snapshot(self) -> NodeSnapshot: ...

    @property
    def health(self) -> Health: ...


def not_alive(control: Examined) -> dict[str, str]:
    """Why the daemon is to be restarted; empty if it works."""
    silent = time.monotonic() - control.health.turned_at
    if silent <= ALIVE_SECONDS:
        return {}
    return {"loop": f"the control loop has not turned for {silent:.0f} s, expected within {ALIVE_SECONDS:.0f} s"}


def not_ready(control: Examined) -> dict[str, str]:
    """Why the daemon cannot be used now; empty if it can."""
    snapshot, health = control.snapshot, control.health
    failing = {}
    if not snapshot.ready:
        failing["inventory"] = "; ".join(snapshot.warnings) or "the node was not scanned yet"
    if health.ledger is not None:
        failing["ledger"] = health.ledger
    if health.dispatch:
        failing["dispatch"] = "; ".join(health.dispatch)
    return failing
