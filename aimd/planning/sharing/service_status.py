"""What an InferenceService's status says of the partitions of its pods.

Pods of one service may be on several nodes, and every node writes the same object. Each changes only the entries of its
own pods in `gpuSharing.assignments`, and removes those of pods that are no more where nobody else is left to do it. The
summary (partitionInfo, the annotation, the condition) is a function of all the entries, so whichever node writes last
has written the same. The patch names the resourceVersion that it was made for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from aimd.planning.sharing.answers import Answer

CONDITION = "GPUPartitionAssigned"
ANNOTATION = "aimd.dev/partition"
FIELD = "gpuSharing"
Object = Mapping[str, Any]
_WHOSE = ("pod", "node")


def service_patch(
    service: Object, node: str, answers: Iterable[Answer], now: str, gone: Collection[str] = ()
) -> dict[str, Any] | None:
    """A JSON merge patch (RFC 7386) for the service's /status, None if it says all of it already.

    Args:
        service: the object as the API server has it.
        node: this node; entries of its pods that are not among `answers` are removed.
        now: RFC 3339, for a condition that flips.
        gone: UIDs of pods that are no more, whichever node they were on.
    """
    status = service.get("status") or {}
    told: Object = (status.get(FIELD) or {}).get("assignments") or {}
    own = {answer.pod.uid: answer.told(node) for answer in answers}
    stay = {uid: entry for uid, entry in told.items() if entry.get("node") != node and uid not in gone}
    entries = {**stay, **own}
    if not entries and not told:
        return None
    wanted = {
        FIELD: _sharing(status.get(FIELD) or {}, entries, told),
        "annotations": {ANNOTATION: _annotation(_chosen(status.get(FIELD) or {}, entries))},
        "conditions": _conditions(status.get("conditions") or [], entries, service, now),
    }
    changed = {key: value for key, value in wanted.items() if not _said(status.get(key), value)}
    if not changed:
        return None
    version = service.get("metadata", {}).get("resourceVersion")
    return {"metadata": {"resourceVersion": version}, "status": changed}


def others(service: Object, node: str) -> tuple[dict[str, str], ...]:
    """What other nodes have said, in the order in which this node asks whether it still holds: pods by UID, per node.

    The next node by name comes first, and after the last one the first: so each is looked at by the one before it, and
    by one more if that has gone, too. All nodes together ask for each pod once.
    """
    told: Object = ((service.get("status") or {}).get(FIELD) or {}).get("assignments") or {}
    pods: dict[str, dict[str, str]] = {}
    for uid, entry in told.items():
        if entry.get("node") and entry["node"] != node and entry.get("pod"):
            pods.setdefault(entry["node"], {})[uid] = entry["pod"]
    return tuple(pods[name] for name in sorted(pods, key=lambda name: (name < node, name)))


def is_gone(pod: Object | None, uid: str) -> bool:
    """Whether a pod that was looked for by its name is not there any more, or another of that name is."""
    return pod is None or pod["metadata"]["uid"] != uid


def _sharing(current: Object, entries: Object, told: Object) -> dict[str, Any] | None:
    if not entries:
        return None
    chosen = _chosen(current, entries)
    info = {key: value for key, value in (chosen or {}).items() if key not in (*_WHOSE, "podUID")}
    stale = {uid: None for uid in told if uid not in entries}
    return {
        "node": chosen["node"] if chosen else None,
        "partitionInfo": _replacing(current.get("partitionInfo") or {}, info | {"podUID": _uid(chosen, entries)})
        if chosen
        else None,
        "assignments": {
            **stale,
            **{uid: _replacing(told.get(uid) or {}, entry) for uid, entry in entries.items()},
        },
    }


def _replacing(current: Object, wanted: Object) -> dict[str, Any]:
    """The merge patch that makes an object of scalars this one and no more."""
    return {**dict.fromkeys(key for key in current if key not in wanted), **wanted}


def _chosen(current: Object, entries: Object) -> Object | None:
    """The entry that the summary is of: the one that it was of, while that is there, else the first by node and pod."""
    placed = {uid: entry for uid, entry in entries.items() if "partitionId" in entry}
    summarised = str((current.get("partitionInfo") or {}).get("podUID"))
    return placed.get(summarised) or min(placed.values(), key=lambda entry: (entry["node"], entry["pod"]), default=None)


def _uid(chosen: Object, entries: Object) -> str:
    return next(uid for uid, entry in entries.items() if entry is chosen)


def _annotation(chosen: Object | None) -> str | None:
    return f"{chosen['node']}/{chosen['partitionId']}" if chosen is not None else None


def _conditions(current: Sequence[Object], entries: Object, service: Object, now: str) -> list[Any]:
    verdict, reason, message = _verdict(entries)
    before: Object = next((each for each in current if each.get("type") == CONDITION), {})
    flipped = before.get("status") != verdict
    condition: Object = {
        "type": CONDITION,
        "status": verdict,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now if flipped or not before.get("lastTransitionTime") else before["lastTransitionTime"],
    }
    generation = service.get("metadata", {}).get("generation")
    if generation is not None:
        condition = {**condition, "observedGeneration": generation}
    dropped = {key: value for key, value in condition.items() if key != "observedGeneration"}
    if before == dropped:  # KServe's own type of a condition lacks the field and drops it: that alone is no news
        condition = before
    return [condition if each.get("type") == CONDITION else each for each in current] + ([] if before else [condition])


def _verdict(entries: Object) -> tuple[str, str, str]:
    if not entries:
        return "False", "NoPods", "no pod of the service has a partition"
    waiting = sorted((e for e in entries.values() if "partitionId" not in e), key=lambda e: (e["node"], e["pod"]))
    if waiting:
        first, more = waiting[0], len(waiting) - 1
        others = f" (and {more} more pods)" if more else ""
        return "False", first["reason"], f"pod {first['pod']} on {first['node']}: {first['message']}{others}"
    places = sorted(f"{entry['node']}/{entry['partitionId']}" for entry in entries.values())
    shown = ", ".join(dict.fromkeys(places[:8]))
    count = len(places)
    return "True", "Assigned", f"{count} pod{'s' if count > 1 else ''} on {shown}" + (" and more" if count > 8 else "")


def _said(current: Any, patch: Any) -> bool:
    """Whether the object is already what the merge patch makes of it."""
    if isinstance(patch, dict):
        inside = current if isinstance(current, dict) else {}
        return all(_said(inside.get(key), value) for key, value in patch.items())
    return bool(current == patch)
