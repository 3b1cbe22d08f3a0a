"""Claims and their assignments. Named by the client and written by PUT: the same claim again is the same claim.

A process in a pod sees the claim that its pod is a replica of, and no other.
"""

from __future__ import annotations

from http import HTTPStatus

from aimd.adapters.http.api import Api, Collection
from aimd.adapters.http.call import Answer, Call, Result
from aimd.adapters.http.resources.common import SINCE, WATCH, name_of, watched
from aimd.adapters.http.routes import Route
from aimd.adapters.unix.peer import Peer
from aimd.domain.claim import Claim, ClaimState
from aimd.domain.ledger import HolderRecord
from aimd.domain.node import NodeSnapshot
from aimd.errors import NotFoundError
from aimd.protocol import claims as msg
from aimd.protocol.convert_claims import Member, assignment_message, claim_message, holders_of
from aimd.protocol.watch import WatchMessage

EXAMPLE = '{"memory_gb": 24, "compute_mode": "CPX"}'


def visible_claims(snapshot: NodeSnapshot, peer: Peer) -> tuple[Claim, ...]:
    """The claims that this peer may know of."""
    if not peer.in_pod:
        return snapshot.claims
    return tuple(claim for claim in snapshot.claims if claim.replica_of(peer.pod) is not None)


def visible_claim(snapshot: NodeSnapshot, call: Call, variable: str = "name") -> Claim:
    """The claim of the path; raises NotFoundError, also for one that this peer may not know of."""
    name = call.path[variable]
    for claim in visible_claims(snapshot, call.peer):
        if claim.name == name:
            return claim
    raise NotFoundError(f"claim {name!r} does not exist", code="unknown_claim", hint="aimctl get claims lists them")


def _claims(peer: Peer) -> Collection[msg.ClaimMessage]:
    return Collection(lambda snapshot, _: {c.name: claim_message(c, snapshot) for c in visible_claims(snapshot, peer)})


def _assignments(peer: Peer) -> Collection[msg.AssignmentMessage]:
    def objects(snapshot: NodeSnapshot, _now: float) -> dict[str, msg.AssignmentMessage]:
        every = ((claim, each) for claim in visible_claims(snapshot, peer) for each in claim.assignments)
        return {each.name: assignment_message(each, snapshot, claim) for claim, each in every}

    return Collection(objects)


async def list_claims(api: Api, call: Call) -> Result:
    claims = _claims(call.peer)
    if (stream := await watched(api, call, claims)) is not None:
        return stream
    snapshot = api.snapshot()
    found = list(claims.objects(snapshot, 0.0).values())
    return Answer(msg.ClaimListMessage(claims=found, generation=snapshot.generation))


async def read_claim(api: Api, call: Call) -> Result:
    """With all living processes, also those that its holders have started; a list has the holders only."""
    snapshot = api.snapshot()
    claim = visible_claim(snapshot, call)
    return Answer(claim_message(claim, snapshot, await _members(api, claim, snapshot)))


async def write_claim(api: Api, call: Call) -> Result:
    name = name_of(call, "claim")
    snapshot = api.snapshot()
    spec = call.body(msg.ClaimRequest, EXAMPLE).spec(lambda gpu: snapshot.find(gpu).gpu.pci_address)
    api.operators.require(call.peer)
    known = any(claim.name == name for claim in snapshot.claims)
    claim = await api.control.claim(name, spec, uid=call.peer.uid)
    placed = HTTPStatus.CREATED if claim.state is ClaimState.PLACED else HTTPStatus.ACCEPTED
    return Answer(claim_message(claim, api.snapshot()), HTTPStatus.OK if known else placed)


async def release_claim(api: Api, call: Call) -> Result:
    snapshot = api.snapshot()
    claim = visible_claim(snapshot, call)
    api.operators.require_for(call.peer, claim.owner_uid)
    members = await _members(api, claim, snapshot)  # after the release nobody knows them
    return Answer(claim_message(await api.control.release(claim.name), snapshot, members))


async def _members(api: Api, claim: Claim, snapshot: NodeSnapshot) -> dict[HolderRecord, list[Member]]:
    living = [holder for holder in holders_of(claim.name, snapshot) if holder.ended_at is None]
    return {holder: [(each.pid, each.command) for each in await api.control.members(holder)] for holder in living}


async def list_assignments(api: Api, call: Call) -> Result:
    assignments = _assignments(call.peer)
    if (stream := await watched(api, call, assignments)) is not None:
        return stream
    snapshot = api.snapshot()
    found = list(assignments.objects(snapshot, 0.0).values())
    return Answer(msg.AssignmentListMessage(assignments=found, generation=snapshot.generation))


async def read_assignment(api: Api, call: Call) -> Result:
    snapshot, replica = api.snapshot(), call.path["replica"]
    claim = visible_claim(snapshot, call, "claim")
    for assignment in claim.assignments:
        if str(assignment.replica) == replica:
            return Answer(assignment_message(assignment, snapshot, claim))
    placed = ", ".join(str(each.replica) for each in claim.assignments) or "none"
    raise NotFoundError(
        f"claim {claim.name} has no assignment {replica!r}",
        code="unknown_assignment",
        hint=f"replicas that are placed: {placed}",
    )


_LISTED = (HTTPStatus.BAD_REQUEST, HTTPStatus.GONE)
_NAMED = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND)

ROUTES = (
    Route(
        "GET",
        "/v1/claims",
        "All claims",
        list_claims,
        {200: msg.ClaimListMessage},
        query=(WATCH, SINCE),
        lines=WatchMessage[msg.ClaimMessage],
        problems=_LISTED,
    ),
    Route("GET", "/v1/claims/{name}", "One claim", read_claim, {200: msg.ClaimMessage}, problems=_NAMED),
    Route(
        "PUT",
        "/v1/claims/{name}",
        "Claim partitions for a model; the same claim again is the same claim",
        write_claim,
        {200: msg.ClaimMessage, 201: msg.ClaimMessage, 202: msg.ClaimMessage},
        body=msg.ClaimRequest,
        problems=(*_NAMED, HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
    ),
    Route(
        "DELETE",
        "/v1/claims/{name}",
        "Release a claim; the answer is the claim as it was, and who still runs on it",
        release_claim,
        {200: msg.ClaimMessage},
        problems=(*_NAMED, HTTPStatus.FORBIDDEN),
    ),
    Route(
        "GET",
        "/v1/assignments",
        "All assignments, by claim",
        list_assignments,
        {200: msg.AssignmentListMessage},
        query=(WATCH, SINCE),
        lines=WatchMessage[msg.AssignmentMessage],
        problems=_LISTED,
    ),
    Route(
        "GET",
        "/v1/assignments/{claim}/{replica}",
        "One assignment",
        read_assignment,
        {200: msg.AssignmentMessage},
        problems=_NAMED,
    ),
)
