"""Who the caller is, and what it has on the node, as a message."""

from __future__ import annotations

from dataclasses import dataclass

from aimd.domain.claim import Claim, ClaimState
from aimd.domain.node import NodeSnapshot
from aimd.protocol import claims as msg
from aimd.protocol.convert_claims import assignment_message, place_of

NO_CLAIM = "none"
UNSEEN = "aimd does not see the processes of this pid namespace: its own pod needs hostPID"
UNTOLD = "the pod of this process cannot be told from its control group"
NO_PROCESS = "this process runs in no pod and holds no claim"


@dataclass(frozen=True, slots=True)
class Asker:
    """A process that asks who it is.

    Attributes:
        pid: 0 where the daemon's pid namespace does not have it.
        pod: UID of its pod, None outside of pods and where it cannot be told.
        holders: identities (pid, start time) of claim holders that it is or belongs to; of interest outside of pods.
    """

    pid: int
    uid: int
    operator: bool
    in_pod: bool
    pod: str | None = None
    holders: frozenset[tuple[int, int]] = frozenset()


def self_message(asker: Asker, snapshot: NodeSnapshot) -> msg.SelfMessage:
    """What is answered; of other claims it tells nothing."""
    own = _of_pod(asker.pod, snapshot) if asker.in_pod else _held(asker, snapshot)
    if own is None:
        return _told(asker, state=NO_CLAIM, message=_why_none(asker))
    claim, replica = own
    pod = next((str(one.pod) for one in claim.pods if one.replica == replica), None)
    assignment = next((each for each in claim.assignments if each.replica == replica), None)
    usable = assignment is not None and snapshot.in_place(claim, assignment)
    if assignment is not None and usable and place_of(assignment, snapshot)[1] is not None:
        placed = assignment_message(assignment, snapshot, claim)
        return _told(asker, pod=pod, claim=claim.name, replica=replica, state="placed", assignment=placed)
    return _told(
        asker,
        pod=pod,
        claim=claim.name,
        replica=replica,
        state="switching" if claim.state is ClaimState.SWITCHING else "pending",
        reason=claim.reason.value if claim.reason is not None else None,
        message=claim.waits_for,
    )


def _told(
    asker: Asker,
    *,
    state: str,
    pod: str | None = None,
    claim: str | None = None,
    replica: int | None = None,
    assignment: msg.AssignmentMessage | None = None,
    reason: str | None = None,
    message: str | None = None,
) -> msg.SelfMessage:
    return msg.SelfMessage(
        pid=asker.pid,
        uid=asker.uid,
        operator=asker.operator,
        in_pod=asker.in_pod,
        pod_uid=asker.pod,
        pod=pod,
        claim=claim,
        replica=replica,
        state=state,
        assignment=assignment,
        reason=reason,
        message=message,
    )


def _of_pod(pod: str | None, snapshot: NodeSnapshot) -> tuple[Claim, int] | None:
    if pod is None:
        return None
    own = ((claim, claim.replica_of(pod)) for claim in snapshot.claims)
    return next(((claim, replica) for claim, replica in own if replica is not None), None)


def _held(asker: Asker, snapshot: NodeSnapshot) -> tuple[Claim, int] | None:
    for holder in snapshot.claim_holders:
        if (holder.pid, holder.start_time) in asker.holders and holder.released_at is None:
            claim = next((claim for claim in snapshot.claims if claim.name == holder.claim), None)
            if claim is not None:
                return claim, holder.replica
    return None


def _why_none(asker: Asker) -> str:
    if not asker.in_pod:
        return NO_PROCESS
    if asker.pid == 0:
        return UNSEEN
    if asker.pod is None:
        return UNTOLD
    return f"pod {asker.pod} has no claim on this node (yet): its Events tell if what it asks for cannot be"
