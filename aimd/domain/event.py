"""Things that happened, for people and for the ledger."""

from __future__ import annotations

from dataclasses import dataclass

# Kinds that somebody should look at; the journal has them as warnings.
TROUBLES = frozenset({
    "claim_displaced", "claim_pending", "configuration_problem", "driver_unloaded", "events_lost", "gpu_removed",
    "gpu_reset", "ledger_empty", "ledger_log_cut", "ledger_quarantined", "ledger_row_damaged", "memory_drift",
    "memory_over_limit", "not_ready", "orphan_found", "reload_problem", "reload_refused", "switch_awaiting_reload",
    "switch_failed", "switch_needs_operator", "switch_rolling_back", "wish_refused",
})  # fmt: skip
# All kinds; systemd/aimd.catalog explains each.
KINDS = TROUBLES | {
    "claim_changed", "claim_placed", "claim_released", "claim_requested", "claim_switching", "configuration_mended",
    "driver_reloaded", "gpu_added",
    "gpu_draining", "gpu_undrained", "ledger_migrated", "memory_drift_over", "memory_within_limit", "mode_changed",
    "orphan_released", "plan_accepted", "ready", "rebooted", "reloaded", "switch_committed", "switch_draining",
    "switch_rescanning", "switch_switching", "switch_verifying", "switch_waiting_for_clients",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """Something that happened, kept in the ledger.

    Attributes:
        kind: one of KINDS.
        subject: the object, `gpu0`, a mode change's name, or `node`.
        at: seconds since the epoch.
        sequence: position in the ledger, 0 before it was written.
    """

    kind: str
    subject: str
    message: str
    at: float
    sequence: int = 0
