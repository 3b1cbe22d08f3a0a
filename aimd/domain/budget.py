"""What uses up an error budget. Words and numbers alone, since aimctl, which starts light, asks it, too."""

from __future__ import annotations

from collections.abc import Mapping

# Acquires that count as bad for the service level though no lease came of them; ends of leases that do.
BAD_OUTCOMES = ("expired", "shed", "queue_full_model", "queue_full_partition", "queue_full_conn", "queue_full_uid")
BAD_ENDS = ("failed", "revoked", "lost")
LATE = "late"  # why a lease that was given back well is bad
BAD_REASONS = (LATE, *BAD_ENDS, *BAD_OUTCOMES)


def budget_eaters(outcomes: Mapping[str, int], ends: Mapping[str, int], bad: int) -> dict[str, int]:
    """The bad ones by reason, the most frequent first: why no lease came, how it ended, or that it ended late.

    The core counts late ones among the bad alone: they are those that no other reason explains.
    """
    reasons = {name: outcomes.get(name, 0) for name in BAD_OUTCOMES}
    reasons |= {name: ends.get(name, 0) for name in BAD_ENDS}
    reasons[LATE] = bad - sum(reasons.values())
    found = {name: count for name, count in reasons.items() if count}
    return dict(sorted(found.items(), key=lambda one: -one[1]))
