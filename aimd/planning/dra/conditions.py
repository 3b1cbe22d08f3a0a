"""What a ResourceClaim's status says of our devices: whether the pod that waits for them can be bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from aimd.domain.device_name import FAILED, READY
from aimd.planning.dra.requests import results_of

Object = Mapping[str, Any]
LONGEST_MESSAGE = 1000  # an Event repeats it, which has 1,024 characters
_IDENTITY = ("driver", "pool", "device", "shareID")


class Readiness(str, Enum):
    """WAITING: the GPU is on its way into the mode. READY: it is in it. FAILED: it will not be."""

    WAITING = "waiting"
    READY = "ready"
    FAILED = "failed"

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of a device. `reason` is one word in CamelCase, `message` a sentence."""

    readiness: Readiness
    reason: str
    message: str


def device_entries(
    claim: Object, pool: str, outcomes: Mapping[str, Outcome], now: str
) -> tuple[dict[str, Any], ...] | None:
    """The entries of ours in `status.devices`, all of them; None if they are there already.

    Only devices whose allocation carries binding conditions have one. Who has no outcome keeps what was said.

    Args:
        outcomes: by name of the device.
        now: RFC 3339, for conditions that turn.
    """
    there = {_identity(one): one for one in (claim.get("status") or {}).get("devices") or ()}
    wanted = []
    changed = False
    for result in results_of(claim, pool):
        before = _conditions(there.get(_identity(result), {}))
        outcome = outcomes.get(str(result.get("device")))
        if not result.get("bindingConditions") or (outcome is None and not before):
            continue
        after = before if outcome is None else _after(before, outcome, now)
        changed = changed or after != before
        identity = {key: result[key] for key in _IDENTITY if result.get(key) is not None}
        wanted.append({**identity, "conditions": [after[kind] for kind in sorted(after)]})
    return tuple(wanted) if changed else None


def _identity(entry: Object) -> tuple[object, ...]:
    return tuple(entry.get(key) for key in _IDENTITY)


def _conditions(entry: Object) -> dict[str, Object]:
    """Ours, by type."""
    return {one["type"]: one for one in entry.get("conditions") or () if one.get("type") in (READY, FAILED)}


def _after(before: Mapping[str, Object], outcome: Outcome, now: str) -> dict[str, Object]:
    ready = _condition(READY, before, outcome, now, true=outcome.readiness is Readiness.READY)
    failed = _condition(FAILED, before, outcome, now, true=outcome.readiness is Readiness.FAILED)
    # without a failure nobody has to read of one, unless it was told before
    return {READY: ready, **({FAILED: failed} if failed["status"] == "True" or FAILED in before else {})}


def _condition(kind: str, before: Mapping[str, Object], outcome: Outcome, now: str, *, true: bool) -> Object:
    status, old = "True" if true else "False", before.get(kind, {})
    return {
        "type": kind,
        "status": status,
        "reason": outcome.reason,
        "message": outcome.message[:LONGEST_MESSAGE],
        "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == status else now,
    }
