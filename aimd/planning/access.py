"""Who may use which model on which partition, and up to which class. Pure.

Nobody needs a rule for what is theirs: operators use every model in every class, the owner of a claim, the processes
that hold it and the pods that have made it use its model up to the claim's class. `[[dispatch.allow]]` gives more. A caller never names itself higher.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aimd.domain.claim import Claim, ClaimState, QosClass
from aimd.domain.node import NodeSnapshot
from aimd.domain.partition import PartitionKey
from aimd.domain.serving import Caller, Rule, ServedModel, ServedPartition
from aimd.errors import NotFoundError

_RANK = {qos: rank for rank, qos in enumerate(QosClass)}
_WITHOUT_PLACE = {
    ClaimState.PENDING: "its claim waits for room",
    ClaimState.SWITCHING: "a mode change makes room for its claim",
    ClaimState.PLACED: "its GPU has just changed",
}
UNAUTHORISED = "unauthorised"
DENIALS = ("unknown_model", "unknown_partition", UNAUTHORISED, "draining")
SHOWN = 8  # partitions that a refusal lists


@dataclass(frozen=True, slots=True)
class Admission:
    """The model on the partition, up to this class."""

    partition: PartitionKey
    model: ServedModel
    highest: QosClass


@dataclass(frozen=True, slots=True)
class Denial:
    """`outcome`: one of DENIALS, as the dispatch socket calls it."""

    outcome: str
    message: str


@dataclass(frozen=True, slots=True)
class _Right:
    highest: QosClass
    partitions: tuple[str, ...] = ("*",)


def admit(
    caller: Caller,
    model: str,
    partition: str,
    served: Sequence[ServedPartition],
    snapshot: NodeSnapshot,
    rules: Iterable[Rule] = (),
) -> Admission | Denial:
    """What the caller gets who names a model and perhaps ("" else) a partition, like `gpu0/3` or `0000:05:00.0/3`."""
    claim = next((claim for claim in snapshot.claims if claim.name == model), None)
    rights = _rights(caller, model, claim, snapshot, rules)
    if not rights:
        if claim is None and not caller.pod:
            return _unknown(model, snapshot)
        return Denial(UNAUTHORISED, _nothing(caller, model, claim))
    if claim is None:
        return _unknown(model, snapshot)
    places = {
        place.key: one
        for place in served
        for one in place.models
        if one.name == model and any(_covers(right, place.key, snapshot) for right in rights)
    }
    if not places:
        return Denial("unknown_partition", _nowhere(claim))
    key = _chosen(partition, places, _held(caller, claim, snapshot), snapshot)
    if isinstance(key, Denial):
        return key
    if next(place.closed for place in served if place.key == key):
        return Denial("draining", f"partition {key} takes no requests now: its GPU is about to change its mode")
    highest = min((right.highest for right in rights if _covers(right, key, snapshot)), key=_RANK.__getitem__)
    return Admission(key, places[key], highest)


def _rights(
    caller: Caller, model: str, claim: Claim | None, snapshot: NodeSnapshot, rules: Iterable[Rule]
) -> list[_Right]:
    rights = [
        _Right(rule.highest, rule.partitions)
        for rule in rules
        if _means(rule, caller) and any(fnmatchcase(model, pattern) for pattern in rule.models)
    ]
    if caller.operator:
        rights.append(_Right(QosClass.HIGH))
    if claim is not None and (_owns(caller, claim) or _held(caller, claim, snapshot)):
        rights.append(_Right(claim.spec.qos))
    return rights


def _owns(caller: Caller, claim: Claim) -> bool:
    if caller.pod is not None:
        return claim.replica_of(caller.pod) is not None
    return not claim.pods and caller.uid == claim.owner_uid


def _means(rule: Rule, caller: Caller) -> bool:
    """Whether the rule is about this caller. Uids of pods are their own affair: a rule by uid or gid means none of them."""
    if rule.pod is not None:
        if not caller.pod or not fnmatchcase(caller.pod, rule.pod):
            return False
    elif caller.pod is not None:
        return False
    return rule.uid in (None, caller.uid) and rule.gid in (None, caller.gid)


def _held(caller: Caller, claim: Claim, snapshot: NodeSnapshot) -> list[PartitionKey]:
    """Where the caller holds the model, one partition for each holder; of a pod that is a replica, that one's place."""
    replica = claim.replica_of(caller.pod)
    if replica is not None:
        return [a.key for a in claim.assignments if a.replica == replica]
    return [
        holder.key
        for holder in snapshot.claim_holders
        if holder.claim == claim.name
        and (holder.pid, holder.start_time) in caller.holders
        and holder.released_at is None
        and holder.key is not None
    ]


def _covers(right: _Right, key: PartitionKey, snapshot: NodeSnapshot) -> bool:
    names = {str(key)} | {f"{status.name}/{key.index}" for status in snapshot.gpus if status.gpu.pci_address == key.gpu}
    return any(fnmatchcase(name, pattern) for name in names for pattern in right.partitions)


def _chosen(
    partition: str, places: dict[PartitionKey, ServedModel], held: list[PartitionKey], snapshot: NodeSnapshot
) -> PartitionKey | Denial:
    model = next(iter(places.values())).name
    if partition:
        named = _named(partition, snapshot)
        found = next((key for key in places if (key.gpu, key.index) == named), None)
        if found is not None:
            return found
        return Denial("unknown_partition", f"model {model} is not on partition {partition}: it is on {_list(places)}")
    own = [key for key in held if key in places]
    if own:
        return own[0]
    if len(places) == 1:
        return next(iter(places))
    return Denial("unknown_partition", f"model {model} is on {len(places)} partitions, name one of {_list(places)}")


def _named(partition: str, snapshot: NodeSnapshot) -> tuple[str, int] | None:
    gpu, _, index = partition.rpartition("/")
    if not index.isascii() or not index.isdecimal():
        return None
    try:
        return snapshot.find(gpu).gpu.pci_address, int(index)
    except NotFoundError:
        return None


def _list(places: Iterable[PartitionKey]) -> str:
    names = [str(key) for key in places]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _unknown(model: str, snapshot: NodeSnapshot) -> Denial:
    names = ", ".join(sorted(claim.name for claim in snapshot.claims)[:SHOWN]) or "none"
    return Denial("unknown_model", f"model {model} has no claim on this node; claims: {names}")


def _nowhere(claim: Claim) -> str:
    if claim.assignments:
        return f"model {claim.name} is on no partition that this caller may use"
    return f"model {claim.name} has no partition now: {_WITHOUT_PLACE[claim.state]}"


def _nothing(caller: Caller, model: str, claim: Claim | None) -> str:
    who = f"uid {caller.uid}" if caller.pod is None else f"pod {caller.pod or 'of unknown UID'}"
    owner = f", it belongs to uid {claim.owner_uid}" if claim is not None and caller.pod is None else ""
    return f"{who} may not use model {model}{owner}; an operator can allow it by [[dispatch.allow]] in aimd.toml"
